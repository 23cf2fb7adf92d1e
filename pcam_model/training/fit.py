"""One stage of training, from wherever it was left to its end."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from pcam_model.data.batches import Batches
from pcam_model.errors import BadPlan
from pcam_model.files import sha256
from pcam_model.training.checkpoint import FINAL, LATEST, Checkpoint, load_state, read_place, save_state, save_weights
from pcam_model.training.diary import Diary
from pcam_model.training.network import PatchNetwork
from pcam_model.training.one_cycle import momentum, rate
from pcam_model.training.optimizer import make_optimizer
from pcam_model.training.stage import Stage
from pcam_model.training.step import TrainState, predict, train_step

LOOKS = 10  # times an epoch that losses are read from the device
CHECKPOINT_SECONDS = 60.0


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
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
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
            checkpoint_seconds: how often the whole state is saved.

        Raises:
            BadPlan: the batch is larger than the part, or the checkpoint is of another training.
        """
        self.train, self.valid, self.stage, self.highest, self.seed = train, valid, stage, highest, seed
        self.folder, self.watch, self.checkpoint_seconds = folder, watch or Watch(), checkpoint_seconds
        self.per_epoch = stage.steps_an_epoch(len(train))
        self.steps = self.per_epoch * stage.plan.epochs
        self.state = TrainState(
            network, make_optimizer(network, stage.multipliers), average=stage.average(network, self.steps)
        )
        self.identity = {**stage.identity, "stage": stage.name, "rate": highest, "seed": seed}
        self._resume()
        self.diary = Diary(folder, self.state.step)
        self.stopped = self._stale()
        self.losses: list[Tensor] = []
        self.ordered, self.order = -1, torch.empty(0, dtype=torch.int64)
        self.saved = self.looked = time.monotonic()
        self.seconds = 0.0

    def run(self) -> Checkpoint:
        """Train to the end of the cycle."""
        while self.state.step < self.steps and not self.stopped:
            self._one_step()
            done = self.state.step
            if done % self.per_epoch == 0 or done % max(1, self.per_epoch // LOOKS) == 0:
                self._look()
            if done % self.per_epoch == 0:
                self._end_epoch(done // self.per_epoch)
            elif time.monotonic() - self.saved > self.checkpoint_seconds:
                self.checkpoint()
        return self._finish()

    def checkpoint(self) -> None:
        """Save the whole state, beside, then in place of the last one."""
        self._look()
        save_state(self.folder / LATEST, self.state, {"identity": self.identity})
        self.saved = time.monotonic()

    def _one_step(self) -> None:
        step, place = self.state.step, (self.stage.number, *divmod(self.state.step, self.per_epoch))
        which = self._order(place[1])[place[2] * self.stage.plan.batch :][: self.stage.plan.batch]
        sight = self.stage.sight(step, self.steps, self.train.size)
        images, labels = self.train.augmented(which, self.seed, *place, sight=sight)
        now = rate(step, self.steps, self.highest)
        loss = train_step(
            self.state, images, labels, now, momentum(step, self.steps), self.seed, *place,
            smoothing=self.stage.plan.smoothing, clip=self.stage.plan.clip,
        )  # fmt: skip
        self.losses.append(loss)

    def _order(self, epoch: int) -> Tensor:
        if self.ordered != epoch:
            self.ordered, self.order = epoch, self.train.order(self.seed, self.stage.number, epoch)
        return self.order

    def _look(self) -> None:
        """Read the losses since the last look, note them down, and stop where they are no numbers."""
        if not self.losses:
            return
        losses, last = torch.stack(self.losses).tolist(), self.state.step
        self.losses.clear()
        rows = [self._row(last - len(losses) + i + 1, loss) for i, loss in enumerate(losses)]
        for row in rows:
            if not math.isfinite(row["loss"]):
                raise BadPlan(
                    f"{self.stage.name} training broke down at step {row['step']} of {self.steps}: its loss is "
                    f"{row['loss']} at rate {row['rate']:.2g}; set {self.stage.name}.rate lower than {self.highest:.2g}"
                )
        self.diary.add(rows)
        self.seconds += time.monotonic() - self.looked
        self.looked = time.monotonic()
        self.watch.progress(last * self.stage.plan.batch, self.steps * self.stage.plan.batch)

    def _row(self, step: int, loss: float) -> dict[str, Any]:
        epoch, now = (step - 1) // self.per_epoch + 1, rate(step - 1, self.steps, self.highest)
        return {"kind": "step", "stage": self.stage.name, "epoch": epoch, "step": step, "loss": loss, "rate": now}

    def _end_epoch(self, epoch: int) -> None:
        with self._as_published():
            figures = quick_figures(predict(self.state.network, self.valid), self.valid.labels.cpu())
            if self.stage.plan.patience and figures["valid_auc"] > self.diary.best().get("valid_auc", -1):
                self.state.best = {name: t.detach().clone() for name, t in self.state.network.state_dict().items()}
        self.state.network.train()
        steps = [row for row in self.diary.rows() if row["kind"] == "step" and row["epoch"] == epoch]
        row = {
            "kind": "epoch",
            "stage": self.stage.name,
            "epoch": epoch,
            "step": self.state.step,
            "train_loss": sum(row["loss"] for row in steps) / len(steps),
            **figures,
            "seconds": self.seconds,
            "images_per_second": self.per_epoch * self.stage.plan.batch / self.seconds,
        }
        self.diary.add([row])
        self.watch.epoch(row)
        self.checkpoint()
        self.seconds, self.looked, self.stopped = 0.0, time.monotonic(), self._stale()

    def _stale(self) -> bool:
        """Whether so many epochs brought nothing better that the plan stops here."""
        patience, epoch = self.stage.plan.patience, self.state.step // self.per_epoch
        return bool(patience) and epoch - self.diary.best().get("epoch", epoch) >= patience

    def _finish(self) -> Checkpoint:
        if self.state.best:
            self.state.network.load_state_dict(self.state.best)
        with nullcontext() if self.state.best else self._as_published():
            save_weights(self.folder / FINAL, self.state)
        (self.folder / LATEST).unlink(missing_ok=True)
        last = self.diary.best() if self.state.best else self.diary.epochs()[-1]
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
        self.state.network.train()
        path = self.folder / LATEST
        if not path.is_file():
            return
        found = read_place(path)["identity"]
        for key in sorted({*found, *self.identity}):
            if found.get(key) != self.identity.get(key):
                raise BadPlan(
                    f"{path} is a checkpoint of another training: its {key} is {found.get(key)}, here it is "
                    f"{self.identity.get(key)}; give this run another name, or the same plan"
                )
        load_state(path, self.state)
        print(f"{self.stage.name}: going on from step {self.state.step} of {self.steps}")


def quick_figures(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Loss, accuracy and AUC of logits (n, 2) for labels (n,), named as in `metrics.jsonl`."""
    chance = logits.double().softmax(1)[:, 1]
    return {
        "valid_loss": float(functional.cross_entropy(logits.double(), labels)),
        "valid_accuracy": float((logits.argmax(1) == labels).double().mean()),
        "valid_auc": float(roc_auc_score(labels.numpy(), chance.numpy())),
    }
