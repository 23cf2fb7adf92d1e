"""Weights of single epochs in the store, of finished and of running stages: list and download them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pcam_model.core.checkpoint_names import epoch_file, epoch_of
from pcam_model.core.errors import ModelError, StoreError
from pcam_model.core.locks import file_lock
from pcam_model.core.metrics_rows import parse_metrics
from pcam_model.core.parsing import RESTORE, parse_record
from pcam_model.core.retry import retry_call
from pcam_model.core.schema import Record
from pcam_model.core.stage_names import STAGE_NAMES
from pcam_model.core.write_guard import write_guard
from pcam_model.registry.backends.base import NotFound
from pcam_model.registry.live_sync import LIVE_DIR, local_name, read_live
from pcam_model.registry.manifest import FileRecord, StepManifest
from pcam_model.registry.runs import RunStore
from pcam_model.registry.safe_formats import refuse_pickle
from pcam_model.registry.transfer import fetch_verified, is_same_file

CHECKPOINTS_DIR, FINAL_FILE, METRICS_FILE = "checkpoints", "final.safetensors", "metrics.jsonl"
FETCH_ATTEMPTS = 3


class StoredCheckpoint(Record):
    """The weights of one epoch of a stage."""

    stage: str
    epoch: int
    valid_auc: float | None
    best: bool
    """Whether no epoch of the stage had a higher validation AUC."""
    final: bool
    """Whether it is the result of the stage."""
    key: str
    """Its key in the store."""
    file: FileRecord


class _StageFiles(NamedTuple):
    keys: dict[str, tuple[str, FileRecord]]
    """Key and record of each file, by its file name."""
    final_epoch: int | None
    """The epoch of the final weights; None while the stage is running."""


def list_checkpoints(run: RunStore) -> list[StoredCheckpoint]:
    """The stored checkpoints of a run, published or running, in the order of training: by stage and epoch."""
    stored = set(run.store.folders(_key(run, "")))
    stages = [stage for stage in STAGE_NAMES if stage in stored]
    return [checkpoint for stage in stages for checkpoint in _stage_checkpoints(run, stage)]


def fetch_checkpoint(run: RunStore, name: str, folder: Path) -> tuple[StoredCheckpoint, Path]:
    """Download the weights of one epoch, verified, as `<folder>/<stage>-epoch-0003.safetensors`.

    Args:
        run: published or running.
        name: `best`, `final` or an epoch's number, of the last stage that has any; or of a stage, as `frozen/best`.
        folder: made where it does not exist.

    Raises:
        ModelError: there is no such checkpoint, or it is damaged.
        StoreError: `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file; name a folder for the checkpoint")

    def fetch() -> tuple[StoredCheckpoint, Path]:
        checkpoint = _select(run, name, list_checkpoints(run))
        path = folder / f"{checkpoint.stage}-{epoch_file(checkpoint.epoch)}"
        with write_guard(folder), file_lock(folder / ".lock"):
            if not is_same_file(path, checkpoint.file):
                fetch_verified(run.store, checkpoint.key, path, checkpoint.file)
        return checkpoint, path

    checkpoint, path = retry_call(  # a running stage may have deleted it since it was listed
        fetch, retry_on=lambda error: isinstance(error, NotFound), attempts=FETCH_ATTEMPTS, first_wait_s=0.0
    )
    refuse_pickle(path, checkpoint.key)
    return checkpoint, path


def _select(run: RunStore, name: str, checkpoints: list[StoredCheckpoint]) -> StoredCheckpoint:
    stage, _, which = name.rpartition("/")
    stage = stage or (checkpoints[-1].stage if checkpoints else "")
    matching = [checkpoint for checkpoint in checkpoints if checkpoint.stage == stage and _matches(checkpoint, which)]
    if not matching:
        names = (f"{each.stage}/{each.epoch}" + " (best)" * each.best for each in checkpoints)
        raise ModelError(
            f"run {run.name!r} has no checkpoint {name!r}; it has {', '.join(names) or 'none'}; "
            "compute.checkpoint_epochs sets how many of the last epochs are kept beside the best"
        )
    return matching[-1]


def _matches(checkpoint: StoredCheckpoint, which: str) -> bool:
    if which in ("best", "final"):
        return checkpoint.best if which == "best" else checkpoint.final
    return which == str(checkpoint.epoch)


def _stage_checkpoints(run: RunStore, stage: str) -> Iterator[StoredCheckpoint]:
    files = _stage_files(run, stage)
    aucs = {row["epoch"]: row["valid_auc"] for row in _metrics(run, stage) if row.get("kind") == "epoch"}
    best = max(aucs, key=lambda epoch: aucs[epoch], default=None)
    epochs = {files.final_epoch if name == FINAL_FILE else epoch_of(name): key for name, key in files.keys.items()}
    for epoch in sorted(epoch for epoch in epochs if epoch is not None):
        key, file = epochs[epoch]
        yield StoredCheckpoint(
            stage=stage,
            epoch=epoch,
            valid_auc=aucs.get(epoch),
            best=epoch == best,
            final=epoch == files.final_epoch,
            key=key,
            file=file,
        )


def _stage_files(run: RunStore, stage: str) -> _StageFiles:
    """The files of a stage: of its finished step, else of the running one."""
    prefix = _key(run, f"{stage}/")
    try:
        step = parse_record(StepManifest, run.store.read(f"{prefix}step.json"), f"{run.store.uri}/{prefix}step.json")
        keys = {name: (prefix + name, file) for name, file in step.files.items()}
        result = step.record.get("result")
        if not isinstance(result, dict) or not isinstance(result.get("epoch"), int):
            raise ModelError(f"{run.store.uri}/{prefix}step.json has no epoch; {RESTORE}")
        return _StageFiles(keys, result["epoch"])
    except NotFound:
        pass
    try:
        live = read_live(run, f"{CHECKPOINTS_DIR}/{stage}")
    except NotFound:
        return _StageFiles({}, None)
    keys = {local_name(name): (f"{prefix}{LIVE_DIR}/{name}", file) for name, file in live.files.items()}
    return _StageFiles(keys, None)


def _metrics(run: RunStore, stage: str) -> list[dict[str, Any]]:
    try:
        content = run.store.read(_key(run, f"{stage}/{METRICS_FILE}"))
    except NotFound:
        return []
    return parse_metrics(content, f"{run.store.uri}/{_key(run, stage)}/{METRICS_FILE}")


def _key(run: RunStore, path: str) -> str:
    return f"runs/{run.name}/{CHECKPOINTS_DIR}/{path}"
