"""Checkpoint files of a stage: the latest state, the weights of epochs, and the final weights."""

import time
from pathlib import Path
from typing import Any

from torch import nn

from pcam_model.core.checkpoint_names import epoch_file, epoch_of
from pcam_model.core.errors import DamagedCheckpointError
from pcam_model.core.log import log
from pcam_model.training.async_writer import AsyncWriter
from pcam_model.training.checkpoint import FINAL, save_weights, snapshot_weights, verify_checkpoint
from pcam_model.training.device import ComputeConfig
from pcam_model.training.latest_state import LatestState
from pcam_model.training.train_state import TrainState


class StageCheckpoints:
    """Saves a stage's checkpoints into its folder, in the background; of several processes only one writes."""

    def __init__(self, folder: Path, identity: dict[str, Any], compute: ComputeConfig, writes: bool = True):
        self.folder, self.identity, self.compute, self.writes = folder, identity, compute, writes
        self.latest, self.final = LatestState(folder, identity, writes), folder / FINAL
        self.saved_step, self._saved_at = 0, time.monotonic()
        self._writer = AsyncWriter()

    def is_finished(self) -> bool:
        """Whether the stage has ended: its final weights are there, and no latest state."""
        if not self.final.is_file() or self.latest.path.is_file():
            return False
        try:
            return verify_checkpoint(self.final).get("identity") == self.identity
        except DamagedCheckpointError as error:
            log.warning("%s. The stage is trained again", error)
            return False

    def load_latest(self, state: TrainState) -> dict[str, Any]:
        """Load the latest state that is intact; returns its metadata, empty where there is none.

        Raises:
            CheckpointMismatchError: it is of another training.
            CheckpointError: it is of another network, or cannot be read.
        """
        return self.latest.load(state)

    def start_clock(self, step: int) -> None:
        """Count the time to the next checkpoint from now, where `step` needs none."""
        self.saved_step, self._saved_at = step, time.monotonic()

    def is_due(self, step: int) -> bool:
        """Whether the configuration asks for a checkpoint after so many steps."""
        every = self.compute.checkpoint_steps
        return time.monotonic() - self._saved_at > self.compute.checkpoint_seconds or bool(every and step % every == 0)

    def save_latest(self, state: TrainState, epoch_seconds: float) -> None:
        """Replace the latest state, in the background; `epoch_seconds`: training time of the current epoch."""
        if self.writes:
            self._writer.submit(self.latest.snapshot(state, {"seconds": epoch_seconds}))
        self.start_clock(state.step)

    def save_epoch(self, network: nn.Module, epoch: int, metrics: dict[str, float]) -> None:
        """Save an epoch's weights as they were validated, in the background, where the configuration keeps any."""
        if self.compute.checkpoint_epochs and self.writes:
            metadata = {"identity": self.identity, "epoch": epoch, **metrics}
            self._writer.submit(snapshot_weights(self.folder / epoch_file(epoch), network, metadata))

    def prune_epochs(self, epochs: list[int], best: int) -> None:
        """Remove the weights of all validated epochs but the last ones and the best."""
        if self.writes:
            count = self.compute.checkpoint_epochs
            prune_epoch_weights(self.folder, {*epochs[-count:], best} if count else set())

    def save_final(self, network: nn.Module, epoch: int) -> None:
        """Save the final weights, those of `epoch`, and remove the latest state; which ends the stage."""
        if self.writes:
            save_weights(self.final, network, {"identity": self.identity})
            self.latest.remove()
            (self.folder / epoch_file(epoch)).unlink(missing_ok=True)  # the same weights

    def wait(self) -> None:
        """Block until everything is on the disk."""
        self._writer.wait()


def prune_epoch_weights(folder: Path, keep: set[int]) -> None:
    """Remove the weights of all epochs but `keep`."""
    for path in folder.iterdir():
        epoch = epoch_of(path.name)
        if epoch is not None and epoch not in keep:
            path.unlink()
