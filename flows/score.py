"""The flow `pcam-score`: score new patches with a published model."""

from prefect import flow, unmapped

from pcam_model.inference.shards import ScoringResult
from pcam_model.registry.config import StoreConfig
from tasks import inference, process_setup


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
    """Score new patches with a published model, shard by shard; started again, score only what is new.

    At the end the patches are compared with those that the model was evaluated on: drift is an event of Prefect's.

    Args:
        source: a zip, a folder, a pack or an image file, which the workers of a cluster have to reach too.
        model: a channel, a run, or the address of one or of a store.
        store: the store in which names of models are looked up, and to which the scores are published.
        name: the name of the scores in the store; empty: made from the run's name and the digest of the images.
        shard_size: patches per shard.
        tta: whether outputs are averaged over 8 views; empty: as the model was published.
        cluster: tcp://host:8786 (Dask) or ray://host:10001 (Ray); empty: threads of this process.
    """
    process_setup.setup_process()
    job = inference.plan(source, model, store, shard_size, tta)
    with inference.task_runner(cluster) as runner:
        futures = runner.map(inference.score, {"job": unmapped(job), "number": job.shards})  # type: ignore[arg-type]
        shards = futures.result()
    result = inference.publish(job, shards, name)
    inference.measure_drift(job, result)
    return result
