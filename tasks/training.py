"""Tasks of training: batch size, LR range test, frozen training, fine-tuning."""

from pathlib import Path
from typing import Any

from pcam_model.core.errors import ConfigError
from pcam_model.core.log import log
from pcam_model.registry.workspace import Workspace
from pcam_model.training import lr_finder
from pcam_model.training.auto_batch import BatchSizeChoice, find_batch_size
from pcam_model.training.callbacks import Callbacks
from pcam_model.training.checkpoint import Checkpoint
from pcam_model.training.context import TrainingContext, load_network, load_split_data
from pcam_model.training.device import best_device, describe_device, local_world_size
from pcam_model.training.distributed_job import DistributedJob, run_distributed
from pcam_model.training.lr_curve import LrCurve
from pcam_model.training.lr_finder import LrFinderConfig, LrFinderSetup
from pcam_model.training.network import weights_identity
from pcam_model.training.stage import Stage
from tasks.policy import step
from tasks.progress import GrowingTable, progress

STAGE_TITLES = {"frozen": "frozen", "finetune": "fine-tuning"}


def _batch_task_name(parameters: dict[str, Any]) -> str:
    return f"batch size, {STAGE_TITLES[parameters['stage'].name]}"


def _lr_task_name(parameters: dict[str, Any]) -> str:
    return f"LR range test, {STAGE_TITLES[parameters['stage'].name]}"


def choose_batch_size(workspace: Workspace, context: TrainingContext, stage: Stage, start: Checkpoint | None) -> Stage:
    """The stage with a batch size: the configured one, or with `auto` the largest that fits into memory."""
    if stage.config.epochs == 0 or stage.config.batch_size != "auto":
        return stage
    return stage.with_batch_size(run_batch_size_search(workspace, context, stage, start).batch_size)


@step("batch size", hours=2, run_name=_batch_task_name)
def run_batch_size_search(
    workspace: Workspace, context: TrainingContext, stage: Stage, start: Checkpoint | None
) -> BatchSizeChoice:
    """The largest batch size that fits into memory; searched once in a run."""

    def make(_folder: Path) -> BatchSizeChoice:
        network, train = stage.prepare(load_network(context, start)), load_split_data(context).loaders["train"]
        return find_batch_size(stage, network, len(train), train.image_size, context.compute)

    inputs = {**context.inputs(), "start": _start_digest(context, start)}
    choice = workspace.run_step(f"batch/{stage.name}", BatchSizeChoice, make, inputs)
    log.info("%s.batch_size: %d, the largest that fits on %s", stage.name, choice.batch_size,
             describe_device(best_device()))  # fmt: skip
    return choice


def find_lr(
    workspace: Workspace, context: TrainingContext, stage: Stage, config: LrFinderConfig, start: Checkpoint | None
) -> LrCurve | None:
    """The LR range test of a stage; None where the configuration gives the learning rate or leaves the stage out."""
    if stage.config.epochs == 0 or stage.config.lr != "find":
        return None
    return run_lr_range_test(workspace, context, stage, config, start)


@step("LR range test", hours=12, run_name=_lr_task_name)
def run_lr_range_test(
    workspace: Workspace, context: TrainingContext, stage: Stage, config: LrFinderConfig, start: Checkpoint | None
) -> LrCurve:
    """Run the LR range test of a stage; once in a run."""
    inputs = {**context.inputs(), "start": _start_digest(context, start)}

    def make(folder: Path) -> LrCurve:
        network, train = stage.prepare(load_network(context, start)), load_split_data(context).loaders["train"]
        stage.steps_per_epoch(len(train))
        with progress(f"LR range test, {STAGE_TITLES[stage.name]}", "steps") as on_progress:
            setup = LrFinderSetup(stage, config, context.seed, folder, context.compute, inputs)
            return lr_finder.find_lr(network, train, setup, on_progress)

    curve = workspace.run_step(f"lr/{stage.name}", LrCurve, make, inputs)
    log.info("LR range test, %s: %.2e (%s, after %d steps)", STAGE_TITLES[stage.name], curve.suggestion, curve.method,
             len(curve.lrs))  # fmt: skip
    return curve


def train_frozen(
    workspace: Workspace, context: TrainingContext, stage: Stage, curve: LrCurve | None, start: Checkpoint | None
) -> Checkpoint | None:
    """Train the head on the frozen body; `start` where the stage has no epochs."""
    return start if stage.config.epochs == 0 else run_frozen_stage(workspace, context, stage, curve, start)


def finetune(
    workspace: Workspace, context: TrainingContext, stage: Stage, curve: LrCurve | None, start: Checkpoint | None
) -> Checkpoint:
    """Train the whole network; `start` where the stage has no epochs."""
    if stage.config.epochs > 0:
        return run_finetune_stage(workspace, context, stage, curve, start)
    if start is None:
        raise ConfigError(
            "frozen.epochs and finetune.epochs are both 0, so nothing would be trained; raise one of them"
        )
    return start


@step("frozen training", hours=96)
def run_frozen_stage(
    workspace: Workspace, context: TrainingContext, stage: Stage, curve: LrCurve | None, start: Checkpoint | None
) -> Checkpoint:
    """Train the head on the frozen body."""
    return _run_stage(workspace, context, stage, curve, start)


@step("fine-tuning", hours=96)
def run_finetune_stage(
    workspace: Workspace, context: TrainingContext, stage: Stage, curve: LrCurve | None, start: Checkpoint | None
) -> Checkpoint:
    """Train the whole network."""
    return _run_stage(workspace, context, stage, curve, start)


def _run_stage(
    workspace: Workspace, context: TrainingContext, stage: Stage, curve: LrCurve | None, start: Checkpoint | None
) -> Checkpoint:
    if stage.config.early_stopping_patience and not sum(context.split.counts.get("test", {}).values()):
        raise ConfigError(
            f"{stage.name}.early_stopping_patience lets the validation split choose where training stops, but the "
            f"split has no test patches to report on; set split.test, or {stage.name}.early_stopping_patience=0"
        )
    max_lr = _max_lr(stage, curve)
    inputs = {**context.inputs(), "lr": max_lr, "start": _start_digest(context, start)}

    def make(folder: Path) -> Checkpoint:
        return _train(context, stage, max_lr, start, folder, inputs)

    device = describe_device(best_device(), context.compute.precision)
    log.info("%s: epochs %d, maximum learning rate %.2e, on %s", stage.name, stage.config.epochs, max_lr, device)
    return workspace.run_step(f"checkpoints/{stage.name}", Checkpoint, make, inputs)


def _train(
    context: TrainingContext,
    stage: Stage,
    max_lr: float,
    start: Checkpoint | None,
    folder: Path,
    inputs: dict[str, Any],
) -> Checkpoint:
    job = DistributedJob(
        context=context, stage=stage.with_inputs(inputs), max_lr=max_lr, start=start, folder=str(folder)
    )
    processes = local_world_size(context.compute, stage.batch_size)
    with progress(f"training, {STAGE_TITLES[stage.name]}") as on_progress:
        callbacks = Callbacks(on_progress, EpochLog(stage))
        is_single = processes == 1 and context.compute.nnodes == 1
        return job.trainer(callbacks).run() if is_single else run_distributed(job, processes, callbacks)


class EpochLog:
    """Callback that logs an epoch's metrics, and shows those of all epochs as a table on Prefect's page."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.rows: list[dict[str, Any]] = []
        self.table = GrowingTable(f"{stage.name}-epochs", f"Epochs of the {stage.name} stage")

    def __call__(self, row: dict[str, Any]) -> None:
        """Log and show one epoch's metrics."""
        self.rows.append({name: value for name, value in row.items() if name not in ("kind", "step")})
        log.info(
            "%s epoch %d/%d: loss %.4f, valid loss %.4f, accuracy %.4f, AUC %.4f, %.0f patches/s",
            self.stage.name, row["epoch"], self.stage.config.epochs, row["train_loss"], row["valid_loss"],
            row["valid_accuracy"], row["valid_auc"], row["images_per_second"],
        )  # fmt: skip
        self.table.show(self.rows)


def _start_digest(context: TrainingContext, start: Checkpoint | None) -> str:
    return start.digest if start else weights_identity(context.model)


def _max_lr(stage: Stage, curve: LrCurve | None) -> float:
    if stage.config.lr != "find":
        return stage.config.lr
    if curve is None:
        raise ConfigError(f"{stage.name}.lr is find, but no LR range test was run; run the flow from its start")
    return curve.suggestion
