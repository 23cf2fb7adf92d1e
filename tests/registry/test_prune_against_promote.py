"""A promotion while `pcam prune` is at work: the champion always has its manifest."""

from pathlib import Path

import pytest
from a_run import publish_run
from at_once import together

from pcam_model.core.errors import ModelError, PcamError
from pcam_model.registry import pruning, retention
from pcam_model.registry.backends.base import Store
from pcam_model.registry.channels import promote, read_channel
from pcam_model.registry.manifest import read_manifest
from pcam_model.registry.pruning import PruneCandidate, prune, prune_candidates


def candidate_of(store: Store) -> PruneCandidate:
    (candidate,) = prune_candidates(store, days=0)
    return candidate


@pytest.mark.parametrize("moment", ["before the mark", "after the mark", "after the second look"])
def test_a_promotion_in_between_wins(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    publish_run(store, tmp_path)
    candidate = candidate_of(store)
    name = {"before the mark": "mark_run", "after the mark": "_promoted_runs"}.get(moment, "begin_deletion")
    original = getattr(pruning, name)

    def promote_first(*arguments: object) -> object:
        promote(store, "a")
        return original(*arguments)

    monkeypatch.setattr(pruning, name, promote_first)
    prune(store, candidate)
    channel = read_channel(store)
    assert channel is not None
    assert channel.run == "a"
    assert read_manifest(store, "a")[1].digest == channel.history[-1].digest


def test_a_promotion_that_comes_too_late_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_run(store, tmp_path)
    original = pruning.begin_deletion

    def delete_first(*arguments: object) -> bool:
        decided = original(*arguments)  # type: ignore[arg-type]
        with pytest.raises(ModelError, match="'a' is being deleted by `pcam prune`"):
            promote(store, "a")
        return decided

    monkeypatch.setattr(pruning, "begin_deletion", delete_first)
    prune(store, candidate_of(store))
    assert read_channel(store) is None
    assert list(store.entries("runs/")) == []
    assert list(store.entries("retention/")) == []


def test_prune_goes_on_where_one_before_was_interrupted_and_lets_a_promotion_under_way_be(
    folder_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_run(folder_store, tmp_path)
    candidate = candidate_of(folder_store)
    retention.protect_run(folder_store, "a")
    prune(folder_store, candidate)
    assert read_manifest(folder_store, "a")
    monkeypatch.setattr(retention, "PROTECTED_S", 0.0)  # as after a day: the promotion was interrupted
    etag = retention.mark_run(folder_store, "a")
    assert etag is not None
    assert retention.begin_deletion(folder_store, "a", etag)
    assert retention.mark_run(folder_store, "a")
    with pytest.raises(ModelError, match="'a' is being deleted by `pcam prune`"):
        promote(folder_store, "a")
    prune(folder_store, candidate)
    assert list(folder_store.entries("runs/")) == []


def test_promotions_and_prunings_at_once_leave_no_channel_without_its_run(folder_store: Store, tmp_path: Path) -> None:
    for round_number in range(10):
        name = f"run-{round_number}"
        publish_run(folder_store, tmp_path, name)
        candidate = next(each for each in prune_candidates(folder_store, days=0) if each.name == name)

        def work(number: int, name: str = name, candidate: PruneCandidate = candidate) -> None:
            try:
                promote(folder_store, name) if number % 2 else prune(folder_store, candidate)
            except PcamError:
                return

        together(4, work)
        if (channel := read_channel(folder_store)) is not None:
            assert read_manifest(folder_store, channel.run)[1].digest == channel.history[-1].digest
