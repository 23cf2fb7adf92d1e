"""Checks of the GPU, its driver, and the memory."""

import shutil
import subprocess
from pathlib import Path

import torch

from pcam_model.check.findings import Finding
from pcam_model.config import TrainConfig
from pcam_model.core.memory import available_memory

GB = 1e9
MIN_GPU_BYTES = 6 * GB
MIN_HOST_BYTES, GOOD_HOST_BYTES = 1.5 * GB, 6 * GB
# The oldest driver that serves a CUDA major version (NVIDIA's minor version compatibility).
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
DEVICE_FILE, DRIVER_VERSION_FILE = Path("/dev/nvidiactl"), Path("/proc/driver/nvidia/version")
NVIDIA_SMI_TIMEOUT_S = 20
UNKNOWN_VERSION = "unknown"


def check_gpu() -> Finding:
    """Whether torch can use the GPU, and whether driver and CUDA belong together."""
    driver, cuda = installed_driver(), torch.version.cuda
    if torch.cuda.is_available():
        return _usable_gpu(driver, cuda)
    if not driver:
        return Finding(
            what="GPU",
            found=f"none; CPU threads: {torch.get_num_threads()}",
            expected="an NVIDIA GPU",
            remedy="a small configuration needs none; the recipe takes days on a CPU",
            level="warning",
        )
    if cuda is None:
        return Finding(
            what="GPU",
            found=f"driver {driver}, but torch {torch.__version__} is built without CUDA",
            expected="a CUDA build of torch",
            remedy="install torch from PyPI, without TORCH_INDEX",
            level="failed",
        )
    return _unusable_gpu(driver, cuda)


def _usable_gpu(driver: str, cuda: str | None) -> Finding:
    free, total = torch.cuda.mem_get_info()
    found = f"{torch.cuda.get_device_name()}, {free / GB:.0f} of {total / GB:.0f} GB free, driver {driver}"
    if free >= MIN_GPU_BYTES:
        return Finding(what="GPU", found=f"{found}, CUDA {cuda}", expected="a GPU that torch can use")
    return Finding(
        what="GPU",
        found=found,
        expected=f"{MIN_GPU_BYTES / GB:.0f} GB free",
        remedy="end the other programs on it (nvidia-smi lists them), or set a smaller model.image_size or batch_size",
        level="warning",
    )


def _unusable_gpu(driver: str, cuda: str) -> Finding:
    oldest = OLDEST_DRIVER.get(int(cuda.split(".")[0]), 0)
    major = driver.split(".")[0]
    if major.isdigit() and int(major) < oldest:
        expected = f"a driver from {oldest} on"
        remedy = f"update the NVIDIA driver to {oldest} or newer, or install a torch for an older CUDA"
    else:
        expected = "a GPU that torch can use"
        remedy = (
            "run `nvidia-smi`: where it fails, repair the driver; in a container, ask for the GPU "
            "(docker run --gpus all)"
        )
    return Finding(
        what="GPU",
        found=f"driver {driver}, torch for CUDA {cuda}, and torch cannot use the GPU",
        expected=expected,
        remedy=remedy,
        level="failed",
    )


def installed_driver() -> str:
    """The version of NVIDIA's driver; "unknown" where only a GPU's device file exists, empty where neither does."""
    if program := shutil.which("nvidia-smi"):
        return _nvidia_smi_version(program)
    if DRIVER_VERSION_FILE.is_file():
        words = DRIVER_VERSION_FILE.read_text().partition("Kernel Module")[2].split()
        return words[0] if words else UNKNOWN_VERSION
    return _version_of_device_file()


def _nvidia_smi_version(program: str) -> str:
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return UNKNOWN_VERSION
    if result.returncode == 0 and result.stdout.strip():
        return result.stdout.split()[0]
    return _version_of_device_file()


def _version_of_device_file() -> str:
    return UNKNOWN_VERSION if DEVICE_FILE.exists() else ""


def check_memory(config: TrainConfig) -> Finding:
    """Whether enough memory is available, the limit of a container included."""
    free = available_memory()
    found = f"{free / GB:.1f} GB free"
    expected = f"{GOOD_HOST_BYTES / GB:.0f} GB, at the very least {MIN_HOST_BYTES / GB:.1f} GB"
    is_small_run = config.source.kind == "sample" and free >= 2 * MIN_HOST_BYTES
    if free >= GOOD_HOST_BYTES or is_small_run:
        return Finding(what="memory", found=found, expected=expected)
    return Finding(
        what="memory",
        found=found,
        expected=expected,
        remedy="close other programs, or raise the container's memory limit",
        level="failed" if free < MIN_HOST_BYTES else "warning",
    )
