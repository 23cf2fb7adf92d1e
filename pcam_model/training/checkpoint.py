"""Checkpoints: network, optimizer and place as safetensors and JSON, whole or not there."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from pcam_model.errors import BadModel
from pcam_model.files import write_whole
from pcam_model.records import Record
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
    rate: float
    figures: dict[str, float]
    """Of the epoch that is left, on the validation part."""


def save_state(path: Path, state: TrainState, place: dict[str, Any]) -> None:
    """Write all that the future of this stage depends on; `place` is JSON and says where we are."""
    tensors = {f"network.{name}": tensor for name, tensor in state.network.state_dict().items()}
    for index, slots in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{slot}": value for slot, value in slots.items()}
    if state.average:
        tensors |= {f"average.{name}": tensor for name, tensor in state.average.tensors.items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    about = {"step": state.step, **place}
    write_whole(path, save(_plain(tensors), {"pcam": json.dumps(about)}))


def read_place(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, without its tensors.

    Raises:
        BadModel: the file is damaged.
    """
    with _whole(path), safe_open(path, "pt") as file:
        place: dict[str, Any] = json.loads(file.metadata()["pcam"])
    return place


def load_state(path: Path, state: TrainState) -> None:
    """Bring `state`, made for the same stage, to where it was when the checkpoint was written.

    Raises:
        BadModel: the file is damaged, or belongs to another network.
    """
    with _whole(path):
        tensors = load_file(path)
        state.network.load_state_dict(_under("network.", tensors))
        if state.average:
            state.average.load(_under("average.", tensors))
        state.best = _under("best.", tensors)
        _load_optimizer(state.optimizer, tensors)
    state.step = read_place(path)["step"]


def save_weights(path: Path, state: TrainState) -> None:
    """Write the network alone."""
    write_whole(path, save(_plain(state.network.state_dict())))


def load_weights(path: Path, network: torch.nn.Module) -> None:
    """Read what `save_weights` wrote.

    Raises:
        BadModel: the file is damaged or holds another network.
    """
    with _whole(path):
        network.load_state_dict(load_file(path))


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, RuntimeError, KeyError, OSError, TypeError) as error:
        lines = str(error).strip().splitlines()  # torch names the tensors from its second line on
        reason = lines[min(1, len(lines) - 1)].strip().rstrip(":.")[:200] if lines else type(error).__name__
        raise BadModel(
            f"{path} is damaged, or not this network's ({reason}); delete it and run again, or pull it again"
        ) from error


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Safetensors wants each tensor contiguous; channels-last ones are not."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


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
