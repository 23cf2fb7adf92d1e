"""The whole store against its manifests; and what may go."""

from pathlib import Path

import pytest
from a_run import model_folder, publish_run

from pcam_model.core.predictions_csv import PredictionRows
from pcam_model.registry.audit import verify
from pcam_model.registry.backends.base import Store
from pcam_model.registry.channels import promote, rollback
from pcam_model.registry.pruning import old_scores, old_shards, prune, prune_candidates
from pcam_model.registry.runs import RunStore
from pcam_model.registry.score_tables import publish_scores, write_shard


@pytest.fixture
def three(store: Store, tmp_path: Path) -> Store:
    for name in "abc":
        publish_run(store, tmp_path, name, name.encode() * 50)
    return store


def test_a_store_that_is_whole_has_no_faults(three: Store) -> None:
    promote(three, "a")
    RunStore(three, "unfinished").reserve_run({})
    assert list(verify(three)) == []


def test_every_kind_of_damage_is_found(three: Store) -> None:
    promote(three, "c")
    content = bytearray(three.read("runs/a/model/model.safetensors"))
    content[-1] ^= 1
    three.write("runs/a/model/model.safetensors", bytes(content))
    three.write("runs/a/model/model.json", b"short")
    three.delete("runs/b/model/model.json")
    three.write("runs/c/manifest.json", b"{")
    faults = {fault.key: fault.problem for fault in verify(three)}
    assert faults["runs/a/model/model.safetensors"] == "another SHA-256 than published"
    assert faults["runs/a/model/model.json"].startswith("5 bytes instead of")
    assert faults["runs/b/model/model.json"] == "missing"
    assert "is malformed" in faults["runs/c/manifest.json"]
    assert "is malformed" in faults["channels/champion.json"]
    assert len(faults) == 5


def test_a_channel_whose_run_was_replaced_is_found(three: Store, tmp_path: Path) -> None:
    promote(three, "a")
    for entry in list(three.entries("runs/a/")):
        three.delete(entry.key)
    publish_run(three, tmp_path, "a", b"an impostor")
    assert [fault.key for fault in verify(three)] == ["channels/champion.json"]


def test_only_what_no_channel_ever_named_may_go(three: Store) -> None:
    promote(three, "a")
    promote(three, "b")
    rollback(three)
    found = prune_candidates(three, days=0)
    assert [(run.name, run.published) for run in found] == [("c", True)]
    assert prune_candidates(three, days=1) == []
    promote(three, "c", "late")
    prune(three, found[0])
    assert list(three.folders("runs/")) == ["a", "b", "c"]


def test_the_last_and_the_best_stay(folder_store: Store, tmp_path: Path) -> None:
    for name, auc in (("a", 0.7), ("b", 0.9), ("c", 0.8), ("d", 0.6)):
        run = RunStore(folder_store, name)
        figures = {"valid": {"auc": {"value": auc}}}
        run.commit("report", model_folder(tmp_path / name), {"result": {"figures": figures}})
        run.publish()
    assert [run.name for run in prune_candidates(folder_store, days=0, keep=1)] == ["a", "c"]
    assert [run.name for run in prune_candidates(folder_store, days=0, keep=2)] == ["a"]
    assert len(prune_candidates(folder_store, days=0)) == 4


def test_scores_are_verified_too(folder_store: Store, tmp_path: Path) -> None:
    publish_scores(folder_store, "november", {}, [PredictionRows(rows=(("x", 0.5, 1, "x.tif"),))], tmp_path / "scores")
    assert list(verify(folder_store)) == []
    folder_store.write("scores/november/predictions.csv", b"id\n")
    faults = {fault.key: fault.problem for fault in verify(folder_store)}
    assert faults["scores/november/predictions.csv"].startswith("3 bytes instead of")
    assert len(faults) == 1


def test_old_shards_and_tables_may_go_and_new_ones_stay(store: Store, tmp_path: Path) -> None:
    rows = PredictionRows(rows=(("x", 0.5, 1, "x.tif"),))
    write_shard(store, "a" * 64, rows)
    publish_scores(store, "november", {}, [rows], tmp_path / "scores")
    assert old_shards(store, days=1) == []
    assert old_scores(store, days=1) == []
    assert [entry.key for entry in old_shards(store, days=0)] == ["shards/" + "a" * 64 + ".json"]
    found = old_scores(store, days=0)
    assert [(each.namespace, each.name, each.published) for each in found] == [("scores", "november", True)]
    prune(store, found[0])
    assert list(store.folders("scores/")) == []
    assert list(store.folders("shards/")) == []
    assert len(list(store.entries("shards/"))) == 1
    assert list(verify(store)) == []


def test_what_is_pruned_is_gone_and_the_rest_is_whole(three: Store) -> None:
    promote(three, "a")
    for leftover in prune_candidates(three, days=0):
        prune(three, leftover)
    assert list(three.folders("runs/")) == ["a"]
    assert list(verify(three)) == []
