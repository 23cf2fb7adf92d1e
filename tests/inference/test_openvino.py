"""The backend OpenVINO: the same logits in float32, near ones in bfloat16, and sentences where it cannot compute."""

import csv
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patch_sets import PatchSet, some_patches

import pcam_model
from pcam_model.cli import main as cli
from pcam_model.core.errors import ConfigError, MissingPackageError
from pcam_model.core.openvino_runtime import import_openvino

ROOT = Path(__file__).parents[2]

if find_spec("openvino") is None:
    pytest.skip("needs pcam[openvino]", allow_module_level=True)
openvino: Any = import_openvino("these tests")
PATCHES, _ = some_patches(9, seed=3)
CAPABILITIES = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
has_bfloat16 = pytest.mark.skipif("BF16" not in CAPABILITIES, reason="the CPU has no bfloat16")


@pytest.mark.parametrize("tta", [False, True])
def test_float32_agrees_with_torch(model_folder: Path, tta: bool) -> None:
    ours, found = (pcam_model.load(model_folder, backend=name, tta=tta) for name in ("torch", "openvino"))
    for count in (1, 9):
        np.testing.assert_allclose(found.logits(PATCHES[:count]), ours.logits(PATCHES[:count]), rtol=0, atol=1e-4)
    assert (found.backend_choice.name, found.precision) == ("openvino", "float32")


@has_bfloat16
def test_bfloat16_is_near_and_another(model_folder: Path) -> None:
    exact, near = (
        pcam_model.load(model_folder, backend="openvino", precision=name) for name in ("float32", "bfloat16")
    )
    difference = np.abs(near.logits(PATCHES) - exact.logits(PATCHES)).max()
    assert 0 < difference < 0.2
    assert pcam_model.load(model_folder, backend="auto", precision="bfloat16").backend_choice.name == "openvino"


def test_several_threads_get_their_own_logits(model_folder: Path) -> None:
    predictor = pcam_model.load(model_folder, backend="openvino", tta=False)
    parts = [PATCHES[start : start + 3] for start in (0, 3, 6)] * 8
    expected = [predictor.logits(part) for part in parts]
    with ThreadPoolExecutor(6) as pool:
        for found, each in zip(pool.map(predictor.logits, parts), expected, strict=True):
            np.testing.assert_allclose(found, each, rtol=0, atol=1e-5)


def test_what_it_cannot_compute_is_said(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="the backend onnx computes in float32; bfloat16 needs the backend openvino"):
        pcam_model.load(model_folder, backend="onnx", precision="bfloat16")
    with pytest.raises(ConfigError, match="there is no precision 'int8'; choose float32 or bfloat16"):
        pcam_model.load(model_folder, precision="int8")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="choose torch, onnx, openvino or auto"):
        pcam_model.load(model_folder, backend="tpu")  # type: ignore[arg-type]

    class OldProcessor:
        def get_property(self, *_: str) -> list[str]:
            return ["FP32", "INT8"]

    monkeypatch.setattr(openvino, "Core", OldProcessor)
    with pytest.raises(ConfigError, match="this CPU does not compute in bfloat16; leave out --precision"):
        pcam_model.load(model_folder, precision="bfloat16", backend="auto")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'pcam\[openvino\]'"):
        pcam_model.load(model_folder, backend="openvino")


def test_nothing_is_written_into_the_home(model_folder: Path, tmp_path: Path) -> None:
    code = "import sys, pcam_model; pcam_model.load(sys.argv[1], backend='openvino'); assert 'openvino' in sys.modules"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, str(model_folder)], env=environment, check=True, timeout=200)
    assert [path.name for path in tmp_path.iterdir()] in ([], [".cache"])
    assert not list(tmp_path.rglob("*intel*"))


@has_bfloat16
def test_the_command_says_in_what_it_computed(
    model_folder: Path,
    tmp_path: Path,
    patch_set: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made: PatchSet = patch_set(6, seed=7, suffix="png")
    out = tmp_path / "p.csv"
    words = ["predict", model_folder, made.zip(tmp_path / "new.zip"), "--precision", "bfloat16", "--out", out]
    monkeypatch.setattr(sys, "argv", ["pcam", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert "Computed by openvino in bfloat16" in capsys.readouterr().err
    with out.open() as file:
        assert len(list(csv.DictReader(file))) == 6
