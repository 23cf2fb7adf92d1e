"""`pcam predict`: a row for every image, a list of those that cannot be read, and what the installation needs."""

import csv
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from a_model import publish_model
from patch_sets import PatchSet

import pcam_model
from pcam_model.core.errors import ConfigError, SourceError, UnwritableError
from pcam_model.core.openvino_runtime import import_openvino
from pcam_model.data.image_inputs import Images
from pcam_model.data.pack import build_pack
from pcam_model.data.source import SourceConfig, fetch
from pcam_model.inference.predictor import Predictor
from pcam_model.inference.streaming import predict_to_csv
from pcam_model.registry.channels import promote
from pcam_model.registry.factory import open_store

ROOT = Path(__file__).parents[2]
# Runs `pcam` where the packages named in BLOCKED are not installed.
BARE = """
import os, sys
from importlib.machinery import PathFinder
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = name.partition(".")[0] in os.environ["BLOCKED"].split()
        return None if absent else super().find_spec(name, path, target)
sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in sys.meta_path]
from pcam_model.cli.main import main
main()
"""
PAGE = ROOT / "docs" / "inference.md"
MODULES = {"scikit-learn": "sklearn", "pyyaml": "yaml", "pillow": "PIL", "prefect-docker": "prefect_docker"}
Make = Callable[..., PatchSet]


@pytest.fixture(scope="module")
def predictor(model_folder: Path) -> Predictor:
    return pcam_model.load(model_folder, tta=False)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_zip_of_kaggles_is_predicted_whole_labelled_or_not(
    predictor: Predictor, patch_set: Make, tmp_path: Path
) -> None:
    made = patch_set(20, test=5)
    counts = predict_to_csv(tmp_path / "out.csv", predictor, Images([made.zip(tmp_path / "k.zip")]), batch_size=7)
    found = rows(tmp_path / "out.csv")
    assert [row["id"] for row in found] == made.ids
    assert counts.patches == 25
    assert counts.unreadable == 0
    predictions = predictor(made.patches)
    np.testing.assert_allclose(
        [float(row["probability"]) for row in found], predictions.probabilities, rtol=0, atol=1e-6
    )
    assert [int(row["label"]) for row in found] == predictions.labels.tolist()
    assert counts.tumour == predictions.labels.sum()
    assert found[0]["file"] == f"train/{made.ids[0]}.tif"
    assert found[-1]["file"].startswith("test/")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k.zip", "out.csv"]


def test_folders_at_any_depth_single_images_and_packs_are_taken(
    predictor: Predictor, patch_set: Make, tmp_path: Path
) -> None:
    deep = patch_set(4, suffix="png").folder(tmp_path / "in/a/b/c")
    patch_set(6, suffix="jpg", seed=1).folder(tmp_path / "in")
    (tmp_path / "in" / ".hidden").mkdir()
    (tmp_path / "in" / ".hidden" / "x.tif").write_bytes(b"x")
    (tmp_path / "in" / "slide.svs").write_bytes(b"x")
    images = Images([tmp_path / "in"])
    assert len(images) == 10
    assert images.ignored_files == ["slide.svs"]
    one = next((deep / "train").iterdir())
    single = Images([one, tmp_path / "in"])
    assert len(single) == 11
    assert single.name(0) == (one.stem, str(one))
    assert single.name(1).file.startswith(f"{tmp_path}/in/")
    config = SourceConfig(kind="path", path=str(patch_set(8).zip(tmp_path / "k.zip")))
    pack = build_pack(fetch(config, 0), config, tmp_path / "packs", 0)
    counts = predict_to_csv(tmp_path / "pack.csv", predictor, Images([Path(pack.folder)]))
    assert counts.patches == 8
    assert {row["file"] for row in rows(tmp_path / "pack.csv")} == {""}
    predict_to_csv(tmp_path / "zip.csv", predictor, Images([tmp_path / "k.zip"]))
    drop = [{**row, "file": ""} for row in rows(tmp_path / "zip.csv")]
    assert sorted(map(str, drop)) == sorted(map(str, rows(tmp_path / "pack.csv")))


def test_what_cannot_be_read_is_listed_and_the_rest_is_done(
    predictor: Predictor, patch_set: Make, tmp_path: Path
) -> None:
    made = patch_set(6)
    made.files["train/cut.tif"] = made.files[f"train/{made.ids[0]}.tif"][:900]
    made.files["train/empty.png"] = b""
    images = Images([made.zip(tmp_path / "k.zip")])
    counts = predict_to_csv(tmp_path / "out.csv", predictor, images)
    assert (counts.patches, counts.unreadable) == (6, 2)
    errors = rows(tmp_path / "out.errors.csv")
    assert [row["id"] for row in errors] == ["cut", "empty"]
    assert "image" in errors[0]["reason"]
    assert "empty" in errors[1]["reason"]
    predict_to_csv(tmp_path / "out.csv", predictor, Images([patch_set(6).zip(tmp_path / "good.zip")]))
    assert not (tmp_path / "out.errors.csv").exists()


def test_an_interrupted_prediction_leaves_the_table_of_before(
    predictor: Predictor, kaggle_zip: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.csv").write_text("of before")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_to_csv(tmp_path / "out.csv", predictor, Images([kaggle_zip]), 4, stop)
    assert (tmp_path / "out.csv").read_text() == "of before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kaggle.zip", "out.csv"]


def test_places_that_hold_nothing_and_tables_that_cannot_be_written_are_said(
    predictor: Predictor, kaggle_zip: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for place, message in (("empty", "no image is among its 0 files"), ("none.zip", "no such file or folder")):
        with pytest.raises(SourceError, match=message):
            Images([tmp_path / place])
    with pytest.raises(ConfigError, match="is a folder"):
        predict_to_csv(tmp_path / "empty", predictor, Images([kaggle_zip]))
    with pytest.raises(ConfigError, match="is a folder or a device"):
        predict_to_csv(Path("/dev/null"), predictor, Images([kaggle_zip]))
    with pytest.raises(UnwritableError, match=r"kaggle\.zip is a file, expected a folder; name a folder with --out"):
        predict_to_csv(kaggle_zip / "out.csv", predictor, Images([kaggle_zip]))


@pytest.fixture(scope="module")
def store(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    store = open_store((tmp_path_factory.mktemp("published") / "store").as_uri())
    publish_model(store, model_folder)
    promote(store, "made")
    return store.uri


def bare(blocked: set[str], cwd: Path, store: str, *words: str, code: str = BARE) -> subprocess.CompletedProcess[str]:
    names = " ".join(sorted(MODULES.get(name, name) for name in blocked))
    places = {"BLOCKED": names, "PCAM_STORE": store, "PCAM_CACHE": str(cwd / "cache"), "PYTHONPATH": str(ROOT)}
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd), "OMP_NUM_THREADS": "1", **places}
    return subprocess.run(
        [sys.executable, "-c", code, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=200
    )


def dependencies(extra: str = "") -> set[str]:
    """The packages that pyproject.toml asks for, in the base or in an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return {re.split(r"[<>=\[]", requirement)[0].lower() for requirement in requirements}


def test_who_has_no_torch_predicts_with_onnx(store: str, patch_set: Make, tmp_path: Path) -> None:
    command = re.search(r"pip install --no-deps \. && pip install ([a-z0-9 ]+)", PAGE.read_text())
    assert command is not None
    blocked = (dependencies() | dependencies("pipeline")) - set(command[1].split())
    assert {"torch", "torchvision", "pandas", "safetensors", "prefect", "kaggle", "onnx"} <= blocked
    made = patch_set(5)
    made.files["train/bad.jpg"] = b"\xff\xd8 no"
    made.zip(tmp_path / "k.zip")
    done = bare(blocked, tmp_path, store, "predict", "champion", "k.zip", "--backend", "onnx", "--out", "p.csv")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "pcam: 1 of 6 images could not be read; p.errors.csv lists them with the reasons" in done.stderr
    assert len(rows(tmp_path / "p.csv")) == 5
    assert "by run made" in done.stdout
    auto = bare(blocked, tmp_path, store, "predict", "champion", "k.zip", "--out", "q.csv")
    assert auto.stderr.startswith("Computed by onnx (--backend): torch is not installed\n"), auto.stderr
    assert (tmp_path / "q.csv").read_bytes() == (tmp_path / "p.csv").read_bytes()
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "pack.json").write_text("{}")
    (tmp_path / "x.h5").write_bytes(b"")
    for place, package in (("pack", "pandas"), ("x.h5", "h5py")):
        short = bare(blocked, tmp_path, store, "predict", "champion", place, "--out", "r.csv")
        assert f"needs {package}, which is not installed; pip install {package}\n" in short.stderr
    without = bare(blocked, tmp_path, store, "predict", "champion", "k.zip", "--backend", "torch", "--out", "r.csv")
    assert without.returncode == 1
    assert without.stderr == "pcam: the backend torch needs torch, which is not installed; pip install torch\n"
    assert not (tmp_path / "r.csv").exists()


def test_the_consumers_install_needs_no_prefect_and_no_kaggle(store: str, patch_set: Make, tmp_path: Path) -> None:
    patch_set(12).zip(tmp_path / "k.zip")
    blocked = dependencies("pipeline") | {"sqlalchemy", "prefect_dask", "flows", "tasks", "deployments"}
    for words in (
        ["pull", "champion", "pulled"],
        ["predict", "pulled", "k.zip", "--out", "p.csv", "--no-tta"],
        ["score", "champion", "k.zip", "--json"],
        ["runs"],
        ["verify"],
    ):
        done = bare(blocked, tmp_path, store, *words)
        assert done.returncode == 0, (words, done.stderr)
        assert ("Computed by torch (--backend): onnxruntime" in done.stderr) == (words[0] == "predict")
    assert len(rows(tmp_path / "p.csv")) == 12


def has_bfloat16() -> bool:
    """Whether OpenVINO computes in bfloat16 here."""
    core = import_openvino("this test").Core()
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_the_commands_of_the_page_run(store: str, patch_set: Make, tmp_path: Path) -> None:
    patch_set(3).zip(tmp_path / "patches.zip")
    commands = re.findall(r"^pcam (predict .*?)(?:  +#.*)?$", PAGE.read_text(), re.MULTILINE)
    assert len(commands) == 3
    commands = [command for command in commands if "bfloat16" not in command or has_bfloat16()]
    for command in commands:
        done = bare(set(), tmp_path, store, *command.split())
        assert done.returncode == 0, done.stderr
        assert len(rows(tmp_path / "predictions.csv")) == 3
