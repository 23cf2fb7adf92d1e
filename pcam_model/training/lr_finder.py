"""Learning rate range test (Smith 2015, fastai's numbers): train with a growing rate until the loss explodes."""

import json
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from pcam_model.core.errors import Interrupted
from pcam_model.core.files import write_atomic
from pcam_model.core.log import log
from pcam_model.core.rng import StepKey
from pcam_model.core.schema import Config
from pcam_model.data.patch_loader import PatchLoader, normalise
from pcam_model.training.batch import BatchSource, BatchSpec
from pcam_model.training.device import ComputeConfig, autocast, tune_malloc
from pcam_model.training.interrupt import RESUME_HINT, StopRequest, graceful_stop
from pcam_model.training.latest_state import LatestState
from pcam_model.training.lr_curve import EVALUATE_EVERY, LrCurve, SuggestionMethod, exploded_at, lr_at, read_curve
from pcam_model.training.network import PatchNetwork
from pcam_model.training.stage import Stage
from pcam_model.training.step import compute_loss, train_step
from pcam_model.training.train_state import ENGINE_VERSION, create_train_state

MOMENTUM = 0.9  # AdamW's default: the test has no cycle
FLUSH_STEPS = 5  # losses are read from the device every so many steps
EVALUATED_PATCHES = 64  # of a loss in evaluation mode
LR_FINDER_VERSION = (
    2  # raised where a search takes other steps or records other losses: its checkpoints are refused then
)
STAGE_OFFSET = 10  # added to a stage's number in RNG keys, which differ from those of its training


class LrFinderConfig(Config):
    """The learning rate range test, for stages whose `lr` is `find`."""

    steps: int = Field(100, ge=20, le=2000)
    """Steps from 1e-7 to 10, exponentially spaced."""
    method: SuggestionMethod = "valley"
    """valley: two thirds from the plateau to the lowest loss; steep: the steepest fall; minimum: lowest loss / 10."""


@dataclass(frozen=True)
class LrFinderSetup:
    """Inputs of a range test besides network and data.

    Attributes:
        stage: whose batch size, augmentation and layer groups are used.
        config: number of steps and method.
        seed: of all random numbers.
        folder: of checkpoints and `lr.json`.
        compute: precision, and when to write checkpoints.
        inputs: digests that a checkpoint must agree with to be resumed.
    """

    stage: Stage
    config: LrFinderConfig
    seed: int
    folder: Path
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    inputs: dict[str, Any] = field(default_factory=dict)


def find_lr(
    network: PatchNetwork,
    train: PatchLoader,
    setup: LrFinderSetup,
    on_progress: Callable[[int, int], None] | None = None,
) -> LrCurve:
    """Train with a growing rate until the loss explodes; network and torch's random state are restored.

    Where the curve holds no information the stage's default rate is suggested, and `reason` says so.
    Resumes from the folder's checkpoint where it has the same inputs, with the result of an uninterrupted test.

    Raises:
        ConfigError: the loss exploded after too few steps, so nothing can be suggested.
        CheckpointMismatchError: the checkpoint is of another test.
        Interrupted: SIGTERM or SIGINT asked to stop; the whole state is saved.
    """
    tune_malloc()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    lr_finder = LrFinder(network, train, setup)
    try:
        with graceful_stop() as stop:
            lr_finder.resume()
            lr_finder.run(stop, on_progress or (lambda *_: None))
    finally:
        lr_finder.batches.close()
        network.load_state_dict(before)
        network.set_microbatches(1)
    path = setup.folder / "lr.json"
    curve = lr_finder.curve(path)
    log.info("LR range test, %s: %s", curve.stage, curve.reason)
    write_atomic(path, json.dumps(curve.model_dump(exclude={"path"}), indent=1).encode())
    lr_finder.latest.remove()
    return curve


class LrFinder:
    """The steps of a range test and their losses."""

    def __init__(self, network: PatchNetwork, train: PatchLoader, setup: LrFinderSetup):
        self.train, self.compute = train, setup.compute
        self.steps, self.batch_size, self.seed = setup.config.steps, setup.stage.batch_size, setup.seed
        self.stage_number = setup.stage.number + STAGE_OFFSET
        self.view_config = setup.stage.view_config(0, 1, train.image_size)
        self.untrained = deepcopy(network).train()
        self.state = create_train_state(network.train(), setup.stage.lr_multipliers, train.device, self.compute)
        self.batches = BatchSource(train, network)
        self.setup, self.losses, self.starts, self.evaluations = setup, list[float](), list[float](), list[float]()
        self.pending: list[tuple[Tensor, Tensor]] = []
        self.pending_evaluations: list[Tensor] = []
        self.saved_at = time.monotonic()
        self.identity = {
            **setup.inputs,
            "lr_multipliers": setup.stage.lr_multipliers,
            "steps": self.steps,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "stage": setup.stage.name,
            "patches": len(train),
            "view_config": asdict(self.view_config),
            "engine": ENGINE_VERSION,
            "search": LR_FINDER_VERSION,
        }
        self.latest = LatestState(setup.folder, self.identity)

    def resume(self) -> None:
        """Load the folder's checkpoint where there is one. Raises CheckpointMismatchError."""
        metadata = self.latest.load(self.state)
        self.latest.restore()
        if metadata:
            self.untrained.set_microbatches(self.state.network.microbatches)
            self.losses, self.starts = metadata["losses"], metadata["starts"]
            self.evaluations = metadata["evaluations"]
            log.info("LR range test: resumed at step %d of %d", self.state.step, self.steps)

    def run(self, stop: StopRequest, on_progress: Callable[[int, int], None]) -> None:
        """Take steps until the loss explodes, or the highest rate is reached."""
        while self.state.step < self.steps and exploded_at(self.losses, self.evaluations) is None:
            self._step()
            while self.state.step % FLUSH_STEPS and self.state.step < self.steps and not self._is_due(stop):
                self._step()
            self._flush()
            on_progress(self.state.step, self.steps)
            if self._is_due(stop):
                self._checkpoint()
            if stop.signal:
                message = f"LR range test stopped by {stop.signal.name} after step {self.state.step} of {self.steps}"
                log.info("%s; %s", message, RESUME_HINT)
                raise Interrupted(f"{message}; {RESUME_HINT}")

    def curve(self, path: Path) -> LrCurve:
        """The curve of the steps that were taken; see `read_curve`."""
        stage, method = self.setup.stage.name, self.setup.config.method
        return read_curve(self.losses, self.starts, self.evaluations, stage, method, self.steps, path)

    def _step(self) -> None:
        """Take a step at its rate; its loss, and the untrained network's on the same batch, stay on the device."""
        step = self.state.step
        batch = self.batches.batch(self._batch_spec(step))
        with torch.no_grad():
            start = compute_loss(self.untrained, batch, precision=self.state.precision)
        loss = train_step(self.state, batch, lr_at(step, self.steps), MOMENTUM)
        self.pending.append((loss, start))
        if step % EVALUATE_EVERY == 0:
            self.pending_evaluations.append(self._evaluate())
        self.batches.prefetch(self._batch_spec(step + 1))

    @torch.no_grad()
    def _evaluate(self) -> Tensor:
        """The loss in evaluation mode on the test's first patches, a scalar on the device.

        With high rates the weights run away from BatchNorm's running statistics, which only evaluation mode uses: the
        training loss still falls while what would be published is already useless.
        """
        order = self.train.epoch_order(self.seed, self.stage_number, 0)
        rows = order[: min(self.batch_size, EVALUATED_PATCHES)]
        images, network = normalise(self.train.gather(rows), self.view_config.image_size), self.state.network.eval()
        with autocast(images.device, self.state.precision):
            logits = network(images)
        network.train()
        labels = self.train.labels[rows.to(self.train.labels.device, non_blocking=True)]
        return functional.cross_entropy(logits.float(), labels)

    def _batch_spec(self, step: int) -> BatchSpec:
        epoch, k = divmod(step, len(self.train) // self.batch_size)
        order = self.train.epoch_order(self.seed, self.stage_number, epoch)
        rows, key = order[k * self.batch_size :][: self.batch_size], StepKey(self.seed, self.stage_number, epoch, k)
        return BatchSpec.whole(rows, key, self.view_config)

    def _flush(self) -> None:
        """Read the losses of the last steps from the device."""
        for loss, start in torch.stack([torch.stack(pair) for pair in self.pending]).tolist():
            self.losses.append(loss)
            self.starts.append(start)
        self.evaluations += [float(loss) for loss in self.pending_evaluations]
        self.pending.clear()
        self.pending_evaluations.clear()

    def _is_due(self, stop: StopRequest) -> bool:
        """Whether it is time for a checkpoint."""
        every = self.compute.checkpoint_steps
        late = time.monotonic() - self.saved_at > self.compute.checkpoint_seconds
        return bool(stop.signal) or late or bool(every and self.state.step % every == 0)

    def _checkpoint(self) -> None:
        metadata = {"losses": self.losses, "starts": self.starts, "evaluations": self.evaluations}
        self.latest.snapshot(self.state, metadata)()
        self.saved_at = time.monotonic()
