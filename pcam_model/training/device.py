"""Where training runs and in which numbers."""

from contextlib import AbstractContextManager

import torch


def best_device() -> torch.device:
    """The first GPU, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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
