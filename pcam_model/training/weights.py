"""First weights for a body: torchvision's ImageNet ones, or a file of anybody's."""

import pickle
import socket
from collections.abc import Callable, Iterator, Mapping
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

PATIENCE = 10.0  # seconds without an answer or a byte
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.", "body.", "backbone.", "encoder.")


def imagenet_file(name: str) -> tuple[str, Path]:
    """The address of torchvision's ImageNet weights (IMAGENET1K_V1) for a network, and where they lie once here."""
    url: str = get_model_weights(name)["IMAGENET1K_V1"].url
    return url, Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name


def imagenet(name: str) -> dict[str, Tensor]:
    """Torchvision's ImageNet weights: from torch's cache, else downloaded, their digest checked.

    Raises:
        WeightsError: neither here nor to be had.
    """
    url, cached = imagenet_file(name)
    try:
        with _impatient():
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


def from_file(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict: .safetensors, or what `torch.save` wrote (read with `weights_only=True`).

    Raises:
        WeightsError: not there, not readable, or not a state dict of finite tensors.
    """
    if not path.is_file():
        raise WeightsError(f"model.weights: there is no file {path}; give imagenet, none, or the path of a state dict")
    try:
        held = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(
            f"model.weights: {path} is not a state dict that can be read safely ({_reason(error)}); "
            "save one with torch.save(model.state_dict(), path) or as .safetensors"
        ) from error
    tensors = _unwrapped(held)
    if not tensors:
        raise WeightsError(f"model.weights: {path} holds no tensors by name; a state dict is expected")
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise WeightsError(f"model.weights: {path}: {broken[0]} is not finite everywhere; use an undamaged file")
    return tensors


def fingerprint(asked: str) -> str:
    """What first weights rest on: `imagenet`, `none`, or the SHA-256 of the file."""
    return asked if asked in ("imagenet", "none") else sha256(Path(asked))


def into_body(body: nn.Module, given: Mapping[str, Tensor], name: str, say: Callable[[str], None]) -> None:
    """Load what fits into the body, and say what was missing or left over.

    Raises:
        WeightsError: nothing fits, or a tensor of a known name has another shape.
    """
    own = body.state_dict()
    fitting = {key: tensor for key, tensor in given.items() if key in own}
    for key, tensor in fitting.items():
        if tensor.shape != own[key].shape:
            raise WeightsError(
                f"model.weights: {key} is {tuple(tensor.shape)} in the file and {tuple(own[key].shape)} in {name}; "
                "give the weights of this network, or name the network that they belong to in model.arch"
            )
    if not any(key in fitting for key, _ in body.named_parameters()):
        first = next(iter(given), "nothing")
        raise WeightsError(
            f"model.weights: none of the {len(given)} tensors (first: {first}) fits {name}; "
            "give the weights of this network, or name the network that they belong to in model.arch"
        )
    body.load_state_dict(fitting, strict=False)
    missing = [key for key in own if key not in fitting and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in own]
    say(
        f"{name}: {len(fitting)} tensors of the body loaded; missing: {_some(missing)}; unexpected: {_some(unexpected)}"
    )


def _unwrapped(held: object) -> dict[str, Tensor]:
    for key in WRAPPERS:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
    if not isinstance(held, Mapping):
        return {}
    return {_bare(str(name)): tensor for name, tensor in held.items() if isinstance(tensor, Tensor)}


def _bare(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _some(names: list[str]) -> str:
    return "none" if not names else f"{len(names)} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"


def _reason(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__


@contextmanager
def _impatient() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
