"""Device, precision and memory allocator of a training; `ComputeConfig`."""

import ctypes
import sys
from contextlib import AbstractContextManager, suppress
from functools import cache
from typing import Any, Literal

import torch
from pydantic import Field

from pcam_model.core.log import log
from pcam_model.core.schema import Config

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h

Precision = Literal["auto", "bf16", "fp16", "fp32"]
MIN_PATCHES_PER_GPU = 32  # with fewer, the exchange of gradients and BatchNorm's statistics takes longer than it saves
# What a GPU that is out of memory says beside torch.OutOfMemoryError: cuDNN finds no plan whose workspace fits.
OUT_OF_MEMORY_TEXTS = (
    "out of memory",
    "can't allocate memory",
    "unable to find an engine to execute this computation",
    "No valid execution plans built",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}


class ComputeConfig(Config):
    """Precision, processes and checkpoints of the training stages."""

    precision: Precision = "auto"
    """Of forward passes: bf16, fp16 (with a loss scale) or fp32; auto: bf16 where the device supports it, else fp16 on
    a GPU and fp32 on a CPU."""
    deterministic: bool = False
    """Use deterministic kernels only, on a GPU too, so that a resumed run ends bit-identical."""
    cuda_graph: bool = True
    """On a GPU replay each step's forward and backward pass as one CUDA graph, in place of hundreds of launches; not
    where the network is compiled, several processes share a batch, or memory is short."""
    compile: bool = False
    """Compile the network (torch.compile): a third faster on an H200, after a minute that is logged."""
    nproc_per_node: int = Field(0, ge=0, le=64)
    """Processes on this machine that share every batch; 0: one per GPU, as long as each has 32 patches of a batch; one
    on a CPU."""
    nnodes: int = Field(1, ge=1, le=64)
    """Machines that take part in the training stages; they share PCAM_CACHE."""
    rdzv_endpoint: str = "localhost:29400"
    """Rendezvous of several machines: host:port of the first."""
    checkpoint_seconds: float = Field(60, gt=0)
    """Seconds between checkpoints, which are written in the background; one is also written at the end of each epoch
    and on SIGTERM and SIGINT."""
    checkpoint_steps: int = Field(0, ge=0)
    """Steps between additional checkpoints; 0: none, by time alone."""
    checkpoint_epochs: int = Field(1, ge=0, le=1000)
    """Number of last epochs whose weights are kept, beside those of the best validation AUC, here and in the store;
    0: only the weights that a stage ends with."""


def best_device() -> torch.device:
    """The first GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@cache
def tune_malloc() -> None:
    """Have glibc keep freed memory; call it once before training or predicting on a CPU.

    Activations are freed and allocated again at every step. By default glibc returns each large block to the kernel,
    which clears every page anew: that was half of the time of a forward pass of MobileNetV2 at 96 pixels.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):  # other C libraries have neither this switch nor this habit
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((M_MMAP_THRESHOLD, 32 << 20), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 256 << 20)):
            mallopt(option, value)


def autocast_dtype(device: torch.device, precision: Precision = "auto") -> torch.dtype | None:
    """The dtype of forward passes under autocast; None: float32."""
    if precision != "auto":
        return DTYPES[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else None


def autocast(device: torch.device, precision: Precision = "auto") -> AbstractContextManager[None]:
    """`torch.autocast` in the device's and the configuration's dtype; does nothing for float32."""
    dtype = autocast_dtype(device, precision)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device, or the machine, is out of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY_TEXTS)


def release_memory(device: torch.device) -> None:
    """Give a GPU's memory that PyTorch keeps of freed tensors back to the driver, for cuDNN and cuBLAS to use."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def set_deterministic(enabled: bool) -> None:
    """Use deterministic kernels only, or the fastest.

    cuBLAS reads its own setting from the environment at its first use, so `import pcam_model` makes it.
    """
    torch.use_deterministic_algorithms(enabled)
    # Filling memory that is overwritten anyway would be a pass over it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not enabled


def set_float32_precision() -> None:
    """Compute float32 in IEEE's precision on a GPU too, not in TF32, which PyTorch's convolutions take by default."""
    torch.backends.cudnn.allow_tf32 = False  # by `fp32_precision` torch.onnx.export would find flags that disagree


def local_world_size(config: ComputeConfig, batch_size: int) -> int:
    """Number of training processes on this machine: as configured, else one per GPU while each has patches enough."""
    gpus = torch.cuda.device_count()
    if config.nproc_per_node:
        return config.nproc_per_node
    count = max(1, min(gpus, batch_size // config.nnodes // MIN_PATCHES_PER_GPU))
    if count < gpus:
        log.info(
            "%d of %d GPUs train: with a batch_size of %d more would have fewer than %d patches each, and would be "
            "slower; raise batch_size, or set compute.nproc_per_node",
            count, gpus, batch_size, MIN_PATCHES_PER_GPU,
        )  # fmt: skip
    return count


def compute_environment(device: torch.device, precision: Precision = "auto") -> dict[str, Any]:
    """Device, dtype and number of CPU threads: with others, results agree up to rounding only."""
    dtype = str(autocast_dtype(device, precision) or torch.float32).removeprefix("torch.")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {"device": name, "dtype": dtype, "threads": torch.get_num_threads()}


def describe_device(device: torch.device, precision: Precision = "auto") -> str:
    """Device and dtype in words, as in "2 CPU threads, float32"."""
    return describe_environment(compute_environment(device, precision))


def describe_environment(environment: dict[str, Any]) -> str:
    """A `compute_environment` in words; CPU threads are named where they compute."""
    count = environment["threads"]
    threads = f"{count} CPU thread{'s' if count != 1 else ''}"
    return f"{threads if environment['device'] == 'CPU' else environment['device']}, {environment['dtype']}"
