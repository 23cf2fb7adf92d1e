"""Where training runs and in which numbers."""

import ctypes
import sys
from contextlib import AbstractContextManager, suppress
from functools import cache

import torch

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h


def best_device() -> torch.device:
    """The first GPU, else the processor."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    keep_memory()
    return torch.device("cpu")


@cache
def keep_memory() -> None:
    """Let the C library keep what it was given: activations are freed and asked for again at every step.

    Otherwise glibc hands each large block back to the kernel, which clears every page anew: half of the time of a
    forward pass of MobileNetV2 at 96 pixels went there.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):  # another C library than glibc has no such switch, and no such habit
        mallopt = ctypes.CDLL(None).mallopt
        for switch, value in ((MMAP_THRESHOLD, 32 << 20), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 256 << 20)):
            mallopt(switch, value)


def half_precision(device: torch.device) -> torch.dtype | None:
    """bfloat16 where the device computes in it, else None."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else None


def mixed(device: torch.device) -> AbstractContextManager[None]:
    """Forward passes inside run in bfloat16 where the device has it, else in float32."""
    kind = half_precision(device)
    return torch.autocast(device.type, dtype=kind or torch.bfloat16, enabled=kind is not None)


def describe(device: torch.device) -> str:
    """The device and its numbers, for people."""
    kind = "bfloat16" if half_precision(device) else "float32"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return f"{name}, {kind}"
