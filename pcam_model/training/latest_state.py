"""The latest whole state of a training, and the one before it, which is gone on from where the latest is damaged."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pcam_model.core.checkpoint_names import LATEST, PREVIOUS
from pcam_model.core.errors import DamagedCheckpointError
from pcam_model.core.files import link_or_copy
from pcam_model.core.log import log
from pcam_model.training.checkpoint import load_state, snapshot_state
from pcam_model.training.checkpoint_identity import check_identity
from pcam_model.training.train_state import TrainState


class LatestState:
    """The files `latest.safetensors` and `previous.safetensors` of a folder; of several processes only one writes."""

    def __init__(self, folder: Path, identity: dict[str, Any], writes: bool = True):
        """`identity`: what a state must agree with to be loaded."""
        self.path, self.previous, self.identity, self.writes = folder / LATEST, folder / PREVIOUS, identity, writes
        self.fell_back = False
        """Whether the state that was loaded is not the latest that was saved."""

    def load(self, state: TrainState) -> dict[str, Any]:
        """Load the latest state that is intact; returns its metadata, empty where there is none.

        A damaged one is refused with a warning; `restore` then puts the previous one in its place.

        Raises:
            CheckpointMismatchError: it is of another training.
            CheckpointError: it is of another network, or cannot be read.
        """
        for path in (self.path, self.previous):
            if not path.is_file():
                continue
            try:
                return load_state(path, state, partial(self._check, path))
            except DamagedCheckpointError as error:
                self.fell_back = True
                log.warning("%s. Going on from the state before it, and from the stage's start without one", error)
        return {}

    def restore(self) -> None:
        """Put the previous state in the place of a damaged one, once every process has loaded it."""
        if self.fell_back and self.writes and self.previous.is_file():
            link_or_copy(self.previous, self.path)

    def snapshot(self, state: TrainState, metadata: dict[str, Any]) -> Callable[[], None]:
        """Copy the state to the host; the function that is returned replaces the latest one, and keeps that."""
        return snapshot_state(self.path, state, {"identity": self.identity, **metadata}, self.previous)

    def remove(self) -> None:
        """Remove both; the latest last, without which a stage is taken for finished."""
        self.previous.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _check(self, path: Path, metadata: dict[str, Any]) -> None:
        check_identity(path, metadata["identity"], self.identity)
