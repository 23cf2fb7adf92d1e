"""Available memory, with and without a cgroup's limit; and what is said where it ran out."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from pcam_model.core import memory
from pcam_model.core.memory import available_memory, out_of_memory_sentence

# The command, with 50 MB left to it after its start: too little for torch.
LITTLE_MEMORY = """
import resource, sys
from pcam_model.cli.main import main
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 50_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
main()
"""


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [("3000", "1000", 2000.0), ("max", "1000", 8000.0), ("90000", "1000", 8000.0), (None, None, 8000.0)],
)
def test_memory_is_the_machines_but_not_more_than_the_cgroup_leaves(
    limit: str | None, used: str | None, expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in (("memory.max", limit), ("memory.current", used)):
        if content is not None:
            (tmp_path / name).write_text(f"{content}\n")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    machine = psutil.virtual_memory()._replace(available=8000)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: machine)
    assert available_memory() == expected


def test_the_memory_of_this_machine_is_measured() -> None:
    assert 1e8 < available_memory() < 1e14


@pytest.mark.parametrize(
    "allocate",
    [
        lambda: torch.empty(1 << 60, dtype=torch.uint8),
        lambda: np.empty(1 << 60, np.uint8),
        lambda: os.fsencode(bytearray(1 << 62).decode()),
    ],
    ids=["torch", "numpy", "python"],
)
def test_real_failures_to_allocate_are_a_sentence(allocate: Callable[[], object]) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as raised:
        allocate()
    assert out_of_memory_sentence(raised.value).startswith("memory ran out (")


def test_other_errors_are_none() -> None:
    assert out_of_memory_sentence(OSError(errno.ENOMEM, "Cannot allocate memory"))
    for error in (OSError(errno.ENOSPC, "No space left"), RuntimeError("shape mismatch"), ValueError("out of memory")):
        assert out_of_memory_sentence(error) == ""


def test_a_command_short_of_memory_ends_with_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, "predict", "champion", str(tmp_path), "--store", tmp_path.as_uri()],
        capture_output=True, text=True, timeout=100, cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "pcam: memory ran out (" in done.stderr
