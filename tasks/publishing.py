"""Tasks of the registry: reserve a run, publish it, show its results."""

from pathlib import Path

import numpy as np
from prefect import runtime

from pcam_model.config import TrainConfig
from pcam_model.core.errors import ModelError
from pcam_model.core.estimate import METRIC_TITLES, describe_estimate
from pcam_model.core.files import sha256, write_atomic
from pcam_model.core.log import RESULT, log
from pcam_model.core.model_metadata import ONNX_FILE, ModelMetadata
from pcam_model.core.paths import cache_dir, resolve_store_uri
from pcam_model.core.platt_scaling import PlattScaling
from pcam_model.core.stage_names import STAGE_NAMES
from pcam_model.data.pack import load_patches, load_table
from pcam_model.data.patch_loader import IMAGENET_MEAN, IMAGENET_STD
from pcam_model.data.split import split_rows
from pcam_model.evaluation.drift_reference import REFERENCE_SIZE, draw_rows, drift_sample, write_reference
from pcam_model.evaluation.evidence import Report
from pcam_model.registry.run_status import clear_status
from pcam_model.registry.runs import PublishedRun, validate_run_name
from pcam_model.registry.workspace import Workspace
from pcam_model.training.checkpoint import Checkpoint
from pcam_model.training.context import TrainingContext, load_network
from pcam_model.training.metrics_log import METRICS_FILE
from pcam_model.training.model_io import save_model, versions
from pcam_model.training.network import build_network, describe_weights
from pcam_model.training.onnx_export import export_onnx
from tasks.policy import retried, step
from tasks.progress import name_flow_run, show_text
from tasks.run_status import default_run_name

ONNX_PATCHES = 64  # on which model.onnx is compared with the network


@retried(hours=0.5, retries=1, first_delay_s=3)  # who starts a run learns soon what is wrong
def begin_run(config: TrainConfig) -> Workspace:
    """The run's workspace; fails early on what would fail late. A run that is new is not written to the store yet.

    Raises:
        ConfigError: the store has a run of this name with another configuration.
        StoreError: the store cannot be read or written.
        WeightsError: the initial weights are not available.
    """
    run = validate_run_name(config.run or default_run_name(str(runtime.flow_run.name), str(runtime.flow_run.id)))
    name_flow_run(run)
    workspace = Workspace(run=run, store=resolve_store_uri(config.store.uri), folder=str(cache_dir() / "work" / run))
    if workspace.exists_in_store():
        _reserve(workspace, config)
    if config.model.weights != "none":
        build_network(config.model, config.seed, quiet=True)
    log.info("Run %s, in store %s", run, workspace.store)
    return workspace


@retried(hours=0.5)
def reserve_run(workspace: Workspace, config: TrainConfig) -> None:
    """Write the configuration to the store, or compare it with the one that is there.

    Raises:
        ConfigError: the store has a run of this name with another configuration.
    """
    _reserve(workspace, config)


def _reserve(workspace: Workspace, config: TrainConfig) -> None:
    workspace.reserve(config.result_keys(), versions())
    clear_status(workspace.run_store.store, workspace.run)


@step("publish", hours=6)
def publish(
    workspace: Workspace,
    config: TrainConfig,
    context: TrainingContext,
    checkpoint: Checkpoint,
    report: Report,
) -> PublishedRun:
    """Upload the model beside the report, then write the run's manifest, last."""

    def make(folder: Path) -> ModelMetadata:
        model = ModelMetadata(
            run=workspace.run,
            arch=config.model.arch,
            image_size=config.model.image_size,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            mpp=context.pack.mpp,
            mpp_assumed=context.pack.mpp_assumed,
            tta=config.score.tta,
            temperature=report.temperature,
            bias=report.bias,
            prevalence=config.score.prevalence,
            threshold=report.thresholds.get(report.operating_point, 0.5),
            operating_point=report.operating_point,
            thresholds=report.thresholds,
            conformal=report.conformal,
            initial_weights=describe_weights(config.model),
            stage=checkpoint.stage,
            weights_sha256=checkpoint.digest,
            pack_digest=context.pack.digest,
            archive_sha256=context.pack.archive,
            split=context.split.meaning,
            config=config.result_keys(),
            versions=versions(),
            onnx_sha256=_write_onnx(folder, config, context, checkpoint),
        )
        _write_drift_reference(folder, context, checkpoint, model.scaling)
        return save_model(folder, checkpoint, model)

    workspace.run_step("model", ModelMetadata, make, {"weights": checkpoint.digest})
    _write_metrics(workspace)
    published = workspace.publish()
    workspace.cleanup()
    return published


def show_results(workspace: Workspace, report: Report, published: PublishedRun) -> None:
    """Log the addresses of report and model, and show them with the metrics on the flow run's page."""
    addresses = {"Report": f"{published.uri}/report/report.html", "Model": f"{published.uri}/model"}
    for title, address in addresses.items():
        log.info("%s: %s", title, address, extra=RESULT)
    splits = list(report.figures)
    lines = [f"# Run {workspace.run}", ""]
    lines += [f"- {title}: `{address}`" for title, address in addresses.items()]
    lines += ["", f"| | {' | '.join(splits)} |", f"|---{'|---' * len(splits)}|"]
    for name, title in METRIC_TITLES.items():
        estimates = (report.figures[split].get(name) for split in splits)
        lines.append(f"| {title} | {' | '.join(describe_estimate(each) if each else '–' for each in estimates)} |")
    show_text("results", "\n".join(lines), f"Metrics of run {workspace.run}, and where report and model are")


def _write_onnx(folder: Path, config: TrainConfig, context: TrainingContext, checkpoint: Checkpoint) -> str:
    """Write model.onnx, compare it with the network on patches of the run, and return its SHA-256.

    Empty where the network cannot be exported: the model is published without the file.
    """
    patches = np.array(load_patches(context.pack)[:ONNX_PATCHES])
    try:
        network = load_network(context, checkpoint)
        difference = export_onnx(folder / ONNX_FILE, network, config.model.image_size, patches)
    except ModelError as error:
        log.warning("%s. The model is published without %s: `pcam predict --backend onnx` will refuse it", error,
                    ONNX_FILE)  # fmt: skip
        return ""
    log.info("%s: logits within %.1e of the network's on %d patches of this run", ONNX_FILE, difference, len(patches))
    return sha256(folder / ONNX_FILE)


def _write_drift_reference(
    folder: Path, context: TrainingContext, checkpoint: Checkpoint, scaling: PlattScaling
) -> None:
    """Write the reference that `pcam drift` compares new patches with: held-out patches, none trained on."""
    table = load_table(context.pack)
    held_out = [rows for split, rows in split_rows(context.split, table).items() if split != "train"]
    rows = np.sort(np.concatenate(held_out))
    rows = rows[draw_rows(len(rows), REFERENCE_SIZE, context.seed)]
    slides = table["slide"].iloc[rows]
    write_reference(
        folder,
        drift_sample(
            load_network(context, checkpoint).eval(),
            np.array(load_patches(context.pack)[rows]),
            context.model.image_size,
            scaling,
            tuple(slides.astype(str)) if slides.notna().all() else (),
        ),
    )


def _write_metrics(workspace: Workspace) -> None:
    """Write the metrics of both stages into one file beside the steps."""
    files = [workspace.step_dir(f"checkpoints/{stage}") / METRICS_FILE for stage in STAGE_NAMES]
    lines = b"".join(file.read_bytes() for file in files if file.is_file())
    write_atomic(Path(workspace.folder) / METRICS_FILE, lines)
