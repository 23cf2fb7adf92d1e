"""Old runs that no channel ever pointed to, and old tables and shards of scores: list and delete them."""

import time

from pcam_model.core.errors import ModelError
from pcam_model.core.schema import Record
from pcam_model.registry.backends.base import Entry, Store
from pcam_model.registry.capabilities import probe
from pcam_model.registry.channel_history import full_history
from pcam_model.registry.channels import list_channels
from pcam_model.registry.datasets import DATASETS
from pcam_model.registry.manifest import RUNS
from pcam_model.registry.retention import begin_deletion, delete_retention, mark_run
from pcam_model.registry.runs import RunStore, list_runs
from pcam_model.registry.score_tables import SCORES, SHARDS

DAY_S = 86_400.0


class PruneCandidate(Record):
    """A run or a table of scores that can be deleted."""

    namespace: str
    """`runs` or `scores`."""
    name: str
    published: bool
    size: int
    """In bytes."""
    age_days: float
    """Since its last object was written."""


def prune_candidates(store: Store, days: float = 30.0, keep: int = 0) -> list[PruneCandidate]:
    """Runs that were not written to for so many days, and that no channel points to or ever pointed to.

    The last `keep` published runs stay too and, where `keep` is not 0, damaged ones and the one with the highest
    validation AUC.
    """
    required = _promoted_runs(store) | _last_and_best_runs(store, keep)
    return [run for run in _list_old(store, RUNS, days) if run.name not in required]


def old_scores(store: Store, days: float = 30.0) -> list[PruneCandidate]:
    """Tables of scores, published or not, that were not written to for so many days."""
    return _list_old(store, SCORES, days)


def old_shards(store: Store, days: float = 30.0) -> list[Entry]:
    """Shards of scores older than so many days; published tables do not need them."""
    latest = time.time() - days * DAY_S
    return [entry for entry in store.entries(f"{SHARDS}/") if entry.modified <= latest]


def prune(store: Store, candidate: PruneCandidate) -> None:
    """Delete a candidate, its manifest first; a run that was promoted since, or is being promoted, stays."""
    if candidate.namespace == RUNS and not _may_delete(store, candidate.name):
        return
    prefix = f"{candidate.namespace}/{candidate.name}/"
    store.delete(f"{prefix}manifest.json")
    store.sweep(prefix)
    for entry in list(store.entries(prefix)):
        store.delete(entry.key)
    if candidate.namespace == RUNS:
        delete_retention(store, candidate.name)


def sweep_store(store: Store) -> None:
    """Remove what killed writers left in the runs, the scores and the packs of a store; see `Store.sweep`."""
    for folder in (RUNS, SCORES, DATASETS):
        store.sweep(f"{folder}/")


def _may_delete(store: Store, run: str) -> bool:
    """Whether no channel ever pointed to the run, and no promotion can point one to it from now on.

    A store without conditional writes has one writer alone, who promised so.
    """
    if not probe(store).conditional_writes:
        return run not in _promoted_runs(store)
    etag = mark_run(store, run)
    if etag is None:
        return False
    if run in _promoted_runs(store):
        delete_retention(store, run)
        return False
    return begin_deletion(store, run, etag)


def _promoted_runs(store: Store) -> set[str]:
    return {move.run for channel in list_channels(store) for move in full_history(store, channel)}


def _last_and_best_runs(store: Store, keep: int) -> set[str]:
    if not keep:
        return set()
    runs = list(list_runs(store))
    damaged = {run.name for run in runs if run.damaged}
    published = sorted((run.published_at, run.name) for run in runs if run.published_at)
    scored = [(auc, name) for _, name in published if (auc := _valid_auc(store, name)) is not None]
    return damaged | {name for _, name in published[-keep:]} | {name for _, name in sorted(scored)[-1:]}


def _valid_auc(store: Store, run: str) -> float | None:
    try:
        record = RunStore(store, run).step_record("report")
        return float(record["result"]["figures"]["valid"]["auc"]["value"]) if record else None
    except (KeyError, TypeError, ValueError, ModelError):
        return None


def _list_old(store: Store, namespace: str, days: float) -> list[PruneCandidate]:
    names = store.folders(f"{namespace}/")
    candidates = [_candidate(namespace, name, list(store.entries(f"{namespace}/{name}/"))) for name in names]
    return [candidate for candidate in candidates if candidate.age_days >= days]


def _candidate(namespace: str, name: str, entries: list[Entry]) -> PruneCandidate:
    return PruneCandidate(
        namespace=namespace,
        name=name,
        published=any(entry.key == f"{namespace}/{name}/manifest.json" for entry in entries),
        size=sum(entry.size for entry in entries),
        age_days=round((time.time() - max(entry.modified for entry in entries)) / DAY_S, 2),
    )
