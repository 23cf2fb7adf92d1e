"""The GPU, its driver, and the memory around them."""

import shutil
import subprocess
from pathlib import Path

import torch

from pcam_model.check.findings import Finding
from pcam_model.config import TrainConfig

# The oldest driver that serves a CUDA major version (NVIDIA's minor version compatibility).
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
GB = 1e9
GPU_NEEDS, HOST_NEEDS, HOST_LIKES = 6 * GB, 1.5 * GB, 6 * GB
NODE, KERNEL = Path("/dev/nvidiactl"), Path("/proc/driver/nvidia/version")


def device() -> Finding:
    """Whether torch reaches the GPU that is here, and whether driver and CUDA belong together."""
    what, driver, cuda = "GPU", installed_driver(), torch.version.cuda
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        found = f"{torch.cuda.get_device_name()}, {free / GB:.0f} of {total / GB:.0f} GB free, driver {driver}"
        if free >= GPU_NEEDS:
            return Finding(what=what, found=f"{found}, CUDA {cuda}", expected="a GPU that torch reaches")
        remedy = "stop what else runs on it (nvidia-smi shows it), or take a smaller model.image_size or batch"
        return Finding(what=what, found=found, expected=f"{GPU_NEEDS / GB:.0f} GB free", remedy=remedy, level="warning")
    if not driver:
        remedy = "nothing for a small config; the recipe wants a GPU: it would take days on a processor"
        found = f"none, {torch.get_num_threads()} CPU threads"
        return Finding(what=what, found=found, expected="an NVIDIA GPU", remedy=remedy, level="warning")
    if cuda is None:
        return Finding(what=what, found=f"driver {driver}, but torch {torch.__version__} is built without CUDA",
                       expected="a CUDA build of torch", level="failed",
                       remedy="install torch from PyPI, without TORCH_INDEX")  # fmt: skip
    return _unreachable(driver, cuda)


def _unreachable(driver: str, cuda: str) -> Finding:
    oldest = OLDEST_DRIVER.get(int(cuda.split(".")[0]), 0)
    old = driver.split(".")[0].isdigit() and int(driver.split(".")[0]) < oldest
    return Finding(
        what="GPU",
        found=f"driver {driver}, torch for CUDA {cuda}, and torch does not reach the GPU",
        expected=f"a driver from {oldest} on" if old else "a GPU that torch reaches",
        remedy=f"update the NVIDIA driver to {oldest} or newer, or take a torch for an older CUDA" if old else
        "run `nvidia-smi`: where it fails, mend the driver; in a container, ask for the GPU (docker run --gpus all)",
        level="failed",
    )  # fmt: skip


def installed_driver() -> str:
    """The version of NVIDIA's driver; "unknown" where a GPU's device is here without it, empty where neither is."""
    if program := shutil.which("nvidia-smi"):
        command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            said = subprocess.run(command, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return "unknown"
        if said.returncode == 0 and said.stdout.strip():
            return said.stdout.split()[0]
        return "unknown" if NODE.exists() else ""
    if KERNEL.is_file():
        words = KERNEL.read_text().split("Kernel Module")
        return words[1].split()[0] if len(words) > 1 and words[1].split() else "unknown"
    return "unknown" if NODE.exists() else ""


def memory(config: TrainConfig) -> Finding:
    """What this process may still use, its container's limit included."""
    free = available_memory()
    expected = f"{HOST_LIKES / GB:.0f} GB, at the very least {HOST_NEEDS / GB:.1f} GB"
    level, remedy = "fine", ""
    if free < HOST_LIKES and not (config.source.kind == "sample" and free >= 2 * HOST_NEEDS):
        level, remedy = "warning", "close other programs, or raise the container's memory limit"
    if free < HOST_NEEDS:
        level = "failed"
    return Finding.model_validate(
        {"what": "memory", "found": f"{free / GB:.1f} GB free", "expected": expected, "remedy": remedy, "level": level}
    )


def available_memory() -> float:
    """Bytes: the machine's, and not more than a cgroup leaves; infinite where nobody says."""
    free = float("inf")
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            free = float(line.split()[1]) * 1024
    limit, used = _lines(Path("/sys/fs/cgroup/memory.max")), _lines(Path("/sys/fs/cgroup/memory.current"))
    if limit and used and limit[0].isdigit():
        free = min(free, float(limit[0]) - float(used[0]))
    return free


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
