"""One stage of training, from wherever it was left to its end."""

import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pcam_model.core.checkpoint_names import epoch_file
from pcam_model.core.errors import Interrupted
from pcam_model.core.files import sha256
from pcam_model.data.patch_loader import PatchLoader
from pcam_model.training.checkpoint import (
    FINAL,
    LATEST,
    Checkpoint,
    load_state,
    read_checkpoint_metadata,
    refuse_other_training,
    save_weights,
    snapshot,
    weights,
)
from pcam_model.training.device import ComputeConfig, describe
from pcam_model.training.distributed import SINGLE_PROCESS, DistContext
from pcam_model.training.interrupt import RESUME_HINT, StopRequest, graceful_stop
from pcam_model.training.kept import prune_epoch_weights
from pcam_model.training.losses import LossBuffer
from pcam_model.training.metrics_log import MetricsLog
from pcam_model.training.network import PatchNetwork
from pcam_model.training.saver import AsyncWriter
from pcam_model.training.schedule import Schedule
from pcam_model.training.stage import Stage
from pcam_model.training.step import ENGINE, new_state, train_step
from pcam_model.training.validation import predict_distributed, validation_metrics

SIGNAL_SYNC_STEPS = 16  # steps between two looks of GPUs at each other's signals, which they have to finish for
LOOKS = 10  # times an epoch that losses are read from the device


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Callbacks:
    """Who is told how training goes."""

    progress: Callable[[int, int], None] = _nothing
    """Patches seen, patches in all."""
    epoch: Callable[[dict[str, Any]], None] = _nothing
    """The row of an epoch, as it stands in `metrics.jsonl`."""


class Trainer:
    """A stage being trained: `Fit(...).run()` gives its checkpoint.

    Which patches form a batch, how they are augmented and what dropout drops are functions of (seed, stage, epoch,
    step), so a run that goes on from a checkpoint ends where an unbroken one does.
    """

    def __init__(
        self,
        network: PatchNetwork,
        train: PatchLoader,
        valid: PatchLoader,
        stage: Stage,
        max_lr: float,
        seed: int,
        folder: Path,
        callbacks: Callbacks | None = None,
        compute: ComputeConfig | None = None,
        dist: DistContext = SINGLE_PROCESS,
    ):
        """Ready to run; goes on from `folder`'s checkpoint where there is one.

        Args:
            network: prepared for the stage; changed in place.
            train: the part that is learnt from.
            valid: the part that each epoch is measured on.
            stage: what to do.
            highest: the cycle's highest rate, of the highest layer group.
            seed: of all randomness.
            folder: of this stage: checkpoints and `metrics.jsonl`.
            watch: who is told.
            compute: how; and how often the whole state is saved.
            ranks: which of how many processes that share each batch; the first one writes.

        Raises:
            ConfigError: the batch is larger than the part, or the checkpoint is of another training.
        """
        self.valid, self.stage, self.device = valid, stage, train.device
        self.folder, self.callbacks, self.compute = folder, callbacks or Callbacks(), compute or ComputeConfig()
        self.dist, self.schedule = dist, Schedule(stage, train, max_lr, seed)
        ema = stage.ema(network, self.schedule.steps)
        self.state = new_state(network, stage.multipliers, train.device, self.compute, ema, dist)
        self.identity = {
            **stage.identity,
            "stage": stage.name,
            "lr": max_lr,
            "seed": seed,
            "patches": len(train),
            "size": train.size,
            "engine": ENGINE,
        }
        self.seconds, self.machine = 0.0, describe(train.device, self.compute.precision)
        self._resume()
        self.metrics_log, self.saver = MetricsLog(folder, self.state.step, dist.first), AsyncWriter()
        self.losses, self.stopped = LossBuffer(self.schedule, self.metrics_log), self._stale()
        self.saved = self.looked = time.monotonic()
        self.saved_step = self.began = self.state.step

    def run(self) -> Checkpoint:
        """Train to the end of the cycle.

        Raises:
            Interrupted: SIGTERM or SIGINT asked to stop; the whole state is saved.
            ConfigError: training broke down.
        """
        if self.done:
            return self._made()
        try:
            with graceful_stop() as stop:
                if self.state.step and self.schedule.ends_epoch(self.state.step) and not self._measured():
                    self._end_epoch(stop)
                while self.state.step < self.schedule.steps and not self.stopped:
                    self._one_step()
                    self._after(stop)
        finally:
            self.saver.wait()
        return self._finish()

    def checkpoint(self) -> None:
        """Save the whole state beside training, then in place of the last one."""
        self._look()
        place = {"identity": self.identity, "seconds": self.seconds, "device": self.machine}
        if self.dist.first:
            self.saver.put(snapshot(self.folder / LATEST, self.state, place))
        self.saved, self.saved_step = time.monotonic(), self.state.step

    def _after(self, stop: StopRequest) -> None:
        """What is due after a step."""
        done, every = self.state.step, self.compute.checkpoint_steps
        ends = self.schedule.ends_epoch(done)
        if ends or done % max(1, self.schedule.steps_per_epoch // LOOKS) == 0:
            self._look()
        late = time.monotonic() - self.saved > self.compute.checkpoint_seconds
        if ends or late or (every and done % every == 0):
            self.checkpoint()
        self._leave_if(stop)
        if ends:
            self._end_epoch(stop)

    def _leave_if(self, stop: StopRequest) -> None:
        """Where a signal asks for it: save, wait until it is on the disk, leave."""
        asked = self._asked(stop)
        if asked:
            if self.saved_step != self.state.step:
                self.checkpoint()
            self.saver.wait()
            step = f"step {self.state.step} of {self.schedule.steps}"
            where = f"{self.stage.name} training stopped by {asked.name} after {step}"
            print(f"{where}; {RESUME_HINT}")
            raise Interrupted(f"{where}; {RESUME_HINT}")

    def _asked(self, stop: StopRequest) -> signal.Signals | None:
        """The signal that asks to stop; of several processes all stop after the same step."""
        if self.dist.world == 1:
            return stop.asked
        due = self.state.step % SIGNAL_SYNC_STEPS == 0 or self.schedule.ends_epoch(self.state.step)
        if self.device.type == "cuda" and not due:
            return None
        number = self.dist.max_over_ranks(int(stop.asked or 0), self.device)
        return signal.Signals(number) if number else None

    def _one_step(self) -> None:
        step, schedule, share = self.state.step, self.schedule, self.dist.share(self.stage.batch_size)
        images, labels = schedule.batch_size(step, share)
        loss = train_step(
            self.state, images, labels, schedule.lr(step), schedule.momentum(step), schedule.seed, *schedule.place(step),
            label_smoothing=self.stage.config.label_smoothing, max_grad_norm=self.stage.config.max_grad_norm, share=share,
        )  # fmt: skip
        if self.compute.compile and step == self.began:
            float(loss)
            print(f"Compiled in {time.monotonic() - self.looked:.0f} s, which the first epoch's seconds count")
        self.losses.add(loss)
        schedule.expect(step + 1, share)

    def _look(self) -> None:
        """Read the losses since the last look, and say how far training is."""
        if self.losses.read(self.state.step):
            self.seconds += time.monotonic() - self.looked
            self.looked = time.monotonic()
            self.callbacks.progress(
                self.state.step * self.stage.batch_size, self.schedule.steps * self.stage.batch_size
            )

    def _measured(self) -> bool:
        """Whether the epoch that has just ended has its figures."""
        return any(row["step"] == self.state.step for row in self.metrics_log.epochs())

    def _end_epoch(self, stop: StopRequest) -> None:
        epoch = self.state.step // self.schedule.steps_per_epoch
        with self._as_published():
            logits = predict_distributed(self.state, self.valid, partial(self._leave_if, stop))
            figures = validation_metrics(logits, self.valid.labels.cpu())
            better = self.stage.config.early_stopping_patience and figures["valid_auc"] > self.metrics_log.best().get(
                "valid_auc", -1
            )
            if better:
                self.state.best = {name: t.detach().clone() for name, t in self.state.network.state_dict().items()}
            self._keep(epoch, figures)
        self.state.network.train()
        losses = self.losses.of_epoch(epoch)
        row = {
            "kind": "epoch",
            "stage": self.stage.name,
            "epoch": epoch,
            "step": self.state.step,
            "train_loss": sum(losses) / max(len(losses), 1),
            **figures,
            "seconds": self.seconds,
            "images_per_second": self.schedule.steps_per_epoch * self.stage.batch_size / max(self.seconds, 1e-9),
        }
        if better:  # on the disk before its figures are: they would not be asked for again
            self.checkpoint()
            self.saver.wait()
        self.metrics_log.add([row])
        if self.dist.first:
            prune_epoch_weights(
                self.folder, self.metrics_log.epochs(), self.compute.checkpoint_epochs, self.metrics_log.best()
            )
        self.callbacks.epoch(row)
        self.seconds, self.looked, self.stopped = 0.0, time.monotonic(), self._stale()

    def _keep(self, epoch: int, figures: dict[str, float]) -> None:
        """Have the epoch's weights written beside training, as they would be published."""
        if self.compute.checkpoint_epochs and self.dist.first:
            place = {"identity": self.identity, "epoch": epoch, **figures}
            self.saver.put(weights(self.folder / epoch_file(epoch), self.state, place))

    def _stale(self) -> bool:
        """Whether so many epochs brought nothing better that the config stops here."""
        early_stopping_patience, epoch = (
            self.stage.config.early_stopping_patience,
            self.state.step // self.schedule.steps_per_epoch,
        )
        return (
            bool(early_stopping_patience)
            and epoch - self.metrics_log.best().get("epoch", epoch) >= early_stopping_patience
        )

    def _finish(self) -> Checkpoint:
        if self.state.best:
            self.state.network.load_state_dict(self.state.best)
        with nullcontext() if self.state.best else self._as_published():
            if self.dist.first:
                save_weights(self.folder / FINAL, self.state, {"identity": self.identity})
                (self.folder / LATEST).unlink(missing_ok=True)
                (self.folder / epoch_file(self._last()["epoch"])).unlink(missing_ok=True)  # it is the final one
        self.dist.max_over_ranks(0, self.device)  # the others wait until it is there
        return self._made()

    def _made(self) -> Checkpoint:
        last = self._last()
        return Checkpoint(
            path=str(self.folder / FINAL),
            digest=sha256(self.folder / FINAL),
            stage=self.stage.name,
            epoch=last["epoch"],
            step=last["step"],
            lr=self.schedule.max_lr,
            figures={name: last[name] for name in ("valid_loss", "valid_accuracy", "valid_auc")},
        )

    def _last(self) -> dict[str, Any]:
        """The row of the epoch that the stage leaves."""
        return self.metrics_log.best() if self.stage.config.early_stopping_patience else self.metrics_log.epochs()[-1]

    def _as_published(self) -> AbstractContextManager[None]:
        return self.state.ema.in_place() if self.state.ema else nullcontext()

    def _resume(self) -> None:
        """Go on from the last checkpoint; from the end, where only the record of it was still to be made."""
        self.state.network.train()
        path, final = self.folder / LATEST, self.folder / FINAL
        self.done = (
            final.is_file() and not path.is_file() and read_checkpoint_metadata(final).get("identity") == self.identity
        )
        if self.done:
            self.state.step = self.schedule.steps
        elif path.is_file():
            place = read_checkpoint_metadata(path)
            refuse_other_training(path, place["identity"], self.identity)
            load_state(path, self.state)
            self.seconds = place["seconds"]
            print(f"{self.stage.name}: going on from step {self.state.step} of {self.schedule.steps}")
            if place["device"] != self.machine:
                print(f"It began on {place['device']} and goes on on {self.machine}: the same up to rounding")
