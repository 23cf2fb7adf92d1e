"""The networks: bodies of torchvision or timm with the recipe's head, in three layer groups."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torchvision import models
from torchvision.ops import StochasticDepth

from pcam_model.core.errors import ConfigError
from pcam_model.core.log import log
from pcam_model.core.rng import seeded
from pcam_model.core.schema import Config
from pcam_model.training.depthwise import convert_strided_depthwise
from pcam_model.training.layers import BATCHNORMS, ConcatPool, Dropout, keep_random
from pcam_model.training.timm_body import TIMM_PATTERN, TimmBody, is_timm
from pcam_model.training.timm_weights import find_timm_weights, load_timm_weights
from pcam_model.training.weights import (
    load_body_weights,
    load_imagenet,
    load_weights_file,
    weights_digest,
    weights_path,
)

ArchName = Literal[
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "mobilenet_v2",
    "densenet121",
    "densenet169",
    "efficientnet_b0",
    "convnext_tiny",
]
TimmArch = Annotated[str, Field(pattern=TIMM_PATTERN, title="timm:NAME")]
INITIAL_WEIGHTS_RNG, DROPOUT_RNG = 3, 4  # purposes of random numbers, in RNG keys


class ModelConfig(Config):
    """Network, initial weights and image size."""

    arch: ArchName | TimmArch = "resnet50"
    """The body, by torchvision's name, or one of timm's, as in `timm:tf_efficientnet_lite0`."""
    weights: str = "imagenet"
    """The body's initial weights: `imagenet` (torchvision's or timm's own), `none`, or a file of any tool (.pth,
    .safetensors)."""
    image_size: int = Field(224, ge=32, le=1024)
    """Height and width of the network's input, in pixels; patches are resampled to it."""


@dataclass(frozen=True)
class BodySpec:
    """The module of a body that begins its second layer group, and its output channels."""

    second_group: str
    channels: int


BODIES: dict[str, BodySpec] = {
    "resnet18": BodySpec("layer3", 512),
    "resnet34": BodySpec("layer3", 512),
    "resnet50": BodySpec("layer3", 2048),
    "resnet101": BodySpec("layer3", 2048),
    "mobilenet_v2": BodySpec("features.7", 1280),
    "densenet121": BodySpec("features.denseblock3", 1024),
    "densenet169": BodySpec("features.denseblock3", 1664),
    "efficientnet_b0": BodySpec("features.4", 1280),
    "convnext_tiny": BodySpec("features.4", 768),
}


class PatchNetwork(nn.Module):
    """A body and the recipe's head: normalised images float (B, 3, S, S) -> logits (B, 2), class 1 = tumour.

    Args:
        arch: torchvision's name of the body, or `timm:NAME`.
        image_size: in pixels, which some bodies of timm are made for.
        load: gives the body its initial weights.

    Raises:
        ConfigError: there is no such body, or it does not take images of this size.
        MissingPackageError: it is timm's, and timm is not installed.
    """

    def __init__(self, arch: str, image_size: int = 224, load: Callable[[nn.Module], None] = keep_random):
        super().__init__()
        self.arch = arch
        body, self.spec = _make_timm(arch, image_size, load) if is_timm(arch) else _make_body(arch, load)
        self.body = convert_strided_depthwise(body)
        self.head = _make_head(2 * self.spec.channels)
        self.dropouts = [module for module in self.modules() if isinstance(module, Dropout)]
        """All dropout layers, in the order in which their masks are drawn."""
        self.body_trainable = True
        self.microbatches = 1
        """Number of microbatches that a batch is computed in; see `set_microbatches`."""
        self.momenta = {name: layer.momentum for name, layer in self.named_modules() if isinstance(layer, BATCHNORMS)}
        """Of BatchNorm's running statistics, a batch."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits; a body without trainable parameters is computed without autograd."""
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.body_trainable):
            chunks = images.chunk(1 if self.body_trainable or not self.training else self.microbatches)
            features = self.body(images) if len(chunks) == 1 else torch.cat([self.body(chunk) for chunk in chunks])
        logits: Tensor = self.head(features)
        return logits

    def set_microbatches(self, count: int) -> None:
        """Compute a batch in `count` microbatches; BatchNorm's running statistics move as far per batch as before.

        A body without trainable parameters computes them inside `forward`, and the head sees the whole batch.
        """
        self.microbatches = count
        for name, layer in self.named_modules():
            if isinstance(layer, BATCHNORMS) and self.body_trainable:
                momentum = self.momenta[name]
                layer.momentum = momentum and 1 - (1 - momentum) ** (1 / count)

    def check_image_sizes(self, image_sizes: Iterable[int]) -> None:
        """Raise ConfigError where the body does not take images of one of these sizes."""
        for image_size in image_sizes:
            if isinstance(self.body, TimmBody):
                self.body.check_image_size(image_size)

    def layer_groups(self) -> list[list[nn.Module]]:
        """The recipe's three groups, from input to output: [early body, late body, head], as leaf modules."""
        start = f"{self.spec.second_group}."
        leaves = [(name, module) for name, module in self.body.named_modules() if _owns_parameters(module)]
        cut = next(i for i, (name, _) in enumerate(leaves) if f"{name}.".startswith(start))
        early, late = leaves[:cut], leaves[cut:]
        return [[m for _, m in early], [m for _, m in late], [m for m in self.head if _owns_parameters(m)]]

    def freeze(self, batchnorm: Literal["train", "fixed"] = "train") -> None:
        """Leave only the head trainable; with `train` also the body's BatchNorm layers, as in fastai."""
        for module in self.body.modules():
            trainable = batchnorm == "train" and isinstance(module, BATCHNORMS)
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(trainable)
        self.body_trainable = any(p.requires_grad for p in self.body.parameters())

    def unfreeze(self) -> None:
        """Make all parameters trainable."""
        self.requires_grad_(True)
        self.body_trainable = True

    def train(self, mode: bool = True) -> "PatchNetwork":
        """Set training mode; a body without trainable parameters stays in evaluation mode, with its statistics."""
        super().train(mode)
        self.body.train(mode and self.body_trainable)
        return self


def build_network(config: ModelConfig, seed: int, *, quiet: bool = False) -> PatchNetwork:
    """A network with the configuration's initial weights; all others are drawn from the seed.

    Args:
        config: network and weights.
        seed: of the head's weights, and of the body's with `none`.
        quiet: do not log which weights were loaded.

    Raises:
        WeightsError: the weights cannot be read or downloaded, or do not fit.
    """

    def load(body: nn.Module) -> None:
        summary = f"{config.arch} starts from random weights (model.weights=none)"
        if config.weights != "none":
            with torch.random.fork_rng(devices=[]):  # the head's weights are the same whatever the body starts from
                summary = load_body_weights(body, _read_weights(config), config.arch)
        if not quiet:
            log.info(summary)

    with seeded(seed, INITIAL_WEIGHTS_RNG):
        network = PatchNetwork(config.arch, config.image_size, load)
    return network.to(memory_format=torch.channels_last)


def describe_weights(config: ModelConfig) -> str:
    """The initial weights of a network, for people, with their licence where it is known."""
    if config.weights != "imagenet":
        return "random" if config.weights == "none" else weights_path(config.weights).name
    return find_timm_weights(config.arch).summary if is_timm(config.arch) else "ImageNet, by torchvision"


def weights_identity(config: ModelConfig) -> str:
    """What identifies the initial weights: `imagenet`, `none`, timm's repository, or the SHA-256 of the file."""
    if is_timm(config.arch) and config.weights == "imagenet":
        return find_timm_weights(config.arch).repository
    return weights_digest(config.weights)


def _read_weights(config: ModelConfig) -> object:
    if config.weights != "imagenet":
        return load_weights_file(weights_path(config.weights))
    return load_timm_weights(config.arch) if is_timm(config.arch) else load_imagenet(config.arch)


def _make_timm(arch: str, image_size: int, load: Callable[[nn.Module], None]) -> tuple[nn.Module, BodySpec]:
    body = TimmBody(arch, image_size, load)
    return body, BodySpec(body.second_group, body.channels)


def _make_body(arch: str, load: Callable[[nn.Module], None]) -> tuple[nn.Module, BodySpec]:
    if arch not in BODIES:
        raise ConfigError(f"model.arch: there is no network {arch!r}; choose one of {', '.join(BODIES)}")
    body = _torchvision_body(arch)
    load(body)
    return body, BODIES[arch]


def _torchvision_body(arch: str) -> nn.Module:
    network = models.get_model(arch, weights=None)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, StochasticDepth):
                setattr(module, name, Dropout(child.p, columns=1))
    if hasattr(network, "features"):
        layers = [("features", network.features)]
        if arch.startswith("densenet"):
            layers.append(("relu", nn.ReLU(inplace=True)))  # torchvision applies it in `forward`
        return nn.Sequential(OrderedDict(layers))
    return nn.Sequential(OrderedDict(child for child in network.named_children() if child[0] not in ("avgpool", "fc")))


def _make_head(channels: int) -> nn.Sequential:
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
