"""Scores of new patches in the store: shards that are done once, and the whole table, published as a run is.

`shards/<digest>.json` holds the predictions of some patches; its name is the digest of the model and of their bytes.
`scores/<name>/` holds the tables of all of them and, written last, their manifest.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pcam_model.core.errors import ModelError
from pcam_model.core.files import write_atomic
from pcam_model.core.predictions_csv import PredictionCounts, PredictionRows, write_predictions
from pcam_model.registry.backends.base import NotFound, Store
from pcam_model.registry.manifest import PublishedRun, json_bytes, list_files, parsed
from pcam_model.registry.runs import RunStore

SCORES, SHARDS = "scores", "shards"
TABLE, ABOUT = "predictions.csv", "about.json"


def read_shard(store: Store, digest: str) -> PredictionRows | None:
    """The predictions of some patches where they are known and whole, else None."""
    key = f"{SHARDS}/{digest}.json"
    try:
        return parsed(PredictionRows, store.read(key), f"{store.uri}/{key}")
    except (NotFound, ModelError):
        return None


def write_shard(store: Store, digest: str, shard: PredictionRows) -> None:
    """Keep the predictions of some patches."""
    store.write(f"{SHARDS}/{digest}.json", json_bytes(shard.model_dump()))


def publish_scores(
    store: Store, name: str, about: dict[str, Any], shards: Iterable[PredictionRows], folder: Path
) -> tuple[PublishedRun, PredictionCounts]:
    """Write the tables of all shards into a new folder and publish them under a name, which never means another table.

    Raises:
        StoreError: something else is published under this name.
    """
    with write_predictions(folder / TABLE) as made:
        for shard in shards:
            made.add(shard)
    write_atomic(folder / ABOUT, json_bytes({**about, **made.counts.model_dump()}))
    return RunStore(store, name, SCORES).publish(list_files(folder)), made.counts
