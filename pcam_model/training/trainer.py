"""Training of one stage, from its last checkpoint to its end."""

import signal
import time
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from pcam_model.core.errors import Interrupted
from pcam_model.core.log import log
from pcam_model.data.patch_loader import PatchLoader
from pcam_model.training.batch import BatchSource
from pcam_model.training.callbacks import Callbacks
from pcam_model.training.checkpoint import Checkpoint
from pcam_model.training.device import ComputeConfig, tune_malloc
from pcam_model.training.distributed import SINGLE_PROCESS, DistContext
from pcam_model.training.early_stopping import EarlyStopping
from pcam_model.training.interrupt import RESUME_HINT, StopRequest, graceful_stop
from pcam_model.training.metrics_log import LossBuffer, MetricsLog, epoch_row
from pcam_model.training.network import PatchNetwork
from pcam_model.training.schedule import Schedule
from pcam_model.training.stage import Stage
from pcam_model.training.stage_checkpoints import StageCheckpoints
from pcam_model.training.step import train_step
from pcam_model.training.train_state import ENGINE_VERSION, create_train_state
from pcam_model.training.validation import predict_distributed, validation_metrics

SIGNAL_SYNC_STEPS = 16  # GPUs compare their signals every so many steps, since they have to finish for it
FLUSHES_PER_EPOCH = 10  # times an epoch that losses are read from the device


class Trainer:
    """Trains one stage: `Trainer(...).run()` returns its checkpoint.

    Which patches form a batch, their augmentation and dropout are functions of (seed, stage, epoch, step), so a run
    that is resumed from a checkpoint ends with the same weights as one that was never interrupted.
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
        """Set up the first step; nothing is read from or written to `folder` before `resume` or `run`.

        Args:
            network: prepared for the stage; changed in place.
            train: the training split.
            valid: the validation split, for the metrics of each epoch.
            stage: name, configuration and inputs of the stage.
            max_lr: the cycle's maximum learning rate, of the last layer group.
            seed: of all random numbers.
            folder: of this stage: checkpoints and `metrics.jsonl`.
            callbacks: for progress and epoch metrics.
            compute: precision, and when to write checkpoints.
            dist: rank among the processes that share each batch; rank 0 writes.

        Raises:
            ConfigError: the batch is larger than the training split.
        """
        self.valid, self.stage, self.device = valid, stage, train.device
        self.folder, self.callbacks, self.compute = folder, callbacks or Callbacks(), compute or ComputeConfig()
        self.dist, self.schedule = dist, Schedule(stage, train, max_lr, seed)
        self.batches = BatchSource(train, network)
        ema = stage.make_ema(network, self.schedule.steps)
        self.state = create_train_state(network.train(), stage.lr_multipliers, train.device, self.compute, ema, dist)
        identity = {
            **stage.identity,
            "stage": stage.name,
            "lr": max_lr,
            "seed": seed,
            "patches": len(train),
            "image_size": train.image_size,
            "engine": ENGINE_VERSION,
        }
        self.checkpoints = StageCheckpoints(folder, identity, self.compute, writes=dist.is_main)
        self.metrics_log = MetricsLog(folder, writes=dist.is_main)
        self.losses = LossBuffer(self.schedule, self.metrics_log)
        self.early_stopping = EarlyStopping(stage.config.early_stopping_patience, self.metrics_log)
        self.resumed = self.finished = self.stops_early = False
        self.first_step, self.epoch_seconds, self.clock = 0, 0.0, time.monotonic()

    def resume(self) -> "Trainer":
        """Load the last checkpoint of the stage where there is one, and forget metrics of later steps.

        A damaged checkpoint is refused with a warning, and the one before it is loaded.

        Raises:
            CheckpointMismatchError: the checkpoint is of another training.
            CheckpointError: it is of another network, or the metrics that led to it are damaged.
        """
        self.finished = self.checkpoints.is_finished()
        if self.finished:
            self.state.step = self.schedule.steps
        elif metadata := self.checkpoints.load_latest(self.state):
            self.epoch_seconds = metadata["seconds"]
            log.info("%s: resumed at step %d of %d", self.stage.name, self.state.step, self.schedule.steps)
        fell_back = self.checkpoints.latest.fell_back
        self.metrics_log.truncate(self.state.step, validated=not fell_back)
        if fell_back:
            self.dist.barrier()  # the other processes have loaded the same
            self.checkpoints.latest.restore()
        self.losses.resume()
        self.stops_early = self.early_stopping.is_stale(self.state.step // self.schedule.steps_per_epoch)
        self.checkpoints.start_clock(self.state.step)
        self.resumed, self.first_step, self.clock = True, self.state.step, time.monotonic()
        return self

    def run(self) -> Checkpoint:
        """Resume, then train to the end of the cycle.

        Raises:
            Interrupted: SIGTERM or SIGINT asked to stop; the whole state is saved.
            DivergenceError: loss or gradient were not finite for several steps in a row.
            DeviceMemoryError: not even two patches at a time fit into memory.
            CheckpointError: see `resume`.
        """
        tune_malloc()
        if not self.resumed:
            self.resume()
        if self.finished:
            return self._result()
        try:
            with graceful_stop() as stop:
                if self.state.step and self.schedule.is_epoch_end(self.state.step) and not self._is_validated():
                    self._end_epoch(stop)
                while self.state.step < self.schedule.steps and not self.stops_early:
                    self.step()
                    self._after_step(stop)
        finally:
            self.batches.close()
            self.checkpoints.wait()
        return self._finish()

    def step(self) -> None:
        """Take one optimizer step."""
        step, schedule, batch_slice = self.state.step, self.schedule, self.dist.batch_slice(self.stage.batch_size)
        batch = self.batches.batch(schedule.batch_spec(step, batch_slice))
        loss = train_step(
            self.state,
            batch,
            schedule.lr(step),
            schedule.momentum(step),
            label_smoothing=self.stage.config.label_smoothing,
            max_grad_norm=self.stage.config.max_grad_norm,
        )
        if self.compute.compile and step == self.first_step:
            float(loss)
            log.info("Compiled in %.0f s, part of the first epoch's seconds", time.monotonic() - self.clock)
        self.losses.add(loss)
        if not schedule.is_epoch_end(step + 1):  # after an epoch's last step comes its validation
            self.batches.prefetch(schedule.batch_spec(step + 1, batch_slice))

    def checkpoint(self) -> None:
        """Save the whole state, in the background."""
        self.flush_losses()
        self.checkpoints.save_latest(self.state, self.epoch_seconds)

    def flush_losses(self) -> None:
        """Move losses from the device to the metrics log, and report progress."""
        if self.losses.flush(self.state.step):
            now = time.monotonic()
            self.epoch_seconds, self.clock = self.epoch_seconds + now - self.clock, now
            batch_size = self.stage.batch_size
            self.callbacks.on_progress(self.state.step * batch_size, self.schedule.steps * batch_size)

    def _after_step(self, stop: StopRequest) -> None:
        """Flush, checkpoint, stop and end the epoch where it is due."""
        done, ends_epoch = self.state.step, self.schedule.is_epoch_end(self.state.step)
        if ends_epoch or done % max(1, self.schedule.steps_per_epoch // FLUSHES_PER_EPOCH) == 0:
            self.flush_losses()
        if ends_epoch or self.checkpoints.is_due(done):
            self.checkpoint()
        self._stop_if_requested(stop)
        if ends_epoch:
            self._end_epoch(stop)

    def _stop_if_requested(self, stop: StopRequest) -> None:
        """Where a signal asks to stop, save the state and raise Interrupted."""
        requested = self._requested_signal(stop)
        if requested:
            if self.checkpoints.saved_step != self.state.step:
                self.checkpoint()
            self.checkpoints.wait()
            step = f"step {self.state.step} of {self.schedule.steps}"
            message = f"{self.stage.name} training stopped by {requested.name} after {step}; {RESUME_HINT}"
            log.info(message)
            raise Interrupted(message)

    def _requested_signal(self, stop: StopRequest) -> signal.Signals | None:
        """The signal that asks to stop; several processes agree on one after the same step."""
        if self.dist.world_size == 1:
            return stop.signal
        is_due = self.state.step % SIGNAL_SYNC_STEPS == 0 or self.schedule.is_epoch_end(self.state.step)
        if self.device.type == "cuda" and not is_due:
            return None
        number = self.dist.max_over_ranks(int(stop.signal or 0), self.device)
        return signal.Signals(number) if number else None

    def _end_epoch(self, stop: StopRequest) -> None:
        """Validate the epoch, save its weights, log its row, and decide whether training stops early."""
        epoch = self.state.step // self.schedule.steps_per_epoch
        with self._final_weights():
            metrics, is_best = self._validate(stop)
            self.checkpoints.save_epoch(self.state.network, epoch, metrics)
        self.state.network.train()
        row = epoch_row(self.schedule, self.state.step, self.losses.epoch_losses(epoch), metrics, self.epoch_seconds)
        if is_best:  # saved before its row is, after which it would not be validated again
            self.checkpoint()
            self.checkpoints.wait()
        self.metrics_log.append([row])
        self.checkpoints.prune_epochs(
            [row["epoch"] for row in self.metrics_log.epochs()], self.metrics_log.best_epoch()["epoch"]
        )
        self.callbacks.on_epoch(row)
        self.stops_early = self.early_stopping.is_stale(epoch)
        self.epoch_seconds, self.clock = 0.0, time.monotonic()

    def _validate(self, stop: StopRequest) -> tuple[dict[str, float], bool]:
        """Validation metrics, and whether these are the best weights so far, which early stopping then keeps."""
        logits = predict_distributed(self.state, self.valid, partial(self._stop_if_requested, stop))
        metrics = validation_metrics(logits, self.valid.labels.cpu())
        is_best = self.early_stopping.is_best(metrics["valid_auc"])
        if is_best:
            self.state.best_weights = {name: t.detach().clone() for name, t in self.state.network.state_dict().items()}
        return metrics, is_best

    def _is_validated(self) -> bool:
        """Whether the epoch that has just ended has its row."""
        return any(row["step"] == self.state.step for row in self.metrics_log.epochs())

    def _finish(self) -> Checkpoint:
        """Save the final weights."""
        if self.state.best_weights:
            self.state.network.load_state_dict(self.state.best_weights)
        with nullcontext() if self.state.best_weights else self._final_weights():
            self.checkpoints.save_final(self.state.network, self.early_stopping.final_row()["epoch"])
        self.dist.barrier()  # the other processes wait until the file is there
        return self._result()

    def _final_weights(self) -> AbstractContextManager[None]:
        """Inside, the network has the weights that are validated and published: the moving average where there is."""
        return self.state.ema.applied() if self.state.ema else nullcontext()

    def _result(self) -> Checkpoint:
        row, max_lr = self.early_stopping.final_row(), self.schedule.max_lr
        return Checkpoint.from_row(self.checkpoints.final, self.stage.name, row, max_lr)
