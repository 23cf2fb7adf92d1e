"""A stand-in for ImageNet weights in torch's cache."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pcam_model.core.files import sha256
from pcam_model.training import weights


def cache_imagenet(monkeypatch: pytest.MonkeyPatch, state: dict[str, Tensor]) -> Path:
    """Put a state dict into torch's cache, under a name with its digest as torchvision's have it."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / "new.pth")
    cached = (folder / "new.pth").rename(folder / f"made-{sha256(folder / 'new.pth')[:8]}.pth")
    monkeypatch.setattr(weights, "imagenet_file", lambda arch: (f"https://localhost/{cached.name}", cached))
    return cached
