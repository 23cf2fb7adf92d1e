"""What is no longer needed: runs that no channel knows, and what batch scoring left long ago."""

import time

from pcam_model.core.errors import ModelError
from pcam_model.core.schema import Record
from pcam_model.registry.backends.base import Entry, Store
from pcam_model.registry.channel_history import whole_history
from pcam_model.registry.channels import list_channels
from pcam_model.registry.manifest import RUNS
from pcam_model.registry.runs import RunStore, list_runs
from pcam_model.registry.score_tables import SCORES, SHARDS

DAY = 86_400.0


class PruneCandidate(Record):
    """A run, or a table of scores, that nothing needs."""

    namespace: str
    """`runs` or `scores`."""
    name: str
    published: bool
    size: int
    age_days: float
    """Since its last object was written."""


def prune_candidates(store: Store, days: float = 30.0, keep: int = 0) -> list[PruneCandidate]:
    """Runs untouched for so many days that no channel points to, or ever pointed to.

    The last `keep` published runs stay too and, where that is not 0, the best: the highest AUC on its validation part.
    """
    required = _ever_promoted(store) | _last_and_best(store, keep)
    return [run for run in _old(store, RUNS, days) if run.name not in required]


def old_scores(store: Store, days: float = 30.0) -> list[PruneCandidate]:
    """Tables of batch scoring, published or not, untouched for so many days."""
    return _old(store, SCORES, days)


def old_shards(store: Store, days: float = 30.0) -> list[Entry]:
    """Shards of batch scoring older than so many days: published tables do without them."""
    before = time.time() - days * DAY
    return [entry for entry in store.entries(f"{SHARDS}/") if entry.modified <= before]


def prune(store: Store, candidate: PruneCandidate) -> None:
    """Delete a candidate: its manifest first, so that nobody sees a published thing without its files."""
    if candidate.namespace == RUNS and candidate.name in _ever_promoted(store):
        return
    prefix = f"{candidate.namespace}/{candidate.name}/"
    store.delete(f"{prefix}manifest.json")
    for entry in list(store.entries(prefix)):
        store.delete(entry.key)


def _ever_promoted(store: Store) -> set[str]:
    return {move.run for channel in list_channels(store) for move in whole_history(store, channel)}


def _last_and_best(store: Store, keep: int) -> set[str]:
    if not keep:
        return set()
    published = sorted((run.published_at, run.name) for run in list_runs(store) if run.published_at)
    scored = [(auc, name) for _, name in published if (auc := _auc(store, name)) is not None]
    return {name for _, name in published[-keep:]} | {name for _, name in sorted(scored)[-1:]}


def _auc(store: Store, run: str) -> float | None:
    try:
        record = RunStore(store, run).step_record("report")
        return float(record["made"]["figures"]["valid"]["auc"]["value"]) if record else None
    except (KeyError, TypeError, ValueError, ModelError):
        return None


def _old(store: Store, namespace: str, days: float) -> list[PruneCandidate]:
    found = [
        _candidate(namespace, name, list(store.entries(f"{namespace}/{name}/")))
        for name in store.folders(f"{namespace}/")
    ]
    return [each for each in found if each.age_days >= days]


def _candidate(namespace: str, name: str, entries: list[Entry]) -> PruneCandidate:
    return PruneCandidate(
        namespace=namespace,
        name=name,
        published=any(entry.key == f"{namespace}/{name}/manifest.json" for entry in entries),
        size=sum(entry.size for entry in entries),
        age_days=round((time.time() - max(entry.modified for entry in entries)) / DAY, 2),
    )
