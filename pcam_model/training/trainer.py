"""One stage of training, from wherever it was left to its end."""

import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pcam_model.data.patch_loader import Batches
from pcam_model.core.checkpoint_names import epoch_file
from pcam_model.core.errors import Interrupted
from pcam_model.core.files import sha256
from pcam_model.training.checkpoint import (
    FINAL,
    LATEST,
    Checkpoint,
    identical,
    load_state,
    read_place,
    save_weights,
    snapshot,
    weights,
)
from pcam_model.training.schedule import Course
from pcam_model.training.device import ComputePlan, describe
from pcam_model.training.metrics_log import Diary
from pcam_model.training.interrupt import GO_ON, Stop, stoppable
from pcam_model.training.kept import drop_others
from pcam_model.training.losses import Losses
from pcam_model.training.network import PatchNetwork
from pcam_model.training.distributed import ALONE, Ranks
from pcam_model.training.saver import Saver
from pcam_model.training.stage import Stage
from pcam_model.training.step import ENGINE, new_state, train_step
from pcam_model.training.validation import predict_together, quick_figures

AGREE = 16  # steps between two looks of GPUs at each other's signals, which they have to finish for
LOOKS = 10  # times an epoch that losses are read from the device


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Watch:
    """Who is told how training goes."""

    progress: Callable[[int, int], None] = _nothing
    """Patches seen, patches in all."""
    epoch: Callable[[dict[str, Any]], None] = _nothing
    """The row of an epoch, as it stands in `metrics.jsonl`."""


class Fit:
    """A stage being trained: `Fit(...).run()` gives its checkpoint.

    Which patches form a batch, how they are augmented and what dropout drops are functions of (seed, stage, epoch,
    step), so a run that goes on from a checkpoint ends where an unbroken one does.
    """

    def __init__(
        self,
        network: PatchNetwork,
        train: Batches,
        valid: Batches,
        stage: Stage,
        highest: float,
        seed: int,
        folder: Path,
        watch: Watch | None = None,
        compute: ComputePlan | None = None,
        ranks: Ranks = ALONE,
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
            BadPlan: the batch is larger than the part, or the checkpoint is of another training.
        """
        self.valid, self.stage, self.device = valid, stage, train.device
        self.folder, self.watch, self.compute = folder, watch or Watch(), compute or ComputePlan()
        self.ranks, self.course = ranks, Course(stage, train, highest, seed)
        average = stage.average(network, self.course.steps)
        self.state = new_state(network, stage.multipliers, train.device, self.compute, average, ranks)
        self.identity = {
            **stage.identity,
            "stage": stage.name,
            "rate": highest,
            "seed": seed,
            "patches": len(train),
            "size": train.size,
            "engine": ENGINE,
        }
        self.seconds, self.machine = 0.0, describe(train.device, self.compute.precision)
        self._resume()
        self.diary, self.saver = Diary(folder, self.state.step, ranks.first), Saver()
        self.losses, self.stopped = Losses(self.course, self.diary), self._stale()
        self.saved = self.looked = time.monotonic()
        self.saved_step = self.began = self.state.step

    def run(self) -> Checkpoint:
        """Train to the end of the cycle.

        Raises:
            Interrupted: SIGTERM or SIGINT asked to stop; the whole state is saved.
            BadPlan: training broke down.
        """
        if self.done:
            return self._made()
        try:
            with stoppable() as stop:
                if self.state.step and self.course.ends_epoch(self.state.step) and not self._measured():
                    self._end_epoch(stop)
                while self.state.step < self.course.steps and not self.stopped:
                    self._one_step()
                    self._after(stop)
        finally:
            self.saver.wait()
        return self._finish()

    def checkpoint(self) -> None:
        """Save the whole state beside training, then in place of the last one."""
        self._look()
        place = {"identity": self.identity, "seconds": self.seconds, "device": self.machine}
        if self.ranks.first:
            self.saver.put(snapshot(self.folder / LATEST, self.state, place))
        self.saved, self.saved_step = time.monotonic(), self.state.step

    def _after(self, stop: Stop) -> None:
        """What is due after a step."""
        done, every = self.state.step, self.compute.checkpoint_steps
        ends = self.course.ends_epoch(done)
        if ends or done % max(1, self.course.per_epoch // LOOKS) == 0:
            self._look()
        late = time.monotonic() - self.saved > self.compute.checkpoint_seconds
        if ends or late or (every and done % every == 0):
            self.checkpoint()
        self._leave_if(stop)
        if ends:
            self._end_epoch(stop)

    def _leave_if(self, stop: Stop) -> None:
        """Where a signal asks for it: save, wait until it is on the disk, leave."""
        asked = self._asked(stop)
        if asked:
            if self.saved_step != self.state.step:
                self.checkpoint()
            self.saver.wait()
            step = f"step {self.state.step} of {self.course.steps}"
            where = f"{self.stage.name} training stopped by {asked.name} after {step}"
            print(f"{where}; {GO_ON}")
            raise Interrupted(f"{where}; {GO_ON}")

    def _asked(self, stop: Stop) -> signal.Signals | None:
        """The signal that asks to stop; of several processes all stop after the same step."""
        if self.ranks.world == 1:
            return stop.asked
        due = self.state.step % AGREE == 0 or self.course.ends_epoch(self.state.step)
        if self.device.type == "cuda" and not due:
            return None
        number = self.ranks.largest(int(stop.asked or 0), self.device)
        return signal.Signals(number) if number else None

    def _one_step(self) -> None:
        step, course, share = self.state.step, self.course, self.ranks.share(self.stage.batch)
        images, labels = course.batch(step, share)
        loss = train_step(
            self.state, images, labels, course.rate(step), course.momentum(step), course.seed, *course.place(step),
            smoothing=self.stage.plan.smoothing, clip=self.stage.plan.clip, share=share,
        )  # fmt: skip
        if self.compute.compile and step == self.began:
            float(loss)
            print(f"Compiled in {time.monotonic() - self.looked:.0f} s, which the first epoch's seconds count")
        self.losses.add(loss)
        course.expect(step + 1, share)

    def _look(self) -> None:
        """Read the losses since the last look, and say how far training is."""
        if self.losses.read(self.state.step):
            self.seconds += time.monotonic() - self.looked
            self.looked = time.monotonic()
            self.watch.progress(self.state.step * self.stage.batch, self.course.steps * self.stage.batch)

    def _measured(self) -> bool:
        """Whether the epoch that has just ended has its figures."""
        return any(row["step"] == self.state.step for row in self.diary.epochs())

    def _end_epoch(self, stop: Stop) -> None:
        epoch = self.state.step // self.course.per_epoch
        with self._as_published():
            logits = predict_together(self.state, self.valid, partial(self._leave_if, stop))
            figures = quick_figures(logits, self.valid.labels.cpu())
            better = self.stage.plan.patience and figures["valid_auc"] > self.diary.best().get("valid_auc", -1)
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
            "images_per_second": self.course.per_epoch * self.stage.batch / max(self.seconds, 1e-9),
        }
        if better:  # on the disk before its figures are: they would not be asked for again
            self.checkpoint()
            self.saver.wait()
        self.diary.add([row])
        if self.ranks.first:
            drop_others(self.folder, self.diary.epochs(), self.compute.checkpoint_epochs, self.diary.best())
        self.watch.epoch(row)
        self.seconds, self.looked, self.stopped = 0.0, time.monotonic(), self._stale()

    def _keep(self, epoch: int, figures: dict[str, float]) -> None:
        """Have the epoch's weights written beside training, as they would be published."""
        if self.compute.checkpoint_epochs and self.ranks.first:
            place = {"identity": self.identity, "epoch": epoch, **figures}
            self.saver.put(weights(self.folder / epoch_file(epoch), self.state, place))

    def _stale(self) -> bool:
        """Whether so many epochs brought nothing better that the plan stops here."""
        patience, epoch = self.stage.plan.patience, self.state.step // self.course.per_epoch
        return bool(patience) and epoch - self.diary.best().get("epoch", epoch) >= patience

    def _finish(self) -> Checkpoint:
        if self.state.best:
            self.state.network.load_state_dict(self.state.best)
        with nullcontext() if self.state.best else self._as_published():
            if self.ranks.first:
                save_weights(self.folder / FINAL, self.state, {"identity": self.identity})
                (self.folder / LATEST).unlink(missing_ok=True)
                (self.folder / epoch_file(self._last()["epoch"])).unlink(missing_ok=True)  # it is the final one
        self.ranks.largest(0, self.device)  # the others wait until it is there
        return self._made()

    def _made(self) -> Checkpoint:
        last = self._last()
        return Checkpoint(
            path=str(self.folder / FINAL),
            digest=sha256(self.folder / FINAL),
            stage=self.stage.name,
            epoch=last["epoch"],
            step=last["step"],
            rate=self.course.highest,
            figures={name: last[name] for name in ("valid_loss", "valid_accuracy", "valid_auc")},
        )

    def _last(self) -> dict[str, Any]:
        """The row of the epoch that the stage leaves."""
        return self.diary.best() if self.stage.plan.patience else self.diary.epochs()[-1]

    def _as_published(self) -> AbstractContextManager[None]:
        return self.state.average.in_place() if self.state.average else nullcontext()

    def _resume(self) -> None:
        """Go on from the last checkpoint; from the end, where only the record of it was still to be made."""
        self.state.network.train()
        path, final = self.folder / LATEST, self.folder / FINAL
        self.done = final.is_file() and not path.is_file() and read_place(final).get("identity") == self.identity
        if self.done:
            self.state.step = self.course.steps
        elif path.is_file():
            place = read_place(path)
            identical(path, place["identity"], self.identity)
            load_state(path, self.state)
            self.seconds = place["seconds"]
            print(f"{self.stage.name}: going on from step {self.state.step} of {self.course.steps}")
            if place["device"] != self.machine:
                print(f"It began on {place['device']} and goes on on {self.machine}: the same up to rounding")
