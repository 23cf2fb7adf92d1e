"""What the system raises where a limit is reached ends a command with one sentence and exit code 1."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pcam_model.core.limits import limit_message
from pcam_model.inference.backends import OnnxBackend

TOO_MUCH = 1 << 55


def raised(call: object) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of any class
        call()  # type: ignore[operator]
    return caught.value


@pytest.mark.parametrize(
    "call",
    [lambda: bytearray(TOO_MUCH), lambda: np.empty(TOO_MUCH, np.uint8), lambda: torch.empty(TOO_MUCH)],
    ids=["Python", "NumPy", "torch"],
)
def test_memory_that_cannot_be_had_is_one_sentence(call: object) -> None:
    message = limit_message(raised(call))
    assert message.startswith("the memory is used up (")
    assert "\n" not in message


@pytest.mark.parametrize(
    "error", [RuntimeError("std::bad_alloc"), ImportError("x.so: failed to map segment from shared object")], ids=repr
)
def test_memory_that_a_library_lacks_is_one_sentence(error: Exception) -> None:
    assert limit_message(error).startswith("the memory is used up (")


@pytest.mark.parametrize("number", [errno.EFBIG, errno.ENOSPC, errno.EMFILE, errno.ENOMEM])
def test_a_limit_of_the_system_is_one_sentence(number: int) -> None:
    assert os.strerror(number) in limit_message(OSError(number, os.strerror(number), "file"))


@pytest.mark.parametrize("error", [OSError(errno.ENOENT, "gone"), RuntimeError("size mismatch"), ValueError("x")])
def test_other_faults_are_not_said_to_be_limits(error: BaseException) -> None:
    assert limit_message(error) == ""


def limited(limit: int, size: int, *words: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PCAM_CACHE": str(cwd / "cache"), "HOME": str(cwd)}
    return subprocess.run(
        [sys.executable, "-m", "pcam_model", *words],
        env=environment, capture_output=True, text=True, check=False, cwd=cwd,
        preexec_fn=lambda: resource.setrlimit(limit, (size, size)),
    )  # fmt: skip


def test_a_network_for_which_there_is_no_memory_is_not_said_to_be_damaged(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    def fail(*_: object) -> None:
        raise RuntimeError("Exception during initialization: std::bad_alloc")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(MemoryError, match="bad_alloc"):
        OnnxBackend(model_folder)


@pytest.mark.parametrize("command", ["pull", "predict"])
def test_a_limit_of_file_sizes_ends_a_command_with_a_sentence(command: str, tmp_path: Path, model_folder: Path) -> None:
    from a_model import publish_model
    from patch_sets import make_patch_set

    from pcam_model.registry.factory import open_store

    store = open_store(str(tmp_path / "store"))
    publish_model(store, model_folder)
    make_patch_set(300).zip(tmp_path / "a.zip")
    words = ("pull", "made", "here") if command == "pull" else ("predict", str(model_folder), "a.zip", "--out", "p.csv")
    size = 1000
    done = limited(resource.RLIMIT_FSIZE, size, *words, "--store", store.uri, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
