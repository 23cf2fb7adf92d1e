"""Initial weights of a body: torchvision's ImageNet weights, or a file of any state dict."""

import pickle
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model_weights

from pcam_model.core.errors import WeightsError
from pcam_model.core.files import sha256

CONNECT_TIMEOUT_S = 10.0  # without an answer or a byte
WRAPPER_KEYS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.", "body.", "backbone.", "encoder.")
MAX_NAMES = 4  # in messages


def imagenet_file(arch: str) -> tuple[str, Path]:
    """URL of torchvision's ImageNet weights (IMAGENET1K_V1) of a network, and their path in torch's cache."""
    url: str = get_model_weights(arch)["IMAGENET1K_V1"].url
    return url, Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name


def load_imagenet(arch: str) -> dict[str, Tensor]:
    """Torchvision's ImageNet weights from torch's cache, else downloaded; their digest is checked.

    Raises:
        WeightsError: they are not in the cache and cannot be downloaded.
    """
    url, cached = imagenet_file(arch)
    try:
        with _socket_timeout(CONNECT_TIMEOUT_S):
            weights: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
                url, map_location="cpu", check_hash=True, weights_only=True, progress=False
            )
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise WeightsError(
            f"model.weights=imagenet: {cached} is not a whole file of weights and {url} could not be downloaded "
            f"({_reason(error)}); connect this machine, or put that file there, or set model.weights to a file, "
            "or to none"
        ) from error
    return weights


def load_weights_file(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict: .safetensors, or what `torch.save` wrote (read with `weights_only=True`).

    Raises:
        WeightsError: there is no such file, or it is not a state dict of finite tensors.
    """
    if not path.is_file():
        raise WeightsError(f"model.weights: there is no file {path}; give imagenet, none, or the path of a state dict")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(
            f"model.weights: {path} is not a state dict that can be read safely ({_reason(error)}); "
            "save one with torch.save(model.state_dict(), path) or as .safetensors"
        ) from error
    tensors = _unwrap(content)
    if not tensors:
        raise WeightsError(f"model.weights: {path} holds no tensors by name; a state dict is expected")
    not_finite = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if not_finite:
        raise WeightsError(f"model.weights: {path}: {not_finite[0]} is not finite everywhere; use an undamaged file")
    return tensors


def weights_digest(weights: str) -> str:
    """What identifies initial weights: `imagenet`, `none`, or the SHA-256 of the file."""
    return weights if weights in ("imagenet", "none") else sha256(Path(weights))


def load_body_weights(body: nn.Module, tensors: Mapping[str, Tensor], arch: str) -> str:
    """Load the tensors whose names the body knows; returns a summary of loaded, missing and unexpected ones.

    Raises:
        WeightsError: no tensor fits, or one of a known name has another shape.
    """
    expected = body.state_dict()
    fitting = {key: tensor for key, tensor in tensors.items() if key in expected}
    for key, tensor in fitting.items():
        if tensor.shape != expected[key].shape:
            raise WeightsError(
                f"model.weights: {key} is {tuple(tensor.shape)} in the file, {tuple(expected[key].shape)} in {arch}; "
                "give the weights of this network, or name the network that they belong to in model.arch"
            )
    if not any(key in fitting for key, _ in body.named_parameters()):
        first = next(iter(tensors), "nothing")
        raise WeightsError(
            f"model.weights: none of the {len(tensors)} tensors (first: {first}) fits {arch}; "
            "give the weights of this network, or name the network that they belong to in model.arch"
        )
    body.load_state_dict(fitting, strict=False)
    missing = [key for key in expected if key not in fitting and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in tensors if key not in expected]
    return (
        f"{arch}: {len(fitting)} tensors of the body loaded; missing: {_names(missing)}; "
        f"unexpected: {_names(unexpected)}"
    )


def _unwrap(content: object) -> dict[str, Tensor]:
    """The named tensors in a file's content, without the wrappers and prefixes of common training tools."""
    for key in WRAPPER_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        return {}
    return {_without_prefixes(str(key)): tensor for key, tensor in content.items() if isinstance(tensor, Tensor)}


def _without_prefixes(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _names(names: list[str]) -> str:
    if not names:
        return "none"
    return f"{len(names)} ({', '.join(names[:MAX_NAMES])}{', ...' if len(names) > MAX_NAMES else ''})"


def _reason(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Set the default timeout of sockets inside the block."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
