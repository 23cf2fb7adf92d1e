"""Tasks that score new patches with a published model: plan, score a shard, publish."""

from pathlib import Path
from typing import Any, cast

from prefect.events import emit_event
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from pcam_model.core.errors import ConfigError, ModelError, SourceError, require_package
from pcam_model.core.log import log
from pcam_model.core.paths import resolve_store_uri
from pcam_model.evaluation.drift import DriftResult, drift_markdown
from pcam_model.inference.shards import (
    ScoringJob,
    ScoringResult,
    Shard,
    gather,
    job_drift,
    plan_scoring,
    score_shard,
)
from pcam_model.registry.config import StoreConfig
from tasks.policy import step
from tasks.process_setup import setup_process
from tasks.progress import show_text

DRIFT_EVENT = "pcam.drift"
THREADS = 2  # one reads while the other computes


@step("plan", hours=6)
def plan(source: str, model: str, store: StoreConfig, shard_size: int, tta: bool | None) -> ScoringJob:
    """Pull the model and list the images."""
    job = plan_scoring(source, model, resolve_store_uri(store.uri), shard_size, tta)
    log.info("%s patches in %d shards, model %s", f"{job.patches:,}", len(job.shards), job.model)
    return job


@step("score", hours=6, run_name="shard {number}")
def score(job: ScoringJob, number: int) -> Shard:
    """Score a shard, unless the store has its predictions."""
    setup_process()  # on a cluster's worker the flow has not done it
    shard = score_shard(job, number)
    log.info("%s patches%s", f"{shard.patches:,}", ", scored before" if shard.cached else "")
    return shard


@step("publish", hours=6)
def publish(job: ScoringJob, shards: list[Shard], name: str) -> ScoringResult:
    """Publish one table of all shards."""
    result = gather(job, shards, name)
    counts = result.counts
    log.info("Scores: %s, %s patches, %s of them tumour", result.published.uri, f"{counts.patches:,}",
             f"{counts.tumour:,}")  # fmt: skip
    if counts.unsure is None:
        log.info("The model has no conformal quantiles, so the scores have no column decision")
    else:
        log.info("%s patches are unsure", f"{counts.unsure:,}")
    if counts.unreadable:
        log.warning("%s images could not be read: predictions.errors.csv beside the scores says which and why",
                    f"{counts.unreadable:,}")  # fmt: skip
    return result


@step("drift", hours=1)
def measure_drift(job: ScoringJob, result: ScoringResult) -> DriftResult | None:
    """Compare the patches with what the model was evaluated on; emit an event where they drifted.

    None where that cannot be told: too few patches, or a model that was published without a reference.
    """
    try:
        found = job_drift(job)
    except (ModelError, SourceError) as error:
        log.warning("Drift was not measured: %s", error)
        return None
    log.info("Drift: %s", found.meaning)
    show_text("drift", drift_markdown(found), f"Patches of {Path(job.source).name} beside those of {result.model}")
    if found.drifted:
        resource = {"prefect.resource.id": f"pcam.model.{result.model}", "prefect.resource.name": result.model}
        payload = {"source": Path(job.source).name, "scores": result.published.uri, "meaning": found.meaning}
        emit_event(DRIFT_EVENT, resource=resource, payload=payload)
    return found


def task_runner(cluster: str) -> TaskRunner[Any]:
    """The task runner: threads of this process, or an existing Dask or Ray cluster by its address.

    Raises:
        ConfigError: the address is of neither kind.
        MissingPackageError: the client of such a cluster is not installed.
    """
    scheme = cluster.partition("://")[0]
    if not cluster:
        return ThreadPoolTaskRunner(max_workers=THREADS)
    if scheme in ("tcp", "tls"):
        with require_package(f"cluster {cluster}", extra="dask"):
            from prefect_dask.task_runners import DaskTaskRunner
        return DaskTaskRunner(address=cluster)
    if scheme == "ray":
        with require_package(f"cluster {cluster}", extra="ray"):
            from prefect_ray.task_runners import RayTaskRunner  # type: ignore[import-not-found,import-untyped,unused-ignore]
        return cast(TaskRunner[Any], RayTaskRunner(address=cluster))
    raise ConfigError(f"cluster is {cluster!r}; expected tcp://host:8786 (Dask), ray://host:10001 (Ray), or nothing")
