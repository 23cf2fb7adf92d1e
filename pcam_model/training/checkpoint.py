"""Checkpoints as safetensors files with JSON metadata, each replaced as a whole."""

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
from torch import Tensor, nn

from pcam_model.core.errors import CheckpointError, DamagedCheckpointError
from pcam_model.core.files import atomic_file, link_or_copy, sha256
from pcam_model.core.log import log
from pcam_model.core.parsing import parse_json
from pcam_model.core.schema import Record
from pcam_model.core.stage_names import StageName
from pcam_model.core.write_guard import write_guard
from pcam_model.training.checkpoint_digest import DIGEST_KEY, checkpoint_digest
from pcam_model.training.device import compute_environment, describe_environment
from pcam_model.training.train_state import TrainState

FINAL = "final.safetensors"
METADATA_KEY = "pcam"
REMEDY = "delete it and run again, or pull it again"
METRIC_NAMES = ("valid_loss", "valid_accuracy", "valid_auc")


class Checkpoint(Record):
    """The weights that a stage ends with, and their validation metrics."""

    path: str
    """The network's weights, safetensors."""
    digest: str
    """SHA-256 of the file."""
    stage: StageName
    epoch: int
    step: int
    lr: float
    """The cycle's maximum learning rate."""
    metrics: dict[str, float]
    """Validation loss, accuracy and AUC of these weights."""

    @classmethod
    def from_row(cls, path: Path, stage: StageName, row: dict[str, Any], lr: float) -> "Checkpoint":
        """The checkpoint of a file whose weights have this row of `metrics.jsonl`."""
        metrics = {name: row[name] for name in METRIC_NAMES}
        return cls(
            path=str(path),
            digest=sha256(path),
            stage=stage,
            epoch=row["epoch"],
            step=row["step"],
            lr=lr,
            metrics=metrics,
        )


def snapshot_state(
    path: Path, state: TrainState, metadata: dict[str, Any], previous: Path | None = None
) -> Callable[[], None]:
    """Copy a training's whole state to the host; the function that is returned writes the copy.

    Args:
        path: the file to make or replace.
        state: what is copied.
        metadata: JSON, stored with it.
        previous: where the file that is replaced is kept; None: it is lost.
    """
    tensors = {f"network.{name}": tensor for name, tensor in state.network.state_dict().items()}
    for index, slots in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{slot}": value for slot, value in slots.items()}
    if state.ema:
        tensors |= {f"ema.{name}": tensor for name, tensor in state.ema.tensors.items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best_weights.items()}
    metadata = {
        "step": state.step,
        "microbatches": state.network.microbatches,
        "environment": compute_environment(state.device, state.precision),
        **metadata,
    }
    if state.scaler:
        metadata["loss_scale"] = [float(state.scaler.scale), float(state.scaler.growth_tracker)]
    copies = _host_copies(tensors)
    return lambda: _write(path, copies, metadata, previous)


def load_state(path: Path, state: TrainState, check: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Load what `snapshot_state` wrote into `state`, created for the same stage; returns the metadata.

    A warning is logged where device, dtype or number of threads are others than those that computed the checkpoint.

    Args:
        path: the file.
        state: is changed only once the file's digest is verified.
        check: is given the metadata before anything is loaded, and raises where they are of another training.

    Raises:
        DamagedCheckpointError: the file is damaged; `state` is as it was.
        CheckpointError: it is of another network.
    """
    tensors, metadata = _read_verified(path)
    check(metadata)
    with _checkpoint_errors(path):
        state.network.load_state_dict(_with_prefix("network.", tensors))
        if state.ema:
            state.ema.load_state_dict(_with_prefix("ema.", tensors))
        state.best_weights = _with_prefix("best.", tensors)
        _load_optimizer(state.optimizer, tensors)
    state.step = metadata["step"]
    state.network.set_microbatches(metadata["microbatches"])
    if state.scaler and "loss_scale" in metadata:
        state.scaler.scale.fill_(metadata["loss_scale"][0])
        state.scaler.growth_tracker.fill_(metadata["loss_scale"][1])
    _compare_environments(metadata["environment"], compute_environment(state.device, state.precision))
    return metadata


def read_checkpoint_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a checkpoint; its tensors are not read, and nothing is verified.

    Raises:
        CheckpointError: the file is damaged.
    """
    with _checkpoint_errors(path), safe_open(path, "pt") as file:
        return _metadata(file, path)


def verify_checkpoint(path: Path) -> dict[str, Any]:
    """The metadata of a checkpoint whose digest is verified. Raises DamagedCheckpointError."""
    return _read_verified(path)[1]


def snapshot_weights(path: Path, network: nn.Module, metadata: dict[str, Any]) -> Callable[[], None]:
    """Copy a network's weights to the host; the function that is returned writes the copy."""
    copies = _host_copies(network.state_dict())
    return lambda: _write(path, copies, metadata)


def save_weights(path: Path, network: nn.Module, metadata: dict[str, Any]) -> None:
    """Write a network's weights, with `metadata` (JSON)."""
    snapshot_weights(path, network, metadata)()


def load_weights(path: Path, network: nn.Module) -> None:
    """Load what `save_weights` wrote into a network.

    Raises:
        CheckpointError: the file is damaged, or belongs to another network.
    """
    tensors, _ = _read_verified(path)
    with _checkpoint_errors(path):
        network.load_state_dict(tensors)


def _read_verified(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of a file; those without a digest, as older versions wrote, are taken as they are.

    Raises:
        DamagedCheckpointError: they cannot be parsed, or are not what was written.
        CheckpointError: the file is not there, or cannot be read.
    """
    with _checkpoint_errors(path):
        try:
            with safe_open(path, "pt") as file:
                metadata = _metadata(file, path)
            tensors = load_file(path)
        except (SafetensorError, ValueError) as error:
            reason = str(error).splitlines()[0][:200]
            raise DamagedCheckpointError(f"{path} is damaged ({reason}); {REMEDY}") from error
        digest = metadata.pop(DIGEST_KEY, None)
        if digest is not None and digest != checkpoint_digest(tensors, metadata):
            raise DamagedCheckpointError(f"{path} is damaged (its bytes are not those that were written); {REMEDY}")
        return tensors, metadata


def _metadata(file: Any, path: Path) -> dict[str, Any]:
    """The metadata of an open file. Raises DamagedCheckpointError."""
    text = (file.metadata() or {}).get(METADATA_KEY, "{}")
    return parse_json(text, f"the metadata of {path}", remedy=REMEDY, error=DamagedCheckpointError)


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any], previous: Path | None = None) -> None:
    """Write straight from the tensors' memory, without holding the GIL. Raises DiskFullError."""
    text = json.dumps({**metadata, DIGEST_KEY: checkpoint_digest(tensors, metadata)})
    with write_guard(path.parent), atomic_file(path) as temporary:
        try:
            save_file(tensors, temporary, {METADATA_KEY: text})  # one key: several have no order
        except SafetensorError as error:  # the OS error is in its message only
            number = re.search(r"os error (\d+)", str(error))
            code = int(number[1]) if number else errno.EIO
            raise OSError(code, os.strerror(code), str(path)) from error
        if previous is not None and path.is_file():
            link_or_copy(path, previous)


@contextmanager
def _checkpoint_errors(path: Path) -> Iterator[None]:
    """Turn what reading a damaged or unfitting file raises into a CheckpointError."""
    try:
        yield
    except (SafetensorError, RuntimeError, KeyError, OSError, TypeError) as error:
        lines = str(error).strip().splitlines()  # torch names the tensors from its second line on
        reason = lines[min(1, len(lines) - 1)].strip().rstrip(":.")[:200] if lines else type(error).__name__
        raise CheckpointError(f"{path} is damaged, or not this network's ({reason}); {REMEDY}") from error


def _compare_environments(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Log a warning where a checkpoint was computed on another device, or with another dtype or number of threads."""
    if describe_environment(before) != describe_environment(now):
        log.warning(
            "The checkpoint was computed with %s, training continues with %s: results are the same up to rounding only",
            describe_environment(before),
            describe_environment(now),
        )


def _host_copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the host, contiguous as safetensors requires; channels-last tensors are not."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.preserve_format).contiguous()
        for name, tensor in tensors.items()
    }


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _with_prefix("optimizer.", tensors).items():
        index, slot = name.split(".")
        state.setdefault(int(index), {})[slot] = _like_parameter(parameters[int(index)], tensor)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _like_parameter(parameter: Tensor, value: Tensor) -> Tensor:
    """The values in the parameter's memory format, which fused kernels expect."""
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
