"""Checkpoints: network, optimizer and place as safetensors and JSON, whole or not there."""

import errno
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pcam_model.core.errors import ConfigError, ModelError
from pcam_model.core.files import disk_space_guard, whole
from pcam_model.core.schema import Record
from pcam_model.training.step import TrainState

LATEST = "latest.safetensors"
FINAL = "final.safetensors"


class Checkpoint(Record):
    """The end of a stage: where its weights are and what they are worth on the validation part."""

    path: str
    """The network's weights, safetensors."""
    digest: str
    stage: str
    epoch: int
    step: int
    lr: float
    figures: dict[str, float]
    """Of the epoch that is left, on the validation part."""


def save_state(path: Path, state: TrainState, place: dict[str, Any]) -> None:
    """Write all that the future of this stage depends on; `place` is JSON and says where we are."""
    snapshot(path, state, place)()


def snapshot(path: Path, state: TrainState, place: dict[str, Any]) -> Callable[[], None]:
    """Copy all that the future of this stage depends on; what is returned writes the copy, whenever it is called."""
    tensors = {f"network.{name}": tensor for name, tensor in state.network.state_dict().items()}
    for index, slots in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{slot}": value for slot, value in slots.items()}
    if state.ema:
        tensors |= {f"average.{name}": tensor for name, tensor in state.ema.tensors.items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    about = {"step": state.step, "parts": state.network.parts, "precision": state.precision, **place}
    if state.scale:
        about["scale"] = [float(state.scale.scale), float(state.scale.good)]
    copied = _plain(tensors)

    def write() -> None:
        _write(path, copied, about)

    return write


def refuse_other_training(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise ConfigError where a checkpoint is of another training, naming what differs."""
    before, now = _flat(found), _flat(expected)
    for key in sorted({*before, *now}):
        if before.get(key) == now.get(key):
            continue
        if key == "config.epochs":
            remedy = (
                "lengthening the training is a new stage, not a silent change of the cycle; give this run another name"
            )
        else:
            remedy = "give this run another name, or the same config"
        raise ConfigError(
            f"{path} is a checkpoint of another training: its {key} is {before.get(key)}, here it is {now.get(key)}; "
            f"{remedy}"
        )


def read_checkpoint_metadata(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, without its tensors.

    Raises:
        ModelError: the file is damaged.
    """
    with _undamaged(path), safe_open(path, "pt") as file:
        place: dict[str, Any] = json.loads((file.metadata() or {}).get("pcam", "{}"))
    return place


def load_state(path: Path, state: TrainState) -> None:
    """Bring `state`, made for the same stage, to where it was when the checkpoint was written.

    Raises:
        ModelError: the file is damaged, or belongs to another network.
    """
    with _undamaged(path):
        tensors = load_file(path)
        state.network.load_state_dict(_under("network.", tensors))
        if state.ema:
            state.ema.load(_under("average.", tensors))
        state.best = _under("best.", tensors)
        _load_optimizer(state.optimizer, tensors)
    place = read_checkpoint_metadata(path)
    state.step = place["step"]
    state.network.set_microbatches(place["parts"])
    if state.scale and "scale" in place:
        state.scale.scale.fill_(place["scale"][0])
        state.scale.good.fill_(place["scale"][1])


def save_weights(path: Path, state: TrainState, place: dict[str, Any]) -> None:
    """Write the network alone; `place` is JSON and says of what training it is."""
    weights(path, state, place)()


def weights(path: Path, state: TrainState, place: dict[str, Any]) -> Callable[[], None]:
    """Copy the network alone; what is returned writes the copy, whenever it is called."""
    copied = _plain(state.network.state_dict())

    def write() -> None:
        _write(path, copied, place)

    return write


def load_weights(path: Path, network: torch.nn.Module) -> None:
    """Read what `save_weights` wrote.

    Raises:
        ModelError: the file is damaged or holds another network.
    """
    with _undamaged(path):
        network.load_state_dict(load_file(path))


def _write(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Straight from the tensors' memory, and without Python's lock: training goes on. Raises DiskFullError."""
    with disk_space_guard(path.parent), whole(path) as part:
        try:
            save_file(tensors, part, {"pcam": json.dumps(about)})
        except SafetensorError as error:  # the system's own is in its words only
            number = re.search(r"os error (\d+)", str(error))
            code = int(number[1]) if number else errno.EIO
            raise OSError(code, os.strerror(code), str(path)) from error


@contextmanager
def _undamaged(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, RuntimeError, KeyError, OSError, TypeError) as error:
        lines = str(error).strip().splitlines()  # torch names the tensors from its second line on
        reason = lines[min(1, len(lines) - 1)].strip().rstrip(":.")[:200] if lines else type(error).__name__
        raise ModelError(
            f"{path} is damaged, or not this network's ({reason}); delete it and run again, or pull it again"
        ) from error


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the host, each contiguous as safetensors wants it; channels-last tensors are not."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.preserve_format).contiguous()
        for name, tensor in tensors.items()
    }


def _flat(identity: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Nested keys as one: {"config": {"epochs": 3}} -> {"config.epochs": 3}."""
    flat: dict[str, Any] = {}
    for key, value in identity.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return flat


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, slot = name.split(".")
            slots.setdefault(int(index), {})[slot] = _laid_out_as(parameters[int(index)], tensor)
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})


def _laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """The same numbers in the parameter's own memory format, which the fused kernels want."""
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
