"""The flow `pcam-score`: new patches in shards, of which none is done twice, on a real Prefect."""

import csv
import gc
import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from a_model import publish_model
from patch_sets import PatchSet, encoded
from ray_cluster import ray_cluster

from flows.score import score
from pcam_model.core.errors import ConfigError, ModelError, PcamError, SourceError, StoreError
from pcam_model.inference import shards as scoring
from pcam_model.inference.shards import gather, plan_scoring, score_shard
from pcam_model.registry.audit import verify
from pcam_model.registry.backends.base import Store
from pcam_model.registry.channels import promote
from pcam_model.registry.config import StoreConfig
from pcam_model.registry.factory import open_store
from tasks.inference import task_runner

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

Make = Callable[..., PatchSet]


@pytest.fixture
def store(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("PCAM_CACHE", str(tmp_path / "cache"))
    store = open_store((tmp_path / "store").as_uri())
    publish_model(store, model_folder)
    promote(store, "made")
    return store


def table(store: Store, uri: str, name: str = "predictions.csv") -> list[dict[str, str]]:
    content = store.read(f"{uri.removeprefix(store.uri + '/')}/{name}")
    return list(csv.DictReader(io.StringIO(content.decode())))


def test_the_flow_scores_a_folder_and_only_what_is_new_the_next_time(
    prefect: str, store: Store, patch_set: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = patch_set(10, suffix="png")
    made.files["train/bad.png"] = b"no"
    made.folder(tmp_path / "new")
    first = score(str(tmp_path / "new"), store=StoreConfig(uri=store.uri), shard_size=4)
    assert (first.counts.patches, first.counts.unreadable, first.model) == (10, 1, "made")
    rows = table(store, first.published.uri)
    assert sorted(row["id"] for row in rows) == sorted(made.ids)
    assert len(table(store, first.published.uri, "predictions.errors.csv")) == 1
    about = json.loads(store.read(f"scores/{first.published.uri.rpartition('/')[2]}/metadata.json"))
    assert about["source"] == "new"
    assert about["tumour"] == sum(int(row["label"]) for row in rows)
    shards = [entry.key for entry in store.entries("shards/")]
    assert len(shards) == 3
    assert list(verify(store)) == []

    monkeypatch.setattr(scoring, "predict_rows", never)
    assert score(str(tmp_path / "new"), store=StoreConfig(uri=store.uri), shard_size=4) == first
    monkeypatch.undo()
    monkeypatch.setenv("PCAM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "new" / "train" / "zz.png").write_bytes(made.files[f"train/{made.ids[0]}.png"])
    second = score(str(tmp_path / "new"), store=StoreConfig(uri=store.uri), shard_size=4)
    assert second.counts.patches == 11
    assert second.published.uri != first.published.uri
    assert len([entry.key for entry in store.entries("shards/")]) == 4


def test_drifted_patches_are_an_event_that_an_automation_can_answer(
    prefect: str, store: Store, patch_set: Make, tmp_path: Path
) -> None:
    made = patch_set(40, seed=7, suffix="png")
    dark = {f"train/{each}.png": encoded(patch // 2, "png") for each, patch in zip(made.ids, made.patches, strict=True)}
    PatchSet(dark).folder(tmp_path / "dark")
    result = score(str(tmp_path / "dark"), store=StoreConfig(uri=store.uri))
    events: list[dict[str, Any]] = []
    end = time.monotonic() + 30
    while not events and time.monotonic() < end:  # the client sends events from a thread
        time.sleep(0.2)
        answer = httpx.post(f"{prefect}/events/filter", json={"filter": {"event": {"name": ["pcam.drift"]}}})
        events = answer.raise_for_status().json()["events"]
    assert [event["resource"]["prefect.resource.id"] for event in events] == ["pcam.model.made"]
    assert events[0]["payload"]["source"] == "dark"
    assert events[0]["payload"]["scores"] == result.published.uri
    assert "stain" in events[0]["payload"]["meaning"]


def never(*_: object, **__: object) -> None:
    raise AssertionError("this shard is done")


def test_shards_give_the_table_of_the_whole_and_a_name_never_means_another(
    store: Store, kaggle_zip: Path, patch_set: Make, tmp_path: Path
) -> None:
    def scored(source: Path, shard: int, name: str = "", tta: bool | None = None) -> scoring.ScoringResult:
        config = plan_scoring(str(source), "champion", store.uri, shard, tta)
        return gather(config, [score_shard(config, number) for number in config.shards], name)

    parts, whole = scored(kaggle_zip, 7), scored(kaggle_zip, 100)
    found, expected = (table(store, each.published.uri) for each in (parts, whole))
    for row, other in zip(found, expected, strict=True):
        chances = float(row.pop("probability")), float(other.pop("probability"))
        assert row == other
        assert chances[0] == pytest.approx(chances[1], abs=1e-5)
    assert scored(kaggle_zip, 7, tta=False).published.uri != parts.published.uri
    named = scored(kaggle_zip, 7, "november")
    assert named.published.uri.endswith("/scores/november")
    assert scored(kaggle_zip, 7, "november") == named
    with pytest.raises(StoreError, match=r"does not change .*choose another run name"):
        scored(patch_set(5, seed=8).zip(tmp_path / "other.zip"), 7, "november")


def test_what_cannot_be_scored_is_said_first(store: Store, kaggle_zip: Path, tmp_path: Path) -> None:
    for words, error, message in (
        (("", "champion", store.uri, 5), ConfigError, "source is empty"),
        ((str(kaggle_zip), "champion", store.uri, 0), ConfigError, "shard_size is 0"),
        ((str(kaggle_zip), "nobody", store.uri, 5), ModelError, "'nobody' is not published"),
        ((str(tmp_path / "none"), "champion", store.uri, 5), SourceError, "no such file or folder"),
    ):
        with pytest.raises(error, match=message):
            plan_scoring(*words, None)


def test_a_source_that_changes_meanwhile_and_a_shard_that_is_damaged_are_found(
    store: Store, kaggle_zip: Path, patch_set: Make
) -> None:
    config = plan_scoring(str(kaggle_zip), "champion", store.uri, 30, None)
    done = score_shard(config, 0)
    assert not done.cached
    assert score_shard(config, 0).cached
    key = f"shards/{done.digest}.json"
    content = store.read(key)
    another_probability = re.sub(rb"0\.\d", lambda found: b"0.7" if found[0] != b"0.7" else b"0.3", content, count=1)
    for damaged in (b"{", content[:-20], another_probability):
        store.write(key, damaged)
        with pytest.raises(ModelError, match="is gone or damaged; run the scoring again"):
            gather(config, [done])
        assert not score_shard(config, 0).cached
        assert store.read(key) == content
    later = config.model_copy(update={"listing_digest": "of another time"})
    patch_set(24, seed=5).zip(kaggle_zip)
    with pytest.raises(SourceError, match="has changed since its scoring began"):
        score_shard(later, 0)


@pytest.fixture
def environment_restored() -> Iterator[None]:
    """Dask writes into the environment of the process that starts its workers, among it the number of threads."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
    gc.collect()  # Dask leaves its worker's process object behind; it goes while its warning is waived


@pytest.mark.slow
def test_the_workers_of_a_dask_cluster_score(
    prefect: str, store: Store, kaggle_zip: Path, environment_restored: None
) -> None:
    from distributed import LocalCluster

    threads = score(str(kaggle_zip), store=StoreConfig(uri=store.uri), shard_size=8)
    for entry in list(store.entries("shards/")):
        store.delete(entry.key)
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        dask = score(str(kaggle_zip), store=StoreConfig(uri=store.uri), shard_size=8, cluster=cluster.scheduler_address)
    assert dask == threads
    assert len(list(store.entries("shards/"))) == 3


def test_the_workers_of_a_ray_cluster_score(prefect: str, store: Store, kaggle_zip: Path) -> None:
    pytest.importorskip("prefect_ray", reason="pip install 'pcam[ray]' was not done")
    threads = score(str(kaggle_zip), store=StoreConfig(uri=store.uri), shard_size=8)
    for entry in list(store.entries("shards/")):
        store.delete(entry.key)
    with ray_cluster() as address:
        ray = score(str(kaggle_zip), store=StoreConfig(uri=store.uri), shard_size=8, cluster=address)
    assert ray == threads
    assert len(list(store.entries("shards/"))) == 3


def test_an_address_that_is_no_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="expected tcp://host:8786"):
        task_runner("http://somewhere")
    monkeypatch.setitem(sys.modules, "prefect_ray", None)  # as where it is not installed
    with pytest.raises(PcamError, match=r"needs prefect_ray, which is not installed; pip install 'pcam\[ray\]'"):
        task_runner("ray://somewhere:10001")
