"""Retraining thinks: nothing new is skipped, a worse challenger is rejected, a better one takes over."""

import gc
import io
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from patch_sets import make_patch_set
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter
from prefect.testing.utilities import prefect_test_harness

from flows.retrain import retrain
from pcam_model.config_reader import read_config
from pcam_model.core.errors import BusyError
from pcam_model.evaluation.promotion_gate import Decision, PromotionConfig
from pcam_model.registry import channels
from pcam_model.registry.backends.base import Store
from pcam_model.registry.decisions import find_decision
from pcam_model.registry.factory import open_store
from pcam_model.registry.runs import RunStore
from pcam_model.training.model_io import code_digest

# Prefect's client leaves its sockets to the garbage collector.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
SLIDES, EACH = 12, 16
KEYS = "split.kind=slide split.valid=0.34 model.arch=resnet18 model.weights=none model.image_size=32 score.tta=false"
TRAINING = "frozen.epochs=0 finetune.epochs=3 finetune.batch_size=16 finetune.lr=3e-3"
LEARNS_NOTHING = "finetune.lr=1e-9"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A server, a store, a cache and a labelled zip with its slides."""
    home = tmp_path_factory.mktemp("retrain")
    made = make_patch_set(SLIDES * EACH)
    made.zip(home / "patches.zip")
    slides = [f"slide{row // EACH}" for row in range(SLIDES * EACH)]
    pd.DataFrame({"id": made.ids, "wsi": slides}).to_csv(home / "slides.csv", index=False)
    with pytest.MonkeyPatch.context() as patch, prefect_test_harness(server_startup_timeout=120):
        patch.setenv("PCAM_CACHE", str(home / "cache"))
        patch.setenv("PCAM_STORE", (home / "store").as_uri())
        yield home
    gc.collect()  # Prefect's client leaves sockets behind; they go while their warnings are waived


@pytest.fixture
def store(home: Path) -> Store:
    return open_store((home / "store").as_uri())


def again(home: Path, *keys: str, archive: str = "patches.zip", **promotion: Any) -> Decision:
    source = [f"source.path={home / archive}", "source.kind=path", f"source.slides={home / 'slides.csv'}"]
    config = read_config(None, [*source, *KEYS.split(), *TRAINING.split(), *keys])
    return retrain(config, promotion=PromotionConfig(**promotion))


@pytest.fixture(scope="module")
def weak(home: Path) -> Decision:
    """The first champion: it is promoted since there is none, and has learnt nothing."""
    return again(home, LEARNS_NOTHING)


def test_the_first_run_becomes_champion(weak: Decision, store: Store) -> None:
    assert (weak.verdict, weak.champion) == ("promoted", "")
    channel = channels.read_channel(store)
    assert channel is not None
    assert channel.history[0].run == weak.challenger
    assert RunStore(store, weak.challenger).find_published()


class Repeated(NamedTuple):
    """The first champion's training asked for once more, before there is another champion."""

    decision: Decision
    seconds: float
    new_runs: set[str]


@pytest.fixture(scope="module")
def repeated(home: Path, weak: Decision) -> Repeated:
    store = open_store((home / "store").as_uri())
    runs, before = set(store.folders("runs/")), time.monotonic()
    same = again(home, LEARNS_NOTHING)
    return Repeated(same, time.monotonic() - before, set(store.folders("runs/")) - runs)


def test_nothing_new_is_nothing_to_do_in_seconds(weak: Decision, repeated: Repeated) -> None:
    assert repeated.decision.verdict == "unchanged"
    assert weak.challenger in repeated.decision.reason
    assert repeated.seconds < 20
    assert repeated.new_runs == set()


def test_new_code_is_something_new(home: Path, weak: Decision, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks import retraining as promoting

    config = store.read(f"runs/{weak.challenger}/config.json")
    assert code_digest()[:12].encode() in config
    monkeypatch.setattr(promoting, "code_digest", lambda: "0" * 64)
    monkeypatch.setattr("flows.retrain.full_train", lambda config: pytest.skip(f"trains {config.run}"))
    with pytest.raises(pytest.skip.Exception, match="trains retrain-"):
        again(home, LEARNS_NOTHING)


@pytest.fixture(scope="module")
def better(home: Path, repeated: Repeated) -> Decision:
    return again(home)


def test_a_better_challenger_takes_over_with_its_figures_and_reason(
    weak: Decision, better: Decision, store: Store
) -> None:
    assert (better.verdict, better.champion) == ("promoted", weak.challenger)
    gap = better.difference
    assert gap is not None
    assert gap.value > 0.2
    assert gap.low > -better.margin
    assert better.patches >= EACH
    assert "95 % interval" in better.reason
    channel = channels.read_channel(store)
    assert channel is not None
    assert channel.run == better.challenger
    assert channel.history[-1].message == better.reason
    assert find_decision(store, better.challenger, weak.challenger) == better.model_dump(mode="json")
    with get_client(sync_client=True) as client:
        shown = client.read_artifacts(artifact_filter=ArtifactFilter(key={"any_": ["decision"]}))
    assert any(better.reason in str(artifact.data) for artifact in shown)


def shuffled(home: Path, champion: str, store: Store) -> None:
    """The same patches; on the training slides labels change places within their slide, so the split stays."""
    folder = home / "split"
    RunStore(store, champion).fetch("split", folder)
    sides = pd.read_parquet(folder / "split.parquet").set_index("id")["split"]
    random = np.random.default_rng(1)
    with zipfile.ZipFile(home / "patches.zip") as read, zipfile.ZipFile(home / "shuffled.zip", "w") as write:
        labels = pd.read_csv(io.BytesIO(read.read("train_labels.csv"))).set_index("id")["label"]
        for first in range(0, len(labels), EACH):
            ids = labels.index[first : first + EACH]
            if (sides[ids] == "train").all():
                labels[ids] = random.permutation(labels[ids].to_numpy())
        for name in read.namelist():
            if name != "train_labels.csv":
                write.writestr(name, read.read(name))
        write.writestr("train_labels.csv", labels.to_csv())


def test_a_challenger_of_shuffled_labels_is_rejected_and_stays_published(
    home: Path, better: Decision, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shuffled(home, better.challenger, store)
    worse = again(home, archive="shuffled.zip")
    assert (worse.verdict, worse.champion) == ("rejected", better.challenger)
    assert worse.difference is not None
    assert worse.difference.value < -0.2
    assert worse.left_out == 0
    channel = channels.read_channel(store)
    assert channel is not None
    assert channel.run == better.challenger
    assert RunStore(store, worse.challenger).find_published()
    monkeypatch.setattr("flows.retrain.full_train", lambda **_: pytest.fail("was trained again"))
    assert again(home, archive="shuffled.zip") == worse


def test_a_champion_that_moved_meanwhile_is_not_overrun(weak: Decision, better: Decision, store: Store) -> None:
    with pytest.raises(BusyError, match="compare again"):
        channels.promote(store, weak.challenger, expected=weak.challenger)
