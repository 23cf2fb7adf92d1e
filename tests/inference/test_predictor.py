"""The predictor: its inputs, its probabilities, its backends, and how a model is named."""

import json
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
from pcam_model.core.model_metadata import METADATA_FILE, ONNX_FILE, WEIGHTS_FILE
from pcam_model.data.patch_loader import make_loader
from pcam_model.evaluation.logits import predict_logits
from pcam_model.inference import backends
from pcam_model.inference.predictor import Predictor
from pcam_model.registry.channels import promote
from pcam_model.registry.factory import open_store
from pcam_model.training.model_io import load_model

PATCHES = np.random.default_rng(3).integers(0, 256, (9, 96, 96, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def predictor(model_folder: Path) -> Predictor:
    return pcam_model.load(model_folder)


def test_arrays_tensors_images_and_lists_of_them_give_equal_predictions(predictor: Predictor) -> None:
    expected = predictor(PATCHES)
    assert expected.probabilities.shape == expected.labels.shape == (9,)
    images = [Image.fromarray(patch) for patch in PATCHES]
    for given in (torch.from_numpy(PATCHES), images, list(PATCHES), tuple(torch.from_numpy(PATCHES))):
        np.testing.assert_allclose(predictor(given).probabilities, expected.probabilities, rtol=0, atol=1e-6)
    for one in (PATCHES[4], torch.from_numpy(PATCHES)[4], images[4], images[4].convert("RGBA")):
        np.testing.assert_allclose(predictor(one).probabilities, expected.probabilities[4:5], rtol=0, atol=1e-6)
    assert predictor([]).labels.shape == (0,)
    assert predictor(PATCHES[:0]).probabilities.shape == (0,)


def test_probabilities_equal_those_of_the_report(predictor: Predictor, model_folder: Path) -> None:
    network, model = load_model(model_folder)
    loader = make_loader(torch.from_numpy(PATCHES), np.arange(9), np.zeros(9), model.image_size, torch.device("cpu"))
    logits = predict_logits(network, loader, tta=True)[1].double().numpy()
    predictions = predictor(PATCHES)
    expected = model.scaling.probability(logits[:, 1] - logits[:, 0])
    np.testing.assert_allclose(predictions.probabilities, expected, rtol=0, atol=1e-6)
    assert (predictions.labels == (predictions.probabilities >= 0.45)).all()
    assert 0 < predictions.labels.sum() < 9
    plain = pcam_model.load(model_folder, tta=False)
    np.testing.assert_allclose(plain.logits(PATCHES), predict_logits(network, loader, tta=False)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("tta", [False, True])
def test_onnx_agrees_with_torch(model_folder: Path, tta: bool) -> None:
    ours, onnx = (pcam_model.load(model_folder, backend=name, tta=tta) for name in ("torch", "onnx"))
    for count in (1, 9):
        np.testing.assert_allclose(onnx.logits(PATCHES[:count]), ours.logits(PATCHES[:count]), rtol=0, atol=1e-4)
    np.testing.assert_allclose(onnx.logits(PATCHES, batch_size=4), onnx.logits(PATCHES), rtol=0, atol=1e-5)


def test_auto_chooses_the_faster_backend_and_gives_a_reason(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(folder: Path) -> backends.BackendChoice:
        found = pcam_model.load(folder, backend="auto")
        kind = {"torch": backends.TorchBackend, "onnx": backends.OnnxBackend}[found.backend_choice.name]
        assert isinstance(found.backend, kind)
        return found.backend_choice

    def absent(package: str) -> None:
        monkeypatch.setattr(backends, "find_spec", lambda name: None if name == package else find_spec(name))

    assert pcam_model.load(model_folder).backend_choice.name == "torch"
    monkeypatch.setattr(backends, "_torch_has_gpu", lambda: False)
    assert chosen(model_folder).name == "onnx"
    assert "faster on a CPU" in chosen(model_folder).reason
    absent("onnxruntime")
    assert chosen(model_folder).name == "torch"
    assert "onnxruntime" in chosen(model_folder).reason
    absent("torch")
    assert chosen(model_folder) == ("onnx", "torch is not installed")
    monkeypatch.undo()
    monkeypatch.setattr(backends, "_torch_has_gpu", lambda: True)
    assert chosen(model_folder) == ("torch", "there is a GPU")
    shutil.copytree(model_folder, tmp_path / "model")
    about = (tmp_path / "model" / METADATA_FILE).read_text()
    (tmp_path / "model" / METADATA_FILE).write_text(about.replace(pcam_model.load(model_folder).model.onnx_sha256, ""))
    assert chosen(tmp_path / "model") == ("torch", "the model was published without model.onnx")


@pytest.mark.parametrize(
    ("patches", "description"),
    [
        (PATCHES.astype(np.float32) / 255, r"float32 \(9, 96, 96, 3\)"),
        (PATCHES.transpose(0, 3, 1, 2), r"uint8 \(9, 3, 96, 96\)"),
        (PATCHES[:, :50], r"uint8 \(9, 50, 96, 3\)"),
        (Image.new("L", (96, 96)), "an image of mode L"),
        (Image.new("RGB", (50, 50)), r"uint8 \(50, 50, 3\)"),
        ("patch.tif", r"<U9 \(\)"),
    ],
)
def test_input_of_another_shape_or_type_is_refused_in_one_sentence(
    predictor: Predictor, patches: object, description: str
) -> None:
    with pytest.raises(SourceError, match=rf"a patch is uint8 \(96, 96, 3\).*; this is {description}; convert it"):
        predictor(patches)


def test_a_model_is_found_by_channel_run_folder_and_address(
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
        assert found.model.run == "made"
        assert (found(PATCHES).probabilities == expected).all()
    for name in (store.uri, f"{store.uri}/runs/made", f"{store.uri}/channels/beta", str(tmp_path / "store")):
        assert pcam_model.load(name).model.weights_sha256 == predictor.model.weights_sha256
    assert "run='made', arch='resnet18', image_size=64" in repr(found)
    with pytest.raises(ConfigError, match="no backend 'tf'"):
        pcam_model.load("champion", store=store.uri, backend="tf")  # type: ignore[arg-type]


@pytest.mark.parametrize(("file", "backend"), [(WEIGHTS_FILE, "torch"), (ONNX_FILE, "onnx")])
def test_a_damaged_or_missing_network_file_is_refused(
    model_folder: Path, tmp_path: Path, file: str, backend: str
) -> None:
    shutil.copytree(model_folder, tmp_path / "model")
    content = bytearray((tmp_path / "model" / file).read_bytes())
    content[-9] ^= 1
    (tmp_path / "model" / file).write_bytes(content)
    with pytest.raises(ModelError, match="is damaged: its SHA-256"):
        pcam_model.load(tmp_path / "model", backend=backend)  # type: ignore[arg-type]
    (tmp_path / "model" / file).unlink()
    with pytest.raises(ModelError, match=f"has no {file}"):
        pcam_model.load(tmp_path / "model", backend=backend)  # type: ignore[arg-type]


def test_a_model_that_this_version_cannot_use_is_refused(model_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "model")
    about = (tmp_path / "model" / METADATA_FILE).read_text()
    (tmp_path / "model" / METADATA_FILE).write_text(about.replace("resnet18", "resnet1800"))
    with pytest.raises(ModelError, match="no network 'resnet1800' is known here"):
        pcam_model.load(tmp_path / "model")
    (tmp_path / "model" / METADATA_FILE).write_text(about.replace(pcam_model.load(model_folder).model.onnx_sha256, ""))
    with pytest.raises(ModelError, match=r"published without model\.onnx"):
        pcam_model.load(tmp_path / "model", backend="onnx")
    (tmp_path / "model" / METADATA_FILE).write_text("{")
    with pytest.raises(PcamError, match=r"model\.json is malformed"):
        pcam_model.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", "-1"),
        ("temperature", "0"),
        ("temperature", "NaN"),
        ("temperature", "Infinity"),
        ("threshold", "NaN"),
        ("threshold", "1.5"),
        ("threshold", "-0.1"),
        ("thresholds", '{"youden": NaN}'),
        ("image_size", "0"),
        ("image_size", "-5"),
        ("image_size", "20000"),
        ("mpp", "0"),
        ("mpp", "NaN"),
        ("std", "[0, 1, 1]"),
        ("mean", "[NaN, 1, 1]"),
        ("weights_sha256", '"x"'),
    ],
)
def test_metadata_out_of_range_are_a_sentence(model_folder: Path, tmp_path: Path, key: str, value: str) -> None:
    content = json.loads((model_folder / METADATA_FILE).read_bytes())
    text = json.dumps({**content, key: "HERE"}).replace('"HERE"', value)
    (tmp_path / METADATA_FILE).write_text(text)
    with pytest.raises(ModelError, match=rf"model\.json is malformed \({key}.*; do not use this model; pull it again"):
        pcam_model.load(tmp_path)
