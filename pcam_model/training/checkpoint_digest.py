"""Digest of a checkpoint's content: what is loaded is what was written."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

DIGEST_KEY = "sha256"  # of the metadata


def checkpoint_digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """SHA-256 over the metadata, and over name, dtype, shape and bytes of each tensor; in hexadecimal.

    Args:
        tensors: on the host, contiguous.
        metadata: JSON, without the digest.
    """
    total = hashlib.sha256(f"{json.dumps(metadata)}\0".encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        total.update(tensor.detach().reshape(-1).view(torch.uint8).numpy().data)  # no copy is made, no GIL is held
    return total.hexdigest()
