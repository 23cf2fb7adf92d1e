"""Where training runs and in which numbers."""

import ctypes
import os
import sys
from contextlib import AbstractContextManager, suppress
from functools import cache
from typing import Literal

import torch
from pydantic import Field

from pcam_model.core.schema import Config

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h

Precision = Literal["auto", "bf16", "fp16", "fp32"]
KINDS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}


class ComputeConfig(Config):
    """How training computes, and how often it saves itself."""

    precision: Precision = "auto"
    """Of forward passes: bf16, fp16 (with a loss scale), fp32; auto: bf16 where the device has it, a GPU else fp16."""
    deterministic: bool = False
    """Only kernels that give the same result each time, on a GPU too, so that a resumed run ends equal to the bit."""
    compile: bool = False
    """Compile the network first (torch.compile), which may pay on a GPU; the warm-up is timed, counted and printed."""
    nproc_per_node: int = Field(0, ge=0, le=64)
    """Processes that share every batch on this machine; 0: one for each GPU, one on a processor."""
    nnodes: int = Field(1, ge=1, le=64)
    """How many machines take part in the training stages; they share PCAM_CACHE."""
    rdzv_endpoint: str = "localhost:29400"
    """Where they meet: host:port of the first."""
    checkpoint_seconds: float = Field(60, gt=0)
    """How often the whole state is saved, beside training; it is at the end of each epoch and on a signal too."""
    checkpoint_steps: int = Field(0, ge=0)
    """Save it every so many steps too; 0: by time alone."""
    checkpoint_epochs: int = Field(1, ge=0, le=1000)
    """The weights of the last so many epochs, and of the best by validation AUC, are kept, here and in the store; 0: of
    none but what a stage leaves."""


def best_device() -> torch.device:
    """The first GPU, else the processor."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    tune_malloc()
    return torch.device("cpu")


@cache
def tune_malloc() -> None:
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


def half_precision(device: torch.device, asked: Precision = "auto") -> torch.dtype | None:
    """The half precision to compute in, None for float32: what is asked, else what the device is best at."""
    if asked != "auto":
        return KINDS[asked]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else None


def mixed(device: torch.device, asked: Precision = "auto") -> AbstractContextManager[None]:
    """Forward passes inside run in half precision where that is asked, or what the device is best at."""
    kind = half_precision(device, asked)
    return torch.autocast(device.type, dtype=kind or torch.bfloat16, enabled=kind is not None)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device, or the machine, has no more memory to give."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def make_deterministic(asked: bool) -> None:
    """Only kernels that give the same each time, where the config asks for it; else the fastest.

    cuBLAS reads its part from the environment when it is first used, so this stands before anything is multiplied.
    """
    if asked:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(asked)
    torch.backends.cudnn.benchmark = not asked


def local_world_size(config: ComputeConfig) -> int:
    """How many processes train on this machine."""
    return config.nproc_per_node or max(1, torch.cuda.device_count())


def describe(device: torch.device, asked: Precision = "auto") -> str:
    """The device and its numbers, for people."""
    kind = str(half_precision(device, asked) or torch.float32).removeprefix("torch.")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return f"{name}, {kind}"
