"""The network: torchvision's bodies, the recipe's head, three layer groups, and which of them learn."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torchvision import models
from torchvision.ops import StochasticDepth

from pcam_model.core.errors import ConfigError
from pcam_model.core.rng import BatchSlice, seeded
from pcam_model.core.schema import Config
from pcam_model.training import weights
from pcam_model.training.depthwise import spare_bfloat16

Name = Literal[
    "resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2",
    "densenet121", "densenet169", "efficientnet_b0", "convnext_tiny",
]  # fmt: skip
BATCHNORMS = (nn.modules.batchnorm._BatchNorm,)  # what all of them are, synchronised or not
MOMENTUM = 0.1  # of BatchNorm's running statistics, PyTorch's own
INITIAL, DROPOUT = 3, 4  # what the randomness of a place is for


class ModelConfig(Config):
    """Which network, from which weights, looking at patches of which size."""

    arch: Name = "resnet50"
    """The body, by torchvision's name."""
    weights: str = "imagenet"
    """The body's first weights: `imagenet` (torchvision's own), `none`, or a file (.pth, .safetensors)."""
    image_size: int = Field(224, ge=32, le=1024)
    """The side of the images that the network sees, in pixels; patches are resampled to it."""


@dataclass(frozen=True)
class Body:
    """How torchvision's network becomes a body: where it is cut in two, and how many channels leave it."""

    second: str
    channels: int


BODIES: dict[str, Body] = {
    "resnet18": Body("layer3", 512),
    "resnet34": Body("layer3", 512),
    "resnet50": Body("layer3", 2048),
    "resnet101": Body("layer3", 2048),
    "mobilenet_v2": Body("features.7", 1280),
    "densenet121": Body("features.denseblock3", 1024),
    "densenet169": Body("features.denseblock3", 1664),
    "efficientnet_b0": Body("features.4", 1280),
    "convnext_tiny": Body("features.4", 768),
}


class ConcatPool(nn.Module):
    """Global maximum beside global average: (B, C, H, W) -> (B, 2 C)."""

    def forward(self, features: Tensor) -> Tensor:
        """Both poolings over height and width."""
        return torch.cat([features.amax((2, 3)), features.mean((2, 3))], 1)


class Dropout(nn.Module):
    """Dropout (or, with one column, a whole branch dropped) whose choices are made beforehand, for a whole batch.

    Where nobody made them, they come from torch's own random state, as PyTorch's do.
    """

    def __init__(self, p: float, columns: int):
        super().__init__()
        self.p, self.columns = p, columns
        self.kept: Tensor | None = None

    def draw(self, share: BatchSlice, draw: torch.Generator) -> None:
        """Choose for these rows; the next forward pass sees as many."""
        self.kept = share.of(torch.rand(share.whole, self.columns, generator=draw, device=draw.device) >= self.p)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, ...) with `p` of the columns at zero and the others raised to keep the mean; itself in evaluation."""
        if not self.training:
            return features
        kept = self.kept
        if kept is None:
            kept = torch.rand(len(features), self.columns, device=features.device) >= self.p
        scaled = kept.to(features.dtype) / (1 - self.p)
        return features * scaled.view(len(features), -1, *[1] * (features.ndim - 2))


class PatchNetwork(nn.Module):
    """A body and the recipe's head: normalised images float (B, 3, S, S) -> logits (B, 2), class 1 = tumour."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name
        self.body = spare_bfloat16(_body(name))
        self.head = _head(2 * BODIES[name].channels)
        self.body_learns = True
        self.parts = 1
        """How many parts of a batch are computed one after the other, for want of memory: see `in_parts`."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits; a body that does not learn at all is not differentiated through."""
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.body_learns):
            parts = images.chunk(1 if self.body_learns or not self.training else self.parts)
            features = self.body(images) if len(parts) == 1 else torch.cat([self.body(part) for part in parts])
        logits: Tensor = self.head(features)
        return logits

    def set_microbatches(self, parts: int) -> None:
        """A batch comes in so many parts, and BatchNorm's running statistics still move as far as in a whole one.

        Through a body that does not learn the parts go by themselves, and the head sees the whole batch.
        """
        self.parts = parts
        for layer in self.modules():
            if isinstance(layer, BATCHNORMS) and self.body_learns:
                layer.momentum = 1 - (1 - MOMENTUM) ** (1 / parts)

    def set_dropout_rng(self, share: BatchSlice, draw: torch.Generator) -> None:
        """Choose what dropout drops in the next forward pass, on these rows of a batch."""
        for module in self.modules():
            if isinstance(module, Dropout):
                module.draw(share, draw)

    def layer_groups(self) -> list[list[nn.Module]]:
        """The recipe's three groups, from input to output: [early body, late body, head], as leaf modules."""
        start = f"{BODIES[self.name].second}."
        leaves = [(name, module) for name, module in self.body.named_modules() if _owns_parameters(module)]
        cut = next(i for i, (name, _) in enumerate(leaves) if f"{name}.".startswith(start))
        early, late = leaves[:cut], leaves[cut:]
        return [[m for _, m in early], [m for _, m in late], [m for m in self.head if _owns_parameters(m)]]

    def freeze(self, batchnorm: Literal["train", "fixed"] = "train") -> None:
        """Only the head learns; with `train` the body's BatchNorm layers go on learning too, as fastai has it."""
        for module in self.body.modules():
            learns = batchnorm == "train" and isinstance(module, BATCHNORMS)
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(learns)
        self.body_learns = any(p.requires_grad for p in self.body.parameters())

    def unfreeze(self) -> None:
        """Everything learns."""
        self.requires_grad_(True)
        self.body_learns = True

    def train(self, mode: bool = True) -> "PatchNetwork":
        """As usual, but a body that is fixed keeps its running statistics too."""
        super().train(mode)
        self.body.train(mode and self.body_learns)
        return self


def build_network(config: ModelConfig, seed: int, say: Callable[[str], None] | None = None) -> PatchNetwork:
    """A network with the config's first weights; the head (and a body from `none`) are drawn from the seed.

    Raises:
        WeightsError: the weights cannot be had or fit nothing.
    """
    say = say or print  # looked up now: who runs this may have replaced `print`
    with seeded(seed, INITIAL):
        network = PatchNetwork(config.arch)
    if config.weights == "imagenet":
        weights.into_body(network.body, weights.imagenet(config.arch), config.arch, say)
    elif config.weights == "none":
        say(f"{config.arch} starts from random weights (model.weights=none)")
    else:
        weights.into_body(network.body, weights.from_file(Path(config.weights)), config.arch, say)
    return network.to(memory_format=torch.channels_last)


def _body(name: str) -> nn.Module:
    if name not in BODIES:
        raise ConfigError(f"model.arch: there is no network {name!r}; choose one of {', '.join(BODIES)}")
    whole = models.get_model(name, weights=None)
    for module in list(whole.modules()):
        for child, depth in module.named_children():
            if isinstance(depth, StochasticDepth):
                setattr(module, child, Dropout(depth.p, columns=1))
    if hasattr(whole, "features"):
        parts = [("features", whole.features)]
        if name.startswith("densenet"):
            parts.append(("relu", nn.ReLU(inplace=True)))  # torchvision applies it in `forward`
        return nn.Sequential(OrderedDict(parts))
    return nn.Sequential(OrderedDict(part for part in whole.named_children() if part[0] not in ("avgpool", "fc")))


def _head(channels: int) -> nn.Sequential:
    head = nn.Sequential(
        ConcatPool(),
        nn.BatchNorm1d(channels),
        Dropout(0.25, channels),
        nn.Linear(channels, 512, bias=False),
        nn.ReLU(inplace=True),
        nn.BatchNorm1d(512),
        Dropout(0.5, 512),
        nn.Linear(512, 2, bias=False),
    )
    for module in head:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    return head


def _owns_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))
