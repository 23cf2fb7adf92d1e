"""A test fails that leaves the process changed: environment, working directory, threads, signal handlers, torch."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
GRACE_S = 5.0
# Set by pytest itself for each phase of each test, by us before the first import of onnxruntime, timm and torch, and by
# torchvision's first import.
IMPORT_VARIABLES = {"KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TORCHINDUCTOR_CACHE_DIR"}
IGNORED_VARIABLES = {
    *("PYTEST_CURRENT_TEST", "ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "OMP_WAIT_POLICY"),
    *IMPORT_VARIABLES,
}
# Threads that a library starts once a process and keeps by design, by the beginning of their names.
LIBRARY_THREADS = (
    "AnyIO worker thread",  # anyio's pool
    "GlobalEventLoopThread",  # Prefect's own event loops
    "RunSync",
    "APILogWorkerThread",
    "EventsWorker",
    "asyncio_",
    "prefect",
    "Prefect",
    "Profile",  # distributed's
    "IO loop",
    "TCP-Executor",
    "Dask-",
    "AsyncProcess",
    "tqdm",
    "pymp-",
)


_shared_threads = set[threading.Thread]()  # of fixtures that outlive a test, and which stop them themselves


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
    """Note the threads that fixtures of a wider scope than a test have started."""
    before = set(threading.enumerate())
    result = yield
    if fixturedef.scope != "function":
        _shared_threads.update(set(threading.enumerate()) - before)
    return result


@pytest.fixture(autouse=True)
def unchanged_process() -> Iterator[None]:
    """Compare the process after a test, and after the undoing of its fixtures, with what it was before."""
    before = _state()
    threads = set(threading.enumerate())
    yield
    changes = [
        f"{what} {_difference(before[what], after)}"
        for what, after in _state().items()
        if before[what] is not None and before[what] != after  # None: torch was not imported yet
    ]
    _restore(before)
    if left := _threads_left(threads):
        changes.append(f"threads are left: {', '.join(sorted(left))}")
    assert not changes, "the test changed its process: " + "; ".join(changes)


def _state() -> dict[str, Any]:
    state: dict[str, Any] = {
        "os.environ": {name: value for name, value in os.environ.items() if name not in IGNORED_VARIABLES},
        "working directory": str(Path.cwd()),
        "signal handlers": {number.name: signal.getsignal(number) for number in SIGNALS},
        "umask": _umask(),
    }
    torch = sys.modules.get("torch")
    state["torch"] = (
        {
            "threads": torch.get_num_threads(),
            "grad": torch.is_grad_enabled(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "dtype": torch.get_default_dtype(),
            "float32 matmul": torch.get_float32_matmul_precision(),
        }
        if torch is not None and hasattr(torch, "get_float32_matmul_precision")
        else None
    )
    return state


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _difference(before: Any, after: Any) -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
        return ", ".join(f"{key}: {before.get(key)!r} -> {after.get(key)!r}" for key in keys)
    return f"{before!r} -> {after!r}"


def _restore(before: dict[str, Any]) -> None:
    """What one test has changed is not the fault of the next."""
    for name in set(os.environ) - set(before["os.environ"]) - IGNORED_VARIABLES:
        del os.environ[name]
    os.environ.update(before["os.environ"])
    os.chdir(before["working directory"])
    if threading.current_thread() is threading.main_thread():
        for name, handler in before["signal handlers"].items():
            if handler is not None:
                signal.signal(signal.Signals[name], handler)
    if before["torch"]:
        torch = sys.modules["torch"]
        torch.set_num_threads(before["torch"]["threads"])
        torch.use_deterministic_algorithms(before["torch"]["deterministic"])


def _threads_left(before: set[threading.Thread]) -> list[str]:
    """Names of new threads that are still alive after a while."""
    end = time.monotonic() + GRACE_S
    while True:
        left = [
            thread.name
            for thread in threading.enumerate()
            if thread not in before | _shared_threads
            and thread.is_alive()
            and not thread.name.startswith(LIBRARY_THREADS)
        ]
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.02)
