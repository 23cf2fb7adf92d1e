"""timm's networks as bodies: a network whose features are a map, behind ImageNet-normalised images."""

import difflib
import math
import os
import re
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from pcam_model.core.errors import ConfigError, first_line, require_package
from pcam_model.data.patch_loader import IMAGENET_MEAN, IMAGENET_STD
from pcam_model.training.layers import BATCHNORMS, Dropout, keep_random

TIMM = "timm:"
TIMM_PATTERN = r"^timm:[a-z0-9_]+(\.[a-z0-9_]+)?$"
EARLY_REDUCTION = 8
"""Pixels of the image to one of the features, in the last stage of the early layer group."""

ToMap = Callable[[Tensor], Tensor]
"""Features as (B, C, H, W)."""


def is_timm(arch: str) -> bool:
    """Whether a network is one of timm's, by its name."""
    return re.match(TIMM_PATTERN, arch) is not None


def import_timm(arch: str) -> ModuleType:
    """The module timm; the telemetry of huggingface_hub is off unless the user has set it.

    Raises:
        MissingPackageError: it is not installed.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    with require_package(f"the network {arch}", extra="timm"):
        import timm
    return timm  # type: ignore[no-any-return, unused-ignore]


def timm_name(arch: str) -> str:
    """The name in timm of a network, with its tag of pretrained weights where one is given.

    Raises:
        ConfigError: the installed timm has no such network, or no such tag.
    """
    timm, name = import_timm(arch), arch.removeprefix(TIMM)
    network, _, tag = name.partition(".")
    networks = timm.list_models()
    if network not in networks:
        near = difflib.get_close_matches(network, networks, 1, 0.5)
        hint = f"did you mean {TIMM}{near[0]}?" if near else "see timm.list_models()"
        raise ConfigError(f"timm {timm.__version__} has no network {network!r}; {hint}")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{network}.*")]
    if tag and tag not in tags:
        raise ConfigError(
            f"timm {timm.__version__} has no weights {tag!r} of {network}; expected {', '.join(tags) or 'no tag'}"
        )
    return name


class TimmBody(nn.Module):
    """A network of timm without its head: normalised images float (B, 3, S, S) -> features (B, C, H, W).

    What timm does after `forward_features` is left out. Layers draw no random numbers of their own.

    Args:
        arch: `timm:NAME` or `timm:NAME.TAG`; mean and deviation of its images are those of the tag.
        image_size: in pixels; position embeddings are resampled to it.
        load: gives timm's network its initial weights, at the size that it was made for.

    Raises:
        ConfigError: there is no such network, or it cannot be a body at this size.
        MissingPackageError: timm is not installed.
    """

    scale: Tensor | None
    shift: Tensor | None

    def __init__(self, arch: str, image_size: int, load: Callable[[nn.Module], None] = keep_random):
        super().__init__()
        self.arch = arch
        self.net = _create(arch, image_size)
        load(self.net)
        self._set_normalisation()
        _replace_dropouts(self.net)
        try:
            if hasattr(self.net, "set_input_size"):
                with warnings.catch_warnings(action="ignore"):  # torch's, of how timm resamples
                    self.net.set_input_size(img_size=(image_size, image_size))
            _remove_unused(self.net, _examine(self, image_size))
            self.channels = self.check_image_size(image_size)
        except ConfigError:
            raise
        except Exception as error:  # what a network says of a size is an AssertionError, a RuntimeError, an IndexError
            raise ConfigError(_size_message(arch, image_size, error)) from error

    def forward(self, images: Tensor) -> Tensor:
        """The features of `forward_features`, as a map."""
        if self.scale is not None and self.shift is not None:
            images = images * self.scale + self.shift
        return self.as_map(self.net.forward_features(images))

    def as_map(self, features: Tensor) -> Tensor:
        """Features of timm's network as (B, C, H, W): tokens without class and register tokens, channels second."""
        if features.ndim == 3:
            tokens = features[:, getattr(self.net, "num_prefix_tokens", 0) :].transpose(1, 2)
            side = math.isqrt(int(tokens.shape[2]))
            return tokens.reshape(*tokens.shape[:2], side, side)
        return features.permute(0, 3, 1, 2) if getattr(self.net, "output_fmt", "") == "NHWC" else features

    def feature_modules(self) -> dict[nn.Module, ToMap]:
        """The stages, and the body itself, each with what turns its output into a map."""
        stages = [self.net.get_submodule(name) for name, _ in _stages(self.net)]
        return {**dict.fromkeys(stages, self.as_map), self: lambda features: features}

    def check_image_size(self, image_size: int) -> int:
        """The number of output channels. Raises ConfigError where the network does not take images of this size."""
        training = self.training
        try:
            with torch.no_grad():
                features = self.eval()(torch.zeros(2, 3, image_size, image_size))
        except Exception as error:
            raise ConfigError(_size_message(self.arch, image_size, error)) from error
        finally:
            self.train(training)
        if features.ndim != 4 or features.shape[1] != self.net.num_features or features.shape[2] != features.shape[3]:
            raise ConfigError(
                f"model.arch={self.arch}: its features are {tuple(features.shape)}, expected a square map of "
                f"{self.net.num_features} channels; choose another network"
            )
        return int(features.shape[1])

    @property
    def second_group(self) -> str:
        """The name of the first module of the late layer group that has parameters."""
        modules = [name for name, _ in self.net.named_modules()]
        end = max(i for i, name in enumerate(modules) if f"{name}.".startswith(f"{_last_early_stage(self.net)}."))
        owners = [name for name, module in self.net.named_modules() if any(True for _ in module.parameters(False))]
        return next(f"net.{name}" for name in owners if modules.index(name) > end)

    def _set_normalisation(self) -> None:
        """Set the affine map from ImageNet's mean and deviation to the network's own, where they differ."""
        config = self.net.pretrained_cfg
        mean, std = config.get("mean", IMAGENET_MEAN), config.get("std", IMAGENET_STD)
        differs = (tuple(mean), tuple(std)) != (tuple(IMAGENET_MEAN), tuple(IMAGENET_STD))
        own_mean, own_std, given_mean, given_std = (
            torch.tensor(values).view(3, 1, 1) for values in (mean, std, IMAGENET_MEAN, IMAGENET_STD)
        )
        # Saved with the weights: another version of timm may give a network other constants.
        self.register_buffer("scale", given_std / own_std if differs else None)
        self.register_buffer("shift", (given_mean - own_mean) / own_std if differs else None)


def _create(arch: str, image_size: int) -> Any:
    """The network of timm, with random weights, at the image size that it was made for."""
    timm, options = import_timm(arch), {"num_classes": 0, "in_chans": 3}
    name = timm_name(arch)
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    try:
        network = timm.create_model(name, pretrained=False, **options, dynamic_img_size=True)
    except TypeError:  # only transformers with absolute positions take it
        network = timm.create_model(name, pretrained=False, **options)
    if config is not None and config.fixed_input_size and not hasattr(network, "set_input_size"):
        return timm.create_model(name, pretrained=False, **options, img_size=image_size)
    return network


def _replace_dropouts(network: nn.Module) -> None:
    """Have residual branches dropped by masks that are drawn beforehand; other dropout is the head's alone."""
    from timm.layers import DropPath

    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, DropPath):
                setattr(module, name, Dropout(child.drop_prob, 1) if child.drop_prob else nn.Identity())
            elif isinstance(child, nn.modules.dropout._DropoutNd):
                child.p = 0.0


def _examine(body: TimmBody, image_size: int) -> set[int]:
    """The ids of the parameters that a training step uses; the body is left as it was.

    Raises:
        ConfigError: the network draws random numbers, or has running statistics, that checkpoints do not know.
    """
    training, buffers = body.training, {name: buffer.clone() for name, buffer in body.named_buffers()}
    dropouts = [module for module in body.modules() if isinstance(module, Dropout)]
    for dropout in dropouts:
        dropout.keep_mask = torch.ones(2, 1, dtype=torch.bool)
    trainable = [parameter for parameter in body.parameters() if parameter.requires_grad]
    before = torch.get_rng_state()
    with torch.enable_grad():
        images = torch.linspace(-2, 2, 6 * image_size**2).view(2, 3, image_size, image_size)
        features = body.train()(images)
        gradients = torch.autograd.grad(features.float().sum(), trainable, allow_unused=True)
    drawn = not torch.equal(before, torch.get_rng_state())
    changed = [name for name, buffer in body.named_buffers() if not torch.equal(buffer, buffers[name])]
    for name, buffer in body.named_buffers():
        buffer.copy_(buffers[name])
    for dropout in dropouts:
        dropout.keep_mask = None
    body.train(training)
    _refuse(body, changed, drawn)
    fixed = {id(parameter) for parameter in body.parameters() if not parameter.requires_grad}
    return fixed | {id(p) for p, gradient in zip(trainable, gradients, strict=True) if gradient is not None}


def _refuse(body: TimmBody, changed: list[str], drawn: bool) -> None:
    unknown = [name for name in changed if not isinstance(body.get_submodule(name.rpartition(".")[0]), BATCHNORMS)]
    if unknown:
        raise ConfigError(
            f"model.arch={body.arch}: {unknown[0].removeprefix('net.')} changes in training and is none of BatchNorm's "
            "statistics, so a step that is skipped could not be undone; choose another network"
        )
    if drawn:
        raise ConfigError(
            f"model.arch={body.arch} draws random numbers of its own in training, so a run could not be resumed bit "
            "for bit; choose another network"
        )


def _remove_unused(module: nn.Module, used: set[int]) -> None:
    """Remove what has no part in the features: the layers of timm's head."""
    for name, child in list(module.named_children()):
        parameters = list(child.parameters())
        if parameters and not any(id(parameter) in used for parameter in parameters):
            setattr(module, name, nn.Identity())
        else:
            _remove_unused(child, used)
    for name, parameter in list(module.named_parameters(recurse=False)):
        if id(parameter) not in used:
            setattr(module, name, None)


def _stages(network: Any) -> list[tuple[str, int]]:
    """The feature modules of a network of timm: names and reductions."""
    info = getattr(network, "feature_info", [])
    return [(stage["module"], stage["reduction"]) for stage in getattr(info, "info", info)]


def _last_early_stage(network: Any) -> str:
    """The stage that ends the early layer group: the last at 1/8 of the image, else the middle one, as in a ViT."""
    stages = _stages(network)
    early = [name for name, reduction in stages if reduction <= EARLY_REDUCTION]
    return early[-1] if early and len(early) < len(stages) else stages[(len(stages) - 1) // 2][0]


def _size_message(arch: str, image_size: int, error: Exception) -> str:
    return (
        f"model.arch={arch} does not take images of {image_size} x {image_size} pixels ({first_line(error)}); set "
        "model.image_size, or finetune.progressive_sizes, to what it takes, or choose another network"
    )
