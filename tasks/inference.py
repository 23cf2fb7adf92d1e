"""Tasks of a published model at work: plan a scoring, score a shard, publish the whole."""

from prefect import task
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from pcam_model.core.errors import ConfigError, PcamError
from pcam_model.core.paths import resolve_store_uri
from pcam_model.inference.shards import ScoringJob, ScoringResult, Shard, gather, plan_scoring, score_shard
from pcam_model.registry.backends.base import StoreConfig
from tasks.policy import retry_policy

THREADS = 2  # one reads while the other computes


@task(**retry_policy(hours=6))
def plan(source: str, model: str, store: StoreConfig, shard_size: int, tta: bool | None) -> ScoringJob:
    """Pull the model and see what there is to score."""
    planned = plan_scoring(source, model, resolve_store_uri(store.uri), shard_size, tta)
    print(f"{planned.patches:,} patches in {len(planned.shards)} shards, by {planned.model}")
    return planned


@task(task_run_name="shard {number}", **retry_policy(hours=6))
def score(scoring: ScoringJob, number: int) -> Shard:
    """Score one shard, unless that was done before."""
    done = score_shard(scoring, number)
    print(f"{done.patches:,} patches{', done before' * done.cached}")
    return done


@task(**retry_policy(hours=6))
def publish(scoring: ScoringJob, shards: list[Shard], name: str) -> ScoringResult:
    """The table of all shards goes to the store, whole."""
    scored = gather(scoring, shards, name)
    counts = scored.counts
    print(f"Scores: {scored.published.uri}, {counts.patches:,} patches, {counts.tumour:,} of them tumour")
    if counts.unreadable:
        print(f"{counts.unreadable:,} images could not be read; predictions.errors.csv there says which and why")
    return scored


def workers(cluster: str) -> TaskRunner:
    """Who scores: threads of this process, or an existing cluster of Dask's or Ray's, by its address.

    Raises:
        ConfigError: the address is neither's.
        PcamError: what speaks to such a cluster is not installed.
    """
    scheme = cluster.partition("://")[0]
    try:
        if not cluster:
            return ThreadPoolTaskRunner(max_workers=THREADS)
        if scheme in ("tcp", "tls"):
            from prefect_dask import DaskTaskRunner

            return DaskTaskRunner(address=cluster)
        if scheme == "ray":
            from prefect_ray import RayTaskRunner

            return RayTaskRunner(address=cluster)
    except ModuleNotFoundError as error:
        extra = "ray" if scheme == "ray" else "dask"
        raise PcamError(f"cluster {cluster} needs {error.name}; pip install 'pcam[{extra}]'") from None
    raise ConfigError(f"cluster is {cluster!r}; expected tcp://host:8786 (Dask), ray://host:10001 (Ray), or nothing")
