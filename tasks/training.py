"""Tasks of the training wing: search_lr, train_frozen, fine_tune."""

from pathlib import Path
from typing import Any

from prefect import task

from pcam_model.core.errors import BadPlan
from pcam_model.registry.workspace import Workspace
from pcam_model.training import lr_finder as lr_search
from pcam_model.training.checkpoint import Checkpoint
from pcam_model.training.device import best_device, describe, ranks_here
from pcam_model.training.trainer import Watch
from pcam_model.training.auto_batch import Batch, largest_batch
from pcam_model.training.distributed_job import Job, run_job
from pcam_model.training.lr_finder import LrCurve, SearchPlan
from pcam_model.training.context import Material, network_at, parts
from pcam_model.training.stage import Stage
from pcam_model.training.weights import fingerprint
from tasks.policy import within
from tasks.progress import progress, show_table


@task(**within(hours=2))
def settle(place: Workspace, material: Material, stage: Stage, start: Checkpoint | None) -> Stage:
    """The stage with its batch chosen by memory, once for the run, where the plan leaves it open."""
    if stage.plan.epochs == 0 or stage.plan.batch != "auto":
        return stage

    def make(folder: Path) -> Batch:
        network, train = stage.prepare(network_at(material, start)), parts(material).batches["train"]
        return largest_batch(stage, network, len(train), train.size, material.compute)

    inputs = {**material.inputs(), "start": _start(material, start)}
    chosen = place.once(f"batch/{stage.name}", Batch, make, inputs).batch
    print(f"{stage.name}.batch: {chosen}, the largest that fits on {describe(best_device())}")
    return stage.with_batch(chosen)


@task(**within(hours=12))
def search_lr(
    place: Workspace, material: Material, stage: Stage, plan: SearchPlan, start: Checkpoint | None
) -> LrCurve | None:
    """How high the stage's rate may be; nothing where the plan gives the rate, or leaves the stage out."""
    if stage.plan.epochs == 0 or stage.plan.rate != "search":
        return None

    inputs = {**material.inputs(), "start": _start(material, start)}

    def make(folder: Path) -> LrCurve:
        network, train = stage.prepare(network_at(material, start)), parts(material).batches["train"]
        stage.steps_an_epoch(len(train))
        with progress(f"LR search, {stage.name}", "steps") as tell:
            return lr_search.search_lr(
                network, train, plan, stage.multipliers, stage.batch, material.seed,
                (stage.name, stage.number), folder, tell, stage.sight(0, 1, train.size), material.compute, inputs,
            )  # fmt: skip

    curve = place.once(f"lr/{stage.name}", LrCurve, make, inputs)
    print(f"LR search, {stage.name}: {curve.suggestion:.2e} ({curve.how}, after {len(curve.rates)} steps)")
    return curve


@task(**within(hours=96))
def train_frozen(
    place: Workspace, material: Material, stage: Stage, curve: LrCurve | None, start: Checkpoint | None
) -> Checkpoint | None:
    """The head learns."""
    return _train(place, material, stage, curve, start)


@task(**within(hours=96))
def fine_tune(
    place: Workspace, material: Material, stage: Stage, curve: LrCurve | None, start: Checkpoint | None
) -> Checkpoint | None:
    """The whole network learns."""
    return _train(place, material, stage, curve, start)


def _train(
    place: Workspace, material: Material, stage: Stage, curve: LrCurve | None, start: Checkpoint | None
) -> Checkpoint | None:
    if stage.plan.epochs == 0:
        return start
    if stage.plan.patience and not sum(material.split.counts.get("test", {}).values()):
        raise BadPlan(
            f"{stage.name}.patience lets the validation part choose where training stops, but the split has no test "
            f"part to report on; set split.test, or {stage.name}.patience=0"
        )
    highest = _rate(stage, curve)
    inputs = {**material.inputs(), "rate": highest, "start": _start(material, start)}

    def make(folder: Path) -> Checkpoint:
        return _fit(material, stage, highest, start, folder, inputs)

    print(
        f"{stage.name}: {stage.plan.epochs} epochs at up to {highest:.2e} on "
        f"{describe(best_device(), material.compute.precision)}"
    )
    return place.once(f"checkpoints/{stage.name}", Checkpoint, make, inputs)


def _fit(
    material: Material, stage: Stage, highest: float, start: Checkpoint | None, folder: Path, inputs: dict[str, Any]
) -> Checkpoint:
    rows = list[dict[str, Any]]()

    def epoch(row: dict[str, Any]) -> None:
        rows.append({name: value for name, value in row.items() if name not in ("kind", "step")})
        print(
            f"{stage.name} epoch {row['epoch']}/{stage.plan.epochs}: loss {row['train_loss']:.4f}, valid loss "
            f"{row['valid_loss']:.4f}, accuracy {row['valid_accuracy']:.4f}, AUC {row['valid_auc']:.4f}, "
            f"{row['images_per_second']:,.0f} images/s"
        )
        show_table(f"{stage.name}-epochs", rows, f"Epochs of the {stage.name} stage")

    job = Job(
        material=material, stage=stage.resting_on(inputs), highest=highest, start=start, folder=str(folder)
    )  # fmt: skip
    ranks = ranks_here(material.compute)
    with progress(f"training, {stage.name}") as tell:
        watch = Watch(tell, epoch)
        alone = ranks == 1 and material.compute.machines == 1
        return job.fit(watch).run() if alone else run_job(job, ranks, watch)


def _start(material: Material, start: Checkpoint | None) -> str:
    return start.digest if start else fingerprint(material.network.weights)


def _rate(stage: Stage, curve: LrCurve | None) -> float:
    if stage.plan.rate != "search":
        return stage.plan.rate
    if curve is None:
        raise BadPlan(f"{stage.name}.rate is search, but no search was made; run the flow from its start")
    return curve.suggestion
