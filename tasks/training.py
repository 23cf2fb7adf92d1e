"""Tasks of the training wing: search_lr, train_frozen, fine_tune."""

from pathlib import Path
from typing import Any

from prefect import task

from pcam_model.core.errors import ConfigError
from pcam_model.registry.workspace import Workspace
from pcam_model.training import lr_finder as lr_finder
from pcam_model.training.auto_batch import Batch, find_batch_size
from pcam_model.training.checkpoint import Checkpoint
from pcam_model.training.context import TrainingContext, load_network, parts
from pcam_model.training.device import best_device, describe, local_world_size
from pcam_model.training.distributed_job import DistributedJob, run_distributed
from pcam_model.training.lr_finder import LrCurve, LrFinderConfig
from pcam_model.training.stage import Stage
from pcam_model.training.trainer import Callbacks
from pcam_model.training.weights import fingerprint
from tasks.policy import retry_policy
from tasks.progress import progress, show_table


@task(**retry_policy(hours=2))
def choose_batch_size(workspace: Workspace, context: TrainingContext, stage: Stage, start: Checkpoint | None) -> Stage:
    """The stage with its batch chosen by memory, once for the run, where the config leaves it open."""
    if stage.config.epochs == 0 or stage.config.batch_size != "auto":
        return stage

    def make(folder: Path) -> Batch:
        network, train = stage.prepare(load_network(context, start)), parts(context).batches["train"]
        return find_batch_size(stage, network, len(train), train.size, context.compute)

    inputs = {**context.inputs(), "start": _start(context, start)}
    chosen = workspace.run_step(f"batch/{stage.name}", Batch, make, inputs).batch_size
    print(f"{stage.name}.batch: {chosen}, the largest that fits on {describe(best_device())}")
    return stage.with_batch(chosen)


@task(**retry_policy(hours=12))
def find_lr(
    workspace: Workspace, context: TrainingContext, stage: Stage, config: LrFinderConfig, start: Checkpoint | None
) -> LrCurve | None:
    """How high the stage's rate may be; nothing where the config gives the rate, or leaves the stage out."""
    if stage.config.epochs == 0 or stage.config.lr != "find":
        return None

    inputs = {**context.inputs(), "start": _start(context, start)}

    def make(folder: Path) -> LrCurve:
        network, train = stage.prepare(load_network(context, start)), parts(context).batches["train"]
        stage.steps_per_epoch(len(train))
        with progress(f"LR search, {stage.name}", "steps") as tell:
            return lr_finder.find_lr(
                network, train, config, stage.multipliers, stage.batch_size, context.seed,
                (stage.name, stage.number), folder, tell, stage.view_config(0, 1, train.size), context.compute, inputs,
            )  # fmt: skip

    curve = workspace.run_step(f"lr/{stage.name}", LrCurve, make, inputs)
    print(f"LR search, {stage.name}: {curve.suggestion:.2e} ({curve.method}, after {len(curve.lrs)} steps)")
    return curve


@task(**retry_policy(hours=96))
def train_frozen(
    workspace: Workspace, context: TrainingContext, stage: Stage, curve: LrCurve | None, start: Checkpoint | None
) -> Checkpoint | None:
    """The head learns."""
    return _train(workspace, context, stage, curve, start)


@task(**retry_policy(hours=96))
def finetune(
    workspace: Workspace, context: TrainingContext, stage: Stage, curve: LrCurve | None, start: Checkpoint | None
) -> Checkpoint | None:
    """The whole network learns."""
    return _train(workspace, context, stage, curve, start)


def _train(
    workspace: Workspace, context: TrainingContext, stage: Stage, curve: LrCurve | None, start: Checkpoint | None
) -> Checkpoint | None:
    if stage.config.epochs == 0:
        return start
    if stage.config.early_stopping_patience and not sum(context.split.counts.get("test", {}).values()):
        raise ConfigError(
            f"{stage.name}.patience lets the validation part choose where training stops, but the split has no test "
            f"part to report on; set split.test, or {stage.name}.patience=0"
        )
    max_lr = _rate(stage, curve)
    inputs = {**context.inputs(), "lr": max_lr, "start": _start(context, start)}

    def make(folder: Path) -> Checkpoint:
        return _fit(context, stage, max_lr, start, folder, inputs)

    print(
        f"{stage.name}: {stage.config.epochs} epochs at up to {max_lr:.2e} on "
        f"{describe(best_device(), context.compute.precision)}"
    )
    return workspace.run_step(f"checkpoints/{stage.name}", Checkpoint, make, inputs)


def _fit(
    context: TrainingContext,
    stage: Stage,
    max_lr: float,
    start: Checkpoint | None,
    folder: Path,
    inputs: dict[str, Any],
) -> Checkpoint:
    rows = list[dict[str, Any]]()

    def epoch(row: dict[str, Any]) -> None:
        rows.append({name: value for name, value in row.items() if name not in ("kind", "step")})
        print(
            f"{stage.name} epoch {row['epoch']}/{stage.config.epochs}: loss {row['train_loss']:.4f}, valid loss "
            f"{row['valid_loss']:.4f}, accuracy {row['valid_accuracy']:.4f}, AUC {row['valid_auc']:.4f}, "
            f"{row['images_per_second']:,.0f} images/s"
        )
        show_table(f"{stage.name}-epochs", rows, f"Epochs of the {stage.name} stage")

    job = DistributedJob(
        context=context, stage=stage.resting_on(inputs), max_lr=max_lr, start=start, folder=str(folder)
    )  # fmt: skip
    ranks = local_world_size(context.compute)
    with progress(f"training, {stage.name}") as tell:
        callbacks = Callbacks(tell, epoch)
        alone = ranks == 1 and context.compute.nnodes == 1
        return job.fit(callbacks).run() if alone else run_distributed(job, ranks, callbacks)


def _start(context: TrainingContext, start: Checkpoint | None) -> str:
    return start.digest if start else fingerprint(context.model.weights)


def _rate(stage: Stage, curve: LrCurve | None) -> float:
    if stage.config.lr != "find":
        return stage.config.lr
    if curve is None:
        raise ConfigError(f"{stage.name}.lr is find, but no search was made; run the flow from its start")
    return curve.suggestion
