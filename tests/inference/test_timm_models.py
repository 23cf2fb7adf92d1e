"""Published models whose body is timm's: every backend, export, heatmap and drift reference."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from a_model import SIZE, make_model
from patch_sets import some_patches

import pcam_model
from pcam_model.core.errors import MissingPackageError, ModelError
from pcam_model.data.patch_loader import normalise
from pcam_model.evaluation.drift_reference import read_reference
from pcam_model.evaluation.heatmap import grad_cam, last_feature_map
from pcam_model.inference.wsinfer_export import export_wsinfer
from pcam_model.training.model_io import load_model

pytest.importorskip("timm", reason="pip install 'pcam[timm]' was not done")
PATCHES, _ = some_patches(9, seed=3)


@pytest.fixture(scope="module", params=["timm:test_efficientnet", "timm:test_vit", "timm:test_mambaout"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("timm") / "model"
    make_model(folder, arch=request.param)
    return folder


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_every_backend_gives_the_logits_of_torch(folder: Path, backend: str) -> None:
    ours, found = (pcam_model.load(folder, backend=name) for name in ("torch", backend))  # type: ignore[arg-type]
    np.testing.assert_allclose(found.logits(PATCHES), ours.logits(PATCHES), rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_the_export_for_wsinfer_computes_what_the_model_computes(folder: Path, tmp_path: Path) -> None:
    assert export_wsinfer(folder, tmp_path / "out", tta=False).largest_difference < 1e-4


def test_heat_is_of_the_stages_and_lies_on_the_patch(folder: Path) -> None:
    network, _ = load_model(folder)
    images = normalise(torch.from_numpy(PATCHES), SIZE)
    assert last_feature_map(network, images[:1]) in network.body.feature_modules()  # type: ignore[operator]
    heat = grad_cam(network, images, torch.arange(9) % 2)
    assert heat.shape == (9, SIZE, SIZE)
    assert heat.amax((1, 2)).max() == pytest.approx(1)


def test_the_drift_reference_holds_the_features_before_the_last_layer(folder: Path) -> None:
    assert read_reference(folder).features.shape[1] == 512


def test_without_timm_torch_says_so_and_onnx_computes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingPackageError, match=r"needs timm, which is not installed; pip install 'pcam\[timm\]'"):
        pcam_model.load(folder, backend="torch")
    assert len(pcam_model.load(folder, backend="onnx").logits(PATCHES)) == 9


def test_a_model_of_a_timm_that_is_not_this_one_is_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    monkeypatch.setattr(timm, "list_models", lambda: ["resnet18"])
    with pytest.raises(ModelError, match=r"has no network 'test_.*; the model needs timm"):
        load_model(folder)
