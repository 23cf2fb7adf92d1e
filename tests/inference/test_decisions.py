"""The column `decision` of predictions: of a model with conformal quantiles, and left out aloud without them."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from a_model import publish_model
from patch_sets import PatchSet

import pcam_model
from pcam_model.cli import predict as command
from pcam_model.core.model_metadata import METADATA_FILE
from pcam_model.data.image_inputs import Images
from pcam_model.inference.shards import gather, plan_scoring, score_shard
from pcam_model.inference.streaming import predict_to_csv
from pcam_model.registry.factory import open_store

Make = Callable[..., PatchSet]


@pytest.fixture(scope="module")
def unsure_model(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model with quantiles between which about half of the patches of `patch_set` lie."""
    folder = tmp_path_factory.mktemp("unsure") / "model"
    shutil.copytree(model_folder, folder)
    model = json.loads((folder / METADATA_FILE).read_bytes())
    model["conformal"] = {"alpha": 0.1, "no_tumour": 0.5, "tumour": 0.501, "unit": "slides", "units": [9, 12]}
    (folder / METADATA_FILE).write_text(json.dumps(model))
    return folder


def test_a_model_with_quantiles_decides_and_one_without_says_that_it_does_not(
    model_folder: Path, unsure_model: Path, patch_set: Make, tmp_path: Path
) -> None:
    made, out = patch_set(20), tmp_path / "predictions.csv"
    images = Images([made.zip(tmp_path / "new.zip")])
    predictor = pcam_model.load(unsure_model, tta=False)
    counts = predict_to_csv(out, predictor, images)
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    conformal, probability = predictor.model.conformal, predictor(made.patches).probabilities
    assert conformal is not None
    assert list(rows[0]) == ["id", "probability", "label", "file", "decision"]
    assert [row["decision"] for row in rows] == conformal.decisions(probability)
    assert counts.unsure == [row["decision"] for row in rows].count("unsure")
    older = pcam_model.load(model_folder, tta=False)
    assert predict_to_csv(out, older, images).unsure is None
    assert out.read_text().splitlines()[0] == "id,probability,label,file"
    assert any("no column decision" in note for note in command._notes(older, images, "torch"))


def test_published_scores_have_the_decisions_too(
    unsure_model: Path, patch_set: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PCAM_CACHE", str(tmp_path / "cache"))
    store = open_store((tmp_path / "store").as_uri())
    publish_model(store, unsure_model)
    job = plan_scoring(str(patch_set(6).zip(tmp_path / "new.zip")), "made", store.uri, 4, False)
    result = gather(job, [score_shard(job, number) for number in job.shards])
    table = csv.DictReader(
        io.StringIO(store.read(f"scores/{result.published.uri.rpartition('/')[2]}/predictions.csv").decode())
    )
    decisions = [row["decision"] for row in table]
    assert len(decisions) == 6
    assert result.counts.unsure == decisions.count("unsure")
