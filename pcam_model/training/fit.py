"""One stage of training, from wherever it was left to its end."""

import math
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from pcam_model.data.batches import Batches
from pcam_model.errors import BadPlan, Interrupted
from pcam_model.files import sha256
from pcam_model.training.checkpoint import (
    FINAL,
    LATEST,
    Checkpoint,
    identical,
    load_state,
    read_place,
    save_weights,
    snapshot,
)
from pcam_model.training.device import ComputePlan, describe
from pcam_model.training.diary import Diary
from pcam_model.training.health import IN_A_ROW
from pcam_model.training.interrupt import GO_ON, Stop, stoppable
from pcam_model.training.network import PatchNetwork
from pcam_model.training.one_cycle import momentum, rate
from pcam_model.training.ranks import ALONE, Ranks
from pcam_model.training.saver import Saver
from pcam_model.training.stage import Stage
from pcam_model.training.step import ENGINE, new_state, predict, train_step

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
        self.train, self.valid, self.stage, self.highest, self.seed = train, valid, stage, highest, seed
        self.folder, self.watch, self.compute = folder, watch or Watch(), compute or ComputePlan()
        self.ranks = ranks
        self.per_epoch = stage.steps_an_epoch(len(train))
        self.steps = self.per_epoch * stage.plan.epochs
        average = stage.average(network, self.steps)
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
        self.seconds, self.device = 0.0, describe(train.device, self.compute.precision)
        self._resume()
        self.diary, self.saver = Diary(folder, self.state.step, ranks.first), Saver()
        self.stopped = self._stale()
        self.losses: list[Tensor] = []
        self.ordered, self.order = -1, torch.empty(0, dtype=torch.int64)
        self.saved = self.looked = time.monotonic()
        self.saved_step = self.began = self.state.step
        self.bad = self.diary.skipped_last()

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
                if self.state.step and self.state.step % self.per_epoch == 0 and not self._measured():
                    self._end_epoch(stop)
                while self.state.step < self.steps and not self.stopped:
                    self._one_step()
                    self._after(stop)
        finally:
            self.saver.wait()
        return self._finish()

    def checkpoint(self) -> None:
        """Save the whole state beside training, then in place of the last one."""
        self._look()
        place = {"identity": self.identity, "seconds": self.seconds, "device": self.device}
        if self.ranks.first:
            self.saver.put(snapshot(self.folder / LATEST, self.state, place))
        self.saved, self.saved_step = time.monotonic(), self.state.step

    def _after(self, stop: Stop) -> None:
        """What is due after a step."""
        done, every = self.state.step, self.compute.checkpoint_steps
        ends = done % self.per_epoch == 0
        if ends or done % max(1, self.per_epoch // LOOKS) == 0:
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
            where = f"{self.stage.name} training stopped by {asked.name} after step {self.state.step} of {self.steps}"
            print(f"{where}; {GO_ON}")
            raise Interrupted(f"{where}; {GO_ON}")

    def _asked(self, stop: Stop) -> signal.Signals | None:
        """The signal that asks to stop; of several processes all stop after the same step."""
        if self.ranks.world == 1:
            return stop.asked
        if self.train.device.type == "cuda" and self.state.step % AGREE and self.state.step % self.per_epoch:
            return None
        number = self.ranks.largest(int(stop.asked or 0), self.train.device)
        return signal.Signals(number) if number else None

    def _one_step(self) -> None:
        step, place = self.state.step, (self.stage.number, *divmod(self.state.step, self.per_epoch))
        sight = self.stage.sight(step, self.steps, self.train.size)
        share = self.ranks.share(self.stage.batch)
        images, labels = self.train.augmented(self._batch(step), self.seed, *place, sight=sight, share=share)
        now = rate(step, self.steps, self.highest)
        loss = train_step(
            self.state, images, labels, now, momentum(step, self.steps), self.seed, *place,
            smoothing=self.stage.plan.smoothing, clip=self.stage.plan.clip, share=share,
        )  # fmt: skip
        if self.compute.compile and step == self.began:
            float(loss)
            print(f"Compiled in {time.monotonic() - self.looked:.0f} s, which the first epoch's seconds count")
        self.losses.append(loss)
        if (step + 1) % self.per_epoch:
            self.train.expect(share.of(self._batch(step + 1)))

    def _batch(self, step: int) -> Tensor:
        """int64 (B,): which positions of the part the step sees."""
        epoch, k = divmod(step, self.per_epoch)
        if self.ordered != epoch:
            self.ordered, self.order = epoch, self.train.order(self.seed, self.stage.number, epoch)
        return self.order[k * self.stage.batch :][: self.stage.batch]

    def _look(self) -> None:
        """Read the losses since the last look, note them down, and stop where too many were no numbers."""
        if not self.losses:
            return
        losses, last = torch.stack(self.losses).tolist(), self.state.step
        self.losses.clear()
        rows = [self._row(last - len(losses) + i + 1, loss) for i, loss in enumerate(losses)]
        self.diary.add(rows)
        self._stop_where_broken(rows)
        self.seconds += time.monotonic() - self.looked
        self.looked = time.monotonic()
        self.watch.progress(last * self.stage.batch, self.steps * self.stage.batch)

    def _row(self, step: int, loss: float) -> dict[str, Any]:
        epoch, now = (step - 1) // self.per_epoch + 1, rate(step - 1, self.steps, self.highest)
        row = {"stage": self.stage.name, "epoch": epoch, "step": step, "rate": now}
        if math.isfinite(loss):
            return {"kind": "step", **row, "loss": loss}
        which = self._batch(step - 1).tolist()
        patches = [self.train.ids[i] for i in which] if len(self.train.ids) else which
        return {"kind": "skipped", **row, "patches": patches}

    def _stop_where_broken(self, rows: list[dict[str, Any]]) -> None:
        """Say which steps were skipped; a few in a row are no accident."""
        for row in rows:
            self.bad = self.bad + 1 if row["kind"] == "skipped" else 0
            if self.bad == IN_A_ROW:
                self._break_down(row)
            elif self.bad:
                print(f"{self.stage.name}: step {row['step']} is skipped, its loss or gradient is not finite")

    def _break_down(self, row: dict[str, Any]) -> None:
        some, count = ", ".join(map(str, row["patches"][:5])), len(row["patches"])
        raise BadPlan(
            f"{self.stage.name} training broke down at step {row['step']} of {self.steps}: {IN_A_ROW} steps in a row "
            f"had a loss or gradient that is not finite, at rate {row['rate']:.2g}, this one with {count} patches "
            f"({some}, ...; {self.diary.path} names all); the checkpoint before them is kept; "
            f"set {self.stage.name}.rate lower than {self.highest:.2g} and choose another run name"
        )

    def _measured(self) -> bool:
        """Whether the epoch that has just ended has its figures."""
        return any(row["step"] == self.state.step for row in self.diary.epochs())

    def _end_epoch(self, stop: Stop) -> None:
        epoch = self.state.step // self.per_epoch
        with self._as_published():
            logits = self._predicted(stop)
            figures = quick_figures(logits, self.valid.labels.cpu())
            better = self.stage.plan.patience and figures["valid_auc"] > self.diary.best().get("valid_auc", -1)
            if better:
                self.state.best = {name: t.detach().clone() for name, t in self.state.network.state_dict().items()}
        self.state.network.train()
        steps = [row["loss"] for row in self.diary.rows() if row["kind"] == "step" and row["epoch"] == epoch]
        row = {
            "kind": "epoch",
            "stage": self.stage.name,
            "epoch": epoch,
            "step": self.state.step,
            "train_loss": sum(steps) / max(len(steps), 1),
            **figures,
            "seconds": self.seconds,
            "images_per_second": self.per_epoch * self.stage.batch / max(self.seconds, 1e-9),
        }
        if better:  # on the disk before its figures are: they would not be asked for again
            self.checkpoint()
            self.saver.wait()
        self.diary.add([row])
        self.watch.epoch(row)
        self.seconds, self.looked, self.stopped = 0.0, time.monotonic(), self._stale()

    def _predicted(self, stop: Stop) -> Tensor:
        """Logits (n, 2) of the validation part, each process computing its share."""
        if self.ranks.world == 1:
            leave = partial(self._leave_if, stop)
            return predict(self.state.network, self.valid, precision=self.state.precision, tell=leave)
        mine = self.ranks.share(len(self.valid))
        logits = torch.zeros(len(self.valid), 2)
        part = self.valid.slice(mine.start, mine.stop)
        logits[mine.start : mine.stop] = predict(self.state.network, part, precision=self.state.precision)
        return self.ranks.total(logits.to(self.valid.device)).cpu()

    def _stale(self) -> bool:
        """Whether so many epochs brought nothing better that the plan stops here."""
        patience, epoch = self.stage.plan.patience, self.state.step // self.per_epoch
        return bool(patience) and epoch - self.diary.best().get("epoch", epoch) >= patience

    def _finish(self) -> Checkpoint:
        if self.state.best:
            self.state.network.load_state_dict(self.state.best)
        with nullcontext() if self.state.best else self._as_published():
            if self.ranks.first:
                save_weights(self.folder / FINAL, self.state, {"identity": self.identity})
                (self.folder / LATEST).unlink(missing_ok=True)
        self.ranks.largest(0, self.train.device)  # the others wait until it is there
        return self._made()

    def _made(self) -> Checkpoint:
        last = self.diary.best() if self.stage.plan.patience else self.diary.epochs()[-1]
        return Checkpoint(
            path=str(self.folder / FINAL),
            digest=sha256(self.folder / FINAL),
            stage=self.stage.name,
            epoch=last["epoch"],
            step=last["step"],
            rate=self.highest,
            figures={name: last[name] for name in ("valid_loss", "valid_accuracy", "valid_auc")},
        )

    def _as_published(self) -> AbstractContextManager[None]:
        return self.state.average.in_place() if self.state.average else nullcontext()

    def _resume(self) -> None:
        """Go on from the last checkpoint; from the end, where only the record of it was still to be made."""
        self.state.network.train()
        path, final = self.folder / LATEST, self.folder / FINAL
        self.done = final.is_file() and not path.is_file() and read_place(final).get("identity") == self.identity
        if self.done:
            self.state.step = self.steps
        elif path.is_file():
            place = read_place(path)
            identical(path, place["identity"], self.identity)
            load_state(path, self.state)
            self.seconds = place["seconds"]
            print(f"{self.stage.name}: going on from step {self.state.step} of {self.steps}")
            if place["device"] != self.device:
                print(f"It began on {place['device']} and goes on on {self.device}: the same up to rounding")


def quick_figures(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Loss, accuracy and AUC of logits (n, 2) for labels (n,), named as in `metrics.jsonl`."""
    chance = logits.double().softmax(1)[:, 1]
    return {
        "valid_loss": float(functional.cross_entropy(logits.double(), labels)),
        "valid_accuracy": float((logits.argmax(1) == labels).double().mean()),
        "valid_auc": float(roc_auc_score(labels.numpy(), chance.numpy())),
    }
