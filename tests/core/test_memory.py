"""Available memory, with and without a cgroup's limit."""

from pathlib import Path

import psutil
import pytest

from pcam_model.core import memory
from pcam_model.core.memory import available_memory


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
