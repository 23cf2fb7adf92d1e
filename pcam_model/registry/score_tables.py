"""Predictions of new patches in the store: shards, and published tables of all of them.

`shards/<digest>.json` holds the predictions of some patches and their SHA-256; its name is the digest of the model and
of the patches' bytes.
`scores/<name>/` holds the tables of all shards of a job and, written last, their manifest.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pcam_model.core.conformal import ConformalQuantiles
from pcam_model.core.errors import ModelError
from pcam_model.core.files import write_atomic
from pcam_model.core.parsing import parse_record
from pcam_model.core.predictions_csv import PredictionCounts, PredictionRows, write_predictions
from pcam_model.registry.backends.base import NotFound, Store
from pcam_model.registry.manifest import PublishedRun, json_bytes, list_files, sha256_hex
from pcam_model.registry.runs import RunStore

SCORES, SHARDS = "scores", "shards"
TABLE_FILE, METADATA_FILE = "predictions.csv", "metadata.json"


class StoredShard(PredictionRows):
    """A shard as it is stored."""

    sha256: str
    """SHA-256 of the predictions."""


def read_shard(store: Store, digest: str) -> PredictionRows | None:
    """The predictions of a shard; None where they are not stored, or damaged."""
    key = f"{SHARDS}/{digest}.json"
    try:
        shard = parse_record(StoredShard, store.read(key), f"{store.uri}/{key}")
    except (NotFound, ModelError):
        return None
    return shard if shard.sha256 == _rows_digest(shard) else None


def write_shard(store: Store, digest: str, shard: PredictionRows) -> None:
    """Store the predictions of a shard."""
    stored = StoredShard(rows=shard.rows, unreadable=shard.unreadable, sha256=_rows_digest(shard))
    store.write(f"{SHARDS}/{digest}.json", json_bytes(stored.model_dump()))


def _rows_digest(shard: PredictionRows) -> str:
    return sha256_hex(json_bytes(shard.model_dump(include={"rows", "unreadable"})))


def publish_scores(
    store: Store,
    name: str,
    metadata: dict[str, Any],
    shards: Iterable[PredictionRows],
    folder: Path,
    conformal: ConformalQuantiles | None = None,
) -> tuple[PublishedRun, PredictionCounts]:
    """Write the tables of all shards to a new folder and publish them under a name.

    With `conformal` of the model the table of predictions has a last column `decision`.

    Raises:
        StoreError: other tables are published under this name.
    """
    with write_predictions(folder / TABLE_FILE, conformal=conformal) as writer:
        for shard in shards:
            writer.add(shard)
    write_atomic(folder / METADATA_FILE, json_bytes({**metadata, **writer.counts.model_dump(exclude_none=True)}))
    return RunStore(store, name, SCORES).publish(list_files(folder)), writer.counts
