"""Memory of this machine, or of the container that the process is in."""

import errno
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
OUT_OF_MEMORY_TEXTS = (
    "out of memory", "can't allocate memory", "cannot allocate memory", "failed to map segment", "bad_alloc",
    "can't start new thread",
)  # fmt: skip
"""What libraries say, in lower case, whose error has no type of its own for it."""


def available_memory() -> float:
    """Bytes that can still be taken: the machine's available memory, and not more than the cgroup's limit leaves."""
    free = float(psutil.virtual_memory().available)
    limit, used = _read(CGROUP / "memory.max"), _read(CGROUP / "memory.current")
    return min(free, limit - used) if limit is not None and used is not None else free


def _read(path: Path) -> float | None:
    """A cgroup's figure; None where there is none, or no limit."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return float(text) if text.isdigit() else None


def out_of_memory_sentence(error: BaseException) -> str:
    """What a user is told of an error that means that memory ran out, with its remedy; empty for any other error."""
    if not _is_out_of_memory(error):
        return ""
    detail = str(error).strip().splitlines()[:1] or [type(error).__name__]
    return (
        f"memory ran out ({detail[0][:200]}); end other programs, raise this process's limit (ulimit -v, the "
        "container's), or take a smaller batch_size; what was saved is kept, and the same command resumes a run"
    )


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError | ImportError):
        return any(text in str(error).lower() for text in OUT_OF_MEMORY_TEXTS)
    return isinstance(error, MemoryError)
