"""A published model in Python: what goes in, what comes out, and how it is found."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from a_model import publish_model
from PIL import Image

import pcam_model
from pcam_model.core.errors import ConfigError, ModelError, PcamError, SourceError
from pcam_model.core.model_metadata import ABOUT, GRAPH, WEIGHTS
from pcam_model.data.patch_loader import batches
from pcam_model.evaluation.forward import forward
from pcam_model.evaluation.metrics import tumour_probability
from pcam_model.inference import backends as runtimes
from pcam_model.inference.predictor import Predictor
from pcam_model.registry.backends.base import open_store
from pcam_model.registry.channels import promote
from pcam_model.training.model_io import load_model

PATCHES = np.random.default_rng(3).integers(0, 256, (9, 96, 96, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def predictor(model_folder: Path) -> Predictor:
    return pcam_model.load(model_folder)


def test_arrays_tensors_pictures_and_lists_of_them_give_the_same(predictor: Predictor) -> None:
    whole = predictor(PATCHES)
    assert whole.probabilities.shape == whole.labels.shape == (9,)
    pictures = [Image.fromarray(patch) for patch in PATCHES]
    for given in (torch.from_numpy(PATCHES), pictures, list(PATCHES), tuple(torch.from_numpy(PATCHES))):
        np.testing.assert_allclose(predictor(given).probabilities, whole.probabilities, rtol=0, atol=1e-6)
    for one in (PATCHES[4], torch.from_numpy(PATCHES)[4], pictures[4], pictures[4].convert("RGBA")):
        np.testing.assert_allclose(predictor(one).probabilities, whole.probabilities[4:5], rtol=0, atol=1e-6)
    assert predictor([]).labels.shape == (0,) and predictor(PATCHES[:0]).probabilities.shape == (0,)


def test_a_probability_is_what_the_report_computes(predictor: Predictor, model_folder: Path) -> None:
    network, model = load_model(model_folder)
    part = batches(torch.from_numpy(PATCHES), np.arange(9), np.zeros(9), model.size, torch.device("cpu"))
    logits = forward(network, part, tta=True)[1].double().numpy()
    said = predictor(PATCHES)
    np.testing.assert_allclose(said.probabilities, tumour_probability(logits / model.temperature), rtol=0, atol=1e-6)
    assert (said.labels == (said.probabilities >= 0.45)).all() and 0 < said.labels.sum() < 9
    plain = pcam_model.load(model_folder, tta=False)
    np.testing.assert_allclose(plain.logits(PATCHES), forward(network, part, tta=False)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("tta", [False, True])
def test_onnx_says_what_torch_says(model_folder: Path, tta: bool) -> None:
    ours, onnx = (pcam_model.load(model_folder, runtime=name, tta=tta) for name in ("torch", "onnx"))
    for count in (1, 9):
        np.testing.assert_allclose(onnx.logits(PATCHES[:count]), ours.logits(PATCHES[:count]), rtol=0, atol=1e-4)
    np.testing.assert_allclose(onnx.logits(PATCHES, batch=4), onnx.logits(PATCHES), rtol=0, atol=1e-5)


def test_the_faster_runtime_is_chosen_where_that_is_asked_for_and_says_why(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(folder: Path) -> runtimes.BackendChoice:
        found = pcam_model.load(folder, runtime="auto")
        assert isinstance(found.runtime, runtimes.BACKENDS[found.chosen.name])
        return found.chosen

    def absent(package: str) -> None:
        monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == package else find_spec(name))

    assert pcam_model.load(model_folder).chosen.name == "torch"
    monkeypatch.setattr(runtimes, "_torch_has_a_gpu", lambda: False)
    assert chosen(model_folder).name == "onnx" and "faster on a processor" in chosen(model_folder).why
    absent("onnxruntime")
    assert chosen(model_folder).name == "torch" and "onnxruntime" in chosen(model_folder).why
    absent("torch")
    assert chosen(model_folder) == ("onnx", "torch is not installed")
    monkeypatch.undo()
    monkeypatch.setattr(runtimes, "_torch_has_a_gpu", lambda: True)
    assert chosen(model_folder) == ("torch", "there is a GPU")
    shutil.copytree(model_folder, tmp_path / "model")
    about = (tmp_path / "model" / ABOUT).read_text()
    (tmp_path / "model" / ABOUT).write_text(about.replace(pcam_model.load(model_folder).model.graph, ""))
    assert chosen(tmp_path / "model") == ("torch", "the model was published without model.onnx")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (PATCHES.astype(np.float32) / 255, r"float32 \(9, 96, 96, 3\)"),
        (PATCHES.transpose(0, 3, 1, 2), r"uint8 \(9, 3, 96, 96\)"),
        (PATCHES[:, :50], r"uint8 \(9, 50, 96, 3\)"),
        (Image.new("L", (96, 96)), "an image of mode L"),
        (Image.new("RGB", (50, 50)), r"uint8 \(50, 50, 3\)"),
        ("patch.tif", r"<U9 \(\)"),
    ],
)
def test_what_is_no_patch_is_refused_in_a_sentence(predictor: Predictor, given: object, found: str) -> None:
    with pytest.raises(SourceError, match=rf"a patch is uint8 \(96, 96, 3\).*; this is {found}; convert it"):
        predictor(given)


def test_a_model_is_found_by_all_its_names(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, predictor: Predictor
) -> None:
    monkeypatch.setenv("PCAM_CACHE", str(tmp_path / "cache"))
    store = open_store((tmp_path / "store").as_uri())
    publish_model(store, model_folder)
    with pytest.raises(ModelError, match="'champion' is not published"):
        pcam_model.load("champion", store=store.uri)
    promote(store, "made")
    promote(store, "made", "beta")
    expected = predictor(PATCHES).probabilities
    for name in ("champion", "made", "beta"):
        found = pcam_model.load(name, store=store.uri)
        assert found.model.run == "made" and (found(PATCHES).probabilities == expected).all()
    for name in (store.uri, f"{store.uri}/runs/made", f"{store.uri}/channels/beta", str(tmp_path / "store")):
        assert pcam_model.load(name).model.weights == predictor.model.weights
    assert "run made, resnet18 at 64 px" in repr(found)
    with pytest.raises(ConfigError, match="no runtime 'tf'"):
        pcam_model.load("champion", store=store.uri, runtime="tf")  # type: ignore[arg-type]


@pytest.mark.parametrize(("file", "runtime"), [(WEIGHTS, "torch"), (GRAPH, "onnx")])
def test_a_folder_whose_network_is_another_is_refused(
    model_folder: Path, tmp_path: Path, file: str, runtime: str
) -> None:
    shutil.copytree(model_folder, tmp_path / "model")
    content = bytearray((tmp_path / "model" / file).read_bytes())
    content[-9] ^= 1
    (tmp_path / "model" / file).write_bytes(content)
    with pytest.raises(ModelError, match="is damaged: its SHA-256"):
        pcam_model.load(tmp_path / "model", runtime=runtime)  # type: ignore[arg-type]
    (tmp_path / "model" / file).unlink()
    with pytest.raises(ModelError, match=f"has no {file}"):
        pcam_model.load(tmp_path / "model", runtime=runtime)  # type: ignore[arg-type]


def test_a_model_that_this_version_cannot_use_says_so(model_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "model")
    about = (tmp_path / "model" / ABOUT).read_text()
    (tmp_path / "model" / ABOUT).write_text(about.replace("resnet18", "resnet1800"))
    with pytest.raises(ModelError, match="no network 'resnet1800' is known here"):
        pcam_model.load(tmp_path / "model")
    (tmp_path / "model" / ABOUT).write_text(about.replace(pcam_model.load(model_folder).model.graph, ""))
    with pytest.raises(ModelError, match=r"published without model\.onnx"):
        pcam_model.load(tmp_path / "model", runtime="onnx")
    (tmp_path / "model" / ABOUT).write_text("{")
    with pytest.raises(PcamError, match="holds no model"):
        pcam_model.load(tmp_path / "model")
