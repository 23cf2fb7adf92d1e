"""`pcam export --to wsinfer`: what WSInfer's QuPath extension computes from the folder is what the model computes."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from a_model import make_model
from patch_sets import some_patches
from PIL import Image

from pcam_model.cli import main as cli
from pcam_model.inference.predictor import load


def pcam(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["pcam", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code


def as_the_extension_does(folder: Path, patches: list[np.ndarray]) -> np.ndarray:
    """Probabilities of tumour (N,): the transforms of config.json one by one, the network, softmax."""
    config = json.loads((folder / "config.json").read_text())
    tensors = []
    for patch in patches:
        image: object = Image.fromarray(patch)
        for transform in config["transform"]:
            match transform["name"]:
                case "Resize":
                    image = image.resize((transform["arguments"]["size"],) * 2, Image.Resampling.BILINEAR)
                case "ToTensor":
                    image = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255
                case other:
                    raise AssertionError(other)
        tensors.append(image)
    network = torch.jit.load(folder / "torchscript_model.pt")
    with torch.inference_mode():
        return network(torch.stack(tensors)).softmax(1)[:, config["class_names"].index("Tumor")].numpy()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.parametrize("tta", [True, False])
def test_the_folder_computes_what_the_model_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tta: bool
) -> None:
    model = make_model(tmp_path / "model", seed=3, tta=tta)
    out = tmp_path / "pcam-model"
    pcam(monkeypatch, "export", tmp_path / "model", out, "--to", "wsinfer")
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "torchscript_model.pt"]
    patches, _ = some_patches(11, seed=5)
    expected = load(tmp_path / "model")(patches).probabilities
    found = as_the_extension_does(out, list(patches))
    assert np.abs(found - expected).max() < 1e-4
    assert np.ptp(expected) > 1e-3  # or equal outputs would pass
    config = json.loads((out / "config.json").read_text())
    assert (config["patch_size_pixels"], config["spacing_um_px"]) == (96, model.mpp)
    assert config["num_classes"] == len(config["class_names"]) == 2
    assert config["spec_version"] == "1.0"
    assert config["architecture"] == "resnet18"


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_a_folder_that_holds_something_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_folder: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    monkeypatch.setattr(sys, "argv", ["pcam", "export", str(model_folder), str(tmp_path / "full"), "--to", "wsinfer"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "is not empty; expected a new or empty folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]
