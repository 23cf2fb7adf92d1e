"""The commands `pcam score` and `pcam compare`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from patch_sets import make_patch_set
from safetensors.torch import save_file

from pcam_model.cli import main as cli
from pcam_model.core.files import sha256
from pcam_model.data.patch_loader import IMAGENET_MEAN, IMAGENET_STD
from pcam_model.evaluation import metrics
from pcam_model.registry.factory import open_store
from pcam_model.registry.runs import RunStore
from pcam_model.training.model_io import ModelMetadata, versions
from pcam_model.training.network import ModelConfig, build_network
from tests.evaluation.conftest import predictions

Pcam = Callable[..., str]


@pytest.fixture
def pcam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Pcam:
    """Run `pcam` in this process with an own store and cache; an error is exit code 1 and one line."""
    monkeypatch.setenv("PCAM_STORE", (tmp_path / "store").as_uri())
    monkeypatch.setenv("PCAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "140")

    def run(*words: object, fails: bool = False) -> str:
        monkeypatch.setattr(sys, "argv", ["pcam", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert ended.value.code == (1 if fails else 0), out + err
        if not fails:
            return out
        assert any(line.startswith("pcam: ") for line in err.splitlines()), err
        assert err.count("\n") == 1, err
        return err

    return run


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., None]:
    """Publish a run with the parts of a report that are compared."""

    def make(run: str, store: str = "store", **tables: pd.DataFrame) -> None:
        folder = tmp_path / f"report-{store}-{run}"
        folder.mkdir()
        auc = {split: metrics.auc(table["label"], table[["logit0", "logit1"]]) for split, table in tables.items()}
        splits = {split: {"figures": {"auc": {"value": value}}} for split, value in auc.items()}
        (folder / "report.json").write_text(json.dumps({"splits": splits}))
        named = [table.assign(split=split) for split, table in tables.items()]
        pd.concat(named).to_parquet(folder / "predictions.parquet")
        run_store = RunStore(open_store((tmp_path / store).as_uri()), run)
        run_store.commit("report", folder, {})
        run_store.publish()

    return make


GOOD = predictions(300, 5).assign(pixels=[f"{row:032x}" for row in range(300)])
POOR = GOOD.assign(logit1=GOOD["logit1"] + np.random.default_rng(1).normal(0, 5, 300)).sample(frac=1, random_state=1)
VALID = predictions(100, 1)


def test_runs_are_compared_side_by_side_wherever_they_are_kept(pcam, publish, tmp_path):
    publish("good", valid=VALID, test=GOOD)
    publish("poor", store="elsewhere", valid=VALID, test=POOR)
    other = f"{(tmp_path / 'elsewhere').as_uri()}/runs/poor"
    result = json.loads(pcam("compare", other, "good", "--json"))
    (difference,) = result["differences"]
    assert (result["split"], result["patches"]) == ("test", 300)
    assert difference["value"] == pytest.approx(
        result["figures"]["good"]["auc"]["value"] - result["figures"][other]["auc"]["value"]
    )
    assert difference["low"] > 0
    assert difference["p"] < 0.01
    assert difference["unit"] == "slides"
    message = pcam("compare", "good", other, tmp_path / "report-store-good")
    assert "more than chance" in message
    assert "z 0.00, p 1" in message
    assert "8 slides, and 8 are few" in message
    assert "valid split, 100 patches" in pcam("compare", "good", other, "--split", "valid")


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        (GOOD.iloc[1:], "of which 299 are the same"),
        (GOOD.assign(label=1 - GOOD["label"]), "different labels"),
        (GOOD.assign(pixels=GOOD["pixels"].str.replace("0", "f")), "different pixels under the same names"),
    ],
)
def test_other_patches_are_refused(pcam, publish, spoilt, message):
    publish("a", valid=VALID, test=GOOD)
    publish("b", valid=VALID, test=spoilt)
    assert message in pcam("compare", "a", "b", fails=True)


def test_what_cannot_be_compared_is_said(pcam, publish):
    publish("a", valid=VALID, test=GOOD)
    publish("b", test=GOOD)
    publish("c", valid=VALID)
    assert "two different runs or more" in pcam("compare", "a", fails=True)
    assert "two different runs or more" in pcam("compare", "a", "a", fails=True)
    assert "run 'none' is not published" in pcam("compare", "a", "none", fails=True)
    assert "b has test; c has valid" in pcam("compare", "b", "c", fails=True)
    assert "There is no valid split" in pcam("compare", "a", "b", "--split", "valid", fails=True)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small untrained model, with what training would have chosen."""
    return write_model(tmp_path / "model")


def write_model(folder: Path, broken: bool = False, **changed: object) -> Path:
    network = build_network(ModelConfig(arch="mobilenet_v2", weights="none", image_size=32), 1, quiet=True)
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    if broken:
        tensors |= {name: torch.full_like(tensors[name], torch.nan) for name in tensors if name.endswith("weight")}
    folder.mkdir()
    weights = folder / "model.safetensors"
    save_file(tensors, weights)
    metadata: dict[str, object] = {
        "run": "first", "arch": "mobilenet_v2", "image_size": 32, "mean": IMAGENET_MEAN, "std": IMAGENET_STD,
        "stage": "finetune", "weights_sha256": sha256(weights), "pack_digest": "1" * 64, "split": "",
        "config": {"model": {"arch": "mobilenet_v2", "image_size": 32}}, "versions": versions(), "tta": True,
        "temperature": 1.5, "threshold": 0.5,
        "thresholds": {"0.5": 0.5, "youden": 0.6, "sensitivity95": 0.01, "specificity95": 0.99},
    }  # fmt: skip
    (folder / "model.json").write_text(ModelMetadata.model_validate({**metadata, **changed}).model_dump_json())
    return folder


def test_a_model_is_scored_as_it_was_published_with_intervals_and_a_report(pcam, model, tmp_path):
    source = make_patch_set(30).zip(tmp_path / "other.zip")
    result = json.loads(pcam("score", model, source, "--json", "--out", tmp_path / "report"))
    assert result["patches"] == 30
    assert result["tta"]
    assert result["temperature"] == 1.5
    assert result["threshold"] == 0.5
    assert set(result["operating_points"]) == {"0.5", "youden", "sensitivity95", "specificity95"}
    assert all(low <= result["figures"][name] <= high for name, (low, high) in result["intervals"].items())
    assert result["intervals_unit"] == {"unit": "patches", "units": 30, "resamples": 2000}
    assert "nothing was chosen on these patches" in result["meaning"]
    table = pd.read_parquet(tmp_path / "report" / "predictions.parquet")
    odds = (table["logit1"] - table["logit0"]) / 1.5
    assert np.allclose(table["probability"], 1 / (1 + np.exp(-odds)))
    page = (tmp_path / "report" / "report.html").read_text()
    assert "New patches" in page
    assert "Where the network looked" in page
    assert "other.zip" in page
    plain = json.loads(pcam("score", model, source, "--json", "--no-tta", "--operating-point", "youden"))
    assert not plain["tta"]
    assert plain["threshold"] == 0.6
    assert plain["tta_gain"] is None
    assert "95 % interval" in pcam("score", model, source, "--operating-point", "0.3")


def test_intervals_are_over_slides_where_they_are_named(pcam, model, tmp_path):
    patches = make_patch_set(24)
    names = pd.DataFrame({"id": patches.ids, "wsi": [f"s{row // 2 % 4}" for row in range(24)]})
    names.to_csv(tmp_path / "slides.csv", index=False)
    result = json.loads(pcam("score", model, patches.zip(tmp_path / "a.zip"), "--json", "--no-tta", "--slides",
                            tmp_path / "slides.csv"))  # fmt: skip
    assert result["intervals_unit"]["unit"] == "slides"
    assert result["intervals_unit"]["units"] == 4


def test_a_source_that_the_model_knows_is_said(pcam, tmp_path):
    from pcam_model.core.files import sha256

    source = make_patch_set(24).zip(tmp_path / "a.zip")
    result = json.loads(pcam("score", write_model(tmp_path / "model", archive_sha256=sha256(source)), source, "--json"))
    assert "optimistic: the model was trained on a part of this very source" in result["meaning"]


def test_what_cannot_be_scored_is_one_sentence_each(pcam, model, tmp_path):
    whole = make_patch_set(24)
    one = {name: content for name, content in whole.files.items()}
    one["train_labels.csv"] = "\n".join(["id,label", *(f"{each},1" for each in whole.ids)]).encode()
    none = {name: content for name, content in whole.files.items() if name != "train_labels.csv"}
    for files, message in ((one, "both 0 and 1 are needed"), (none, "there is no train_labels.csv")):
        whole.files = files
        assert message in pcam("score", model, whole.zip(tmp_path / "bad.zip"), fails=True)
    good = make_patch_set(24).zip(tmp_path / "good.zip")
    assert "expected youden" in pcam("score", model, good, "--operating-point", "best", fails=True)
    other = write_model(tmp_path / "other", arch="resnet18")
    assert "not this network's (Missing key(s)" in pcam("score", other, good, fails=True)
    broken = write_model(tmp_path / "broken", broken=True)
    assert "24 of 24 patches is not finite" in pcam("score", broken, good, fails=True)
