"""The flow `pcam-score`: a published model over new patches."""

from prefect import flow, unmapped

from pcam_model.inference.shards import ScoringResult
from pcam_model.registry.backends.base import StoreConfig
from tasks import inference as predicting


@flow(name="pcam-score", log_prints=True)
def score(
    source: str = "",
    model: str = "champion",
    store: StoreConfig = StoreConfig(),
    name: str = "",
    shard_size: int = 4096,
    tta: bool | None = None,
    cluster: str = "",
) -> ScoringResult:
    """Score new patches with a published model, shard by shard; started again, do only what is new.

    Args:
        source: a zip, a folder, a pack or an image file; workers elsewhere have to reach it too.
        model: a channel, a run, or the address of one or of a store.
        store: where plain names of models belong, and where the scores go.
        name: of the scores in the store; made of the run and of what was scored where it is empty.
        shard_size: patches in a shard.
        tta: whether the mean over 8 views is taken; the model's own way where it is empty.
        cluster: tcp://host:8786 (Dask) or ray://host:10001 (Ray); threads of this process where it is empty.
    """
    scoring = predicting.plan(source, model, store, shard_size, tta)
    with predicting.workers(cluster) as workers:
        shards = workers.map(predicting.score, {"scoring": unmapped(scoring), "number": scoring.shards}).result()
    return predicting.publish(scoring, shards, name)
