"""Initial weights of a body: torchvision's ImageNet weights, or a checkpoint of any tool."""

import argparse
import math
import pickle
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model_weights

from pcam_model.core.errors import WeightsError, first_line
from pcam_model.core.files import sha256
from pcam_model.core.write_guard import write_guard
from pcam_model.training.state_dicts import StateDict, find_state_dict, tensor_dicts

CONNECT_TIMEOUT_S = 10.0  # without an answer or a byte
MIN_BODY_SHARE = 0.9
"""Of a body's weights, which a file has to hold."""
MAX_NAMES = 4  # in messages
# What trainers save beside the tensors: their arguments, and measures as NumPy's numbers; none of it runs code.
NUMPY_SCALAR, NUMPY_TYPES = np.float64().__reduce__()[0], ("float64", "float32", "int64", "bool")
HARMLESS: list[Any] = [
    argparse.Namespace,
    *((NUMPY_SCALAR, f"numpy.{package}.multiarray.scalar") for package in ("core", "_core")),
    np.dtype,
    *(type(np.dtype(name)) for name in NUMPY_TYPES),
]
REMEDY = "give the weights of this network, or name the network that they belong to in model.arch"


def imagenet_file(arch: str) -> tuple[str, Path]:
    """URL of torchvision's ImageNet weights (IMAGENET1K_V1) of a network, and their path in torch's cache."""
    url: str = get_model_weights(arch)["IMAGENET1K_V1"].url
    return url, Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name


def load_imagenet(arch: str) -> dict[str, Tensor]:
    """Torchvision's ImageNet weights from torch's cache, else downloaded; their digest is checked in both cases.

    Raises:
        WeightsError: those in the cache are damaged, or there are none and they cannot be downloaded.
    """
    url, cached = imagenet_file(arch)
    try:
        with write_guard(cached.parent, "TORCH_HOME"), _socket_timeout(CONNECT_TIMEOUT_S):
            _check_cached(cached)
            weights: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
                url, map_location="cpu", check_hash=True, weights_only=True, progress=False
            )
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise WeightsError(
            f"model.weights=imagenet: {cached} is not a whole file of weights and {url} could not be downloaded "
            f"({first_line(error)}); connect this machine, or put that file there, or set model.weights to a file, "
            "or to none"
        ) from error
    return weights


def _check_cached(cached: Path) -> None:
    """Raise WeightsError where the SHA-256 of a file in torch's cache is not that of its name.

    Torch itself checks it at the download only.
    """
    expected = cached.stem.rpartition("-")[2]
    if cached.is_file() and not (digest := sha256(cached)).startswith(expected):
        raise WeightsError(
            f"model.weights=imagenet: {cached} is damaged, or another file: its SHA-256 begins with "
            f"{digest[: len(expected)]}, expected {expected}; delete it, and it is downloaded again, or give it as it "
            "is with model.weights=PATH"
        )


def load_weights_file(path: Path) -> object:
    """What a file of weights holds: .safetensors, or what `torch.save` wrote; code in it is never run.

    Raises:
        WeightsError: there is no such file, or it cannot be read without running code.
    """
    if not path.is_file():
        raise WeightsError(f"model.weights: there is no file {path}; give imagenet, none, or the path of a state dict")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(HARMLESS):
            content: object = torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # an odd pickle raises nearly anything: TypeError, IndexError, AssertionError ...
        raise WeightsError(_unreadable_message(path, error)) from error
    return content


def weights_digest(weights: str) -> str:
    """What identifies initial weights: `imagenet`, `none`, or the SHA-256 of the file."""
    return weights if weights in ("imagenet", "none") else sha256(weights_path(weights))


def weights_path(weights: str) -> Path:
    """The file that `model.weights` names."""
    return Path(weights).expanduser()


def load_body_weights(body: nn.Module, content: object, arch: str) -> str:
    """Load the body's tensors from a file's content; returns what was taken from where, and what was left out.

    The dictionary and the prefix are found by the body's own names, see `find_state_dict`.

    Raises:
        WeightsError: no tensor fits, a tensor has another shape or is not finite, or a large part is missing.
    """
    state = find_state_dict(content, body)
    if state is None:
        raise WeightsError(_nothing_fits_message(content, arch))
    _check_tensors(state, body, arch)
    _check_structure(state, body, arch)
    missing = _check_share(state, body, arch)
    body.load_state_dict(dict(state.tensors), strict=False)
    alternatives = f"; {', '.join(state.alternatives)} would fit too" if state.alternatives else ""
    return (
        f"{arch}: {len(state.tensors)} tensors of the body loaded ({state.location}); missing: {_names(missing)}; "
        f"left out: {_names(list(state.unexpected))}{alternatives}"
    )


def _check_tensors(state: StateDict, body: nn.Module, arch: str) -> None:
    expected = body.state_dict()
    for key, tensor in state.tensors.items():
        if tensor.shape != expected[key].shape:
            raise WeightsError(
                f"model.weights: {state.prefix}{key} is {tuple(tensor.shape)} in the file, "
                f"{tuple(expected[key].shape)} in {arch}; {REMEDY}"
            )
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_complex():
            raise WeightsError(
                f"model.weights: {state.prefix}{key} is {tensor.dtype} on {tensor.device} ({tensor.layout}), expected "
                "plain numbers; save the state dict of the network as it trains, not a quantised or a sparse one"
            )
        if not torch.isfinite(tensor).all():
            raise WeightsError(f"model.weights: {state.prefix}{key} is not finite everywhere; use an undamaged file")


def _check_structure(state: StateDict, body: nn.Module, arch: str) -> None:
    """Raise WeightsError where the file has weights of an inner layer that has none in the body, as a layer scale."""
    inner = {name for name, _ in body.named_modules() if "." in name and not name.startswith("head.")}
    buffers = dict(body.named_buffers())
    for key, tensor in state.unexpected.items():
        name = key.removeprefix(state.prefix)
        layer = name.rpartition(".")[0]
        is_weight = tensor.is_floating_point() and tensor.numel() > 1 and name not in buffers  # others are counts
        if key.startswith(state.prefix) and layer in inner and is_weight:
            raise WeightsError(
                f"model.weights: the file has {key}, and {layer} of {arch} has no such weights: the file is of another "
                f"network; {REMEDY}"
            )


def _check_share(state: StateDict, body: nn.Module, arch: str) -> list[str]:
    """The names of missing tensors, where they are a small part of the body."""
    sizes = {name: parameter.numel() for name, parameter in body.named_parameters()}
    share = sum(size for name, size in sizes.items() if name in state.tensors) / sum(sizes.values())
    missing = [key for key in body.state_dict() if key not in state.tensors and "num_batches" not in key]
    if share < MIN_BODY_SHARE:
        raise WeightsError(
            f"model.weights: {math.floor(100 * share)}% of the weights of {arch} are in the file ({state.location}), "
            f"at least {MIN_BODY_SHARE:.0%} are expected; missing: {_names(missing)}; {REMEDY}"
        )
    return missing


def _nothing_fits_message(content: object, arch: str) -> str:
    names = [f"{path}.{name}".lstrip(".") for path, tensors in tensor_dicts(content) for name in tensors]
    if not names:
        return "model.weights: the file holds no tensors by name; a state dict is expected"
    return f"model.weights: the file's {len(names)} tensors (first: {names[0]}) are not those of {arch}; {REMEDY}"


def _unreadable_message(path: Path, error: BaseException) -> str:
    unsafe = re.search(r"GLOBAL ([\w.]+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and unsafe:
        return (
            f"model.weights: {path} is not a state dict that can be read safely: it holds {unsafe[1]}, which is code "
            "and is not loaded; where you trust the file, save its tensors alone with the program that wrote it: "
            "torch.save(model.state_dict(), PATH)"
        )
    return (
        f"model.weights: {path} is not a state dict that can be read safely ({first_line(error)}); "
        "save one with torch.save(model.state_dict(), PATH) or as .safetensors"
    )


def _names(names: Sequence[str]) -> str:
    if not names:
        return "none"
    return f"{len(names)} ({', '.join(names[:MAX_NAMES])}{', ...' if len(names) > MAX_NAMES else ''})"


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Set the default timeout of sockets inside the block."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
