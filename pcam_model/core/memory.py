"""Memory of this machine, or of the container that the process is in."""

from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


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
