"""The checkpoints of a run that can be had: what its stages left, and the weights of single epochs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pcam_model.core.checkpoint_names import epoch_file, epoch_of
from pcam_model.core.errors import ModelError, StoreError
from pcam_model.core.schema import Record
from pcam_model.registry.backends.base import NotFound
from pcam_model.registry.live_sync import LIVE, local_name, read_live
from pcam_model.registry.manifest import FileRecord, Step, parse_step
from pcam_model.registry.runs import RunStore
from pcam_model.registry.safe_formats import refuse_pickle
from pcam_model.registry.transfer import exclusive_dir, fetch_verified, same_file

ROOM, FINAL, LINES, TRIES = "checkpoints", "final.safetensors", "metrics.jsonl", 3


class StoredCheckpoint(Record):
    """The weights of one epoch of a stage."""

    stage: str
    epoch: int
    valid_auc: float | None
    best: bool
    """Whether no epoch of the stage had a higher validation AUC."""
    final: bool
    """Whether it is what the stage left."""
    key: str
    """Where it is in the store."""
    file: FileRecord


def list_checkpoints(run: RunStore) -> list[StoredCheckpoint]:
    """Whatever is kept of a run's stages, finished or under way, in the order of stages and epochs."""
    return [kept for stage in run.store.folders(_prefix(run, "")) for kept in _of_stage(run, stage)]


def fetch_checkpoint(run: RunStore, wanted: str, folder: Path) -> tuple[StoredCheckpoint, Path]:
    """Fetch the weights of one epoch, verified, into a folder, as `<stage>-epoch-0003.safetensors`.

    Args:
        run: published or still under way.
        wanted: `best`, `final` or an epoch's number, of the last stage that has any; or of a stage: `frozen/best`.
        folder: made where it is not there.

    Raises:
        ModelError: it is not kept, or it is damaged.
        StoreError: `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file; name a folder for the checkpoint")
    for rest in reversed(range(TRIES)):
        kept = _chosen(run, wanted, list_checkpoints(run))
        path = folder / f"{kept.stage}-{epoch_file(kept.epoch)}"
        try:
            with exclusive_dir(folder):
                if not same_file(path, kept.file):
                    fetch_verified(run.store, kept.key, path, kept.file)
        except NotFound:  # training has gone on, and dropped it
            if not rest:
                raise
            continue
        refuse_pickle(path, kept.key)
        return kept, path
    raise AssertionError("every try returns or raises")


def _chosen(run: RunStore, wanted: str, kept: list[StoredCheckpoint]) -> StoredCheckpoint:
    stage, _, which = wanted.rpartition("/")
    stage = stage or (kept[-1].stage if kept else "")
    of_stage = [one for one in kept if one.stage == stage]
    found = [one for one in of_stage if which == str(one.epoch) or (which in ("best", "final") and getattr(one, which))]
    if not found:
        there = ", ".join(f"{one.stage}/{one.epoch}" + " (best)" * one.best for one in kept) or "none"
        raise ModelError(
            f"run {run.name!r} keeps no checkpoint {wanted!r}; it has {there}; compute.checkpoint_epochs says how many "
            "of the last epochs are kept beside the best"
        )
    return found[-1]


def _of_stage(run: RunStore, stage: str) -> Iterator[StoredCheckpoint]:
    files, final = _files(run, stage)
    rows = {row["epoch"]: row["valid_auc"] for row in _diary(run, stage) if row.get("kind") == "epoch"}
    best = max(rows, key=lambda epoch: rows[epoch], default=None)
    epochs = {final if local == FINAL else epoch_of(local): (key, file) for key, local, file in files}
    for epoch in sorted(epoch for epoch in epochs if epoch is not None):
        key, file = epochs[epoch]
        yield StoredCheckpoint(
            stage=stage, epoch=epoch, valid_auc=rows.get(epoch), best=epoch == best, final=epoch == final, key=key,
            file=file,
        )  # fmt: skip


def _files(run: RunStore, stage: str) -> tuple[list[tuple[str, str, FileRecord]], int | None]:
    """Each file of a stage, by key and by its name where it was made; and the epoch that the stage left."""
    prefix = _prefix(run, f"{stage}/")
    try:
        done = parse_step(run.store.read(f"{prefix}step.json"), run.store.uri)
        return [(prefix + name, name, file) for name, file in done.files.items()], int(done.record["made"]["epoch"])
    except NotFound:
        pass
    try:
        live: Step = read_live(run, f"{ROOM}/{stage}")
    except NotFound:
        return [], None
    return [(f"{prefix}{LIVE}/{name}", local_name(name), file) for name, file in live.files.items()], None


def _diary(run: RunStore, stage: str) -> list[dict[str, Any]]:
    try:
        lines = run.store.read(_prefix(run, f"{stage}/{LINES}")).splitlines()
        return [json.loads(line) for line in lines]
    except (NotFound, ValueError):
        return []


def _prefix(run: RunStore, path: str) -> str:
    return f"runs/{run.name}/{ROOM}/{path}"
