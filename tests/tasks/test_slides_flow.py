"""The flow `pcam-slides` on a real Prefect: each slide once into the store, whatever becomes of the others."""

import csv
import io
from pathlib import Path

import pytest
from a_model import publish_model

from flows.slides import slides
from pcam_model.core.errors import ConfigError, ModelError, SourceError
from pcam_model.registry.channels import promote
from pcam_model.registry.config import StoreConfig
from pcam_model.registry.factory import open_store
from pcam_model.slides.records import SlideOptions
from pcam_model.slides.store import plan_slides
from tests.slides.slide_files import compose, write_slide

pytest.importorskip("openslide", reason="needs pcam[slides]")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def store_uri(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PCAM_CACHE", str(tmp_path / "cache"))
    store = open_store((tmp_path / "store").as_uri())
    publish_model(store, model_folder)
    promote(store, "made")
    return store.uri


def test_each_slide_is_predicted_into_the_store_once(prefect: str, store_uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    pixels = compose(rows=2, columns=2).pixels
    write_slide(folder / "a.tif", pixels)
    (folder / "broken.svs").write_bytes(b"no slide")
    options, config, store = SlideOptions(stride=96), StoreConfig(uri=store_uri), open_store(store_uri)
    first = slides(str(folder), store=config, options=options, tta=False)
    assert (first.slides, first.cached, [failure.name for failure in first.failures]) == (1, 0, ["broken"])
    assert first.uri == f"{store_uri}/slides/made/slides.csv"
    rows = list(csv.DictReader(io.StringIO(store.read("slides/made/slides.csv").decode())))
    assert [(row["name"], bool(row["reason"])) for row in rows] == [("a", False), ("broken", True)]
    keys = {entry.key for entry in store.entries("slides/made/a/")}
    assert {f"slides/made/a/{name}" for name in ("step.json", "heatmap.tif", "probabilities.parquet")} <= keys
    before = store.read("slides/made/a/probabilities.parquet")
    write_slide(folder / "b.tif", pixels)
    again = slides(str(folder), store=config, options=options, tta=False)
    assert (again.slides, again.cached) == (2, 1)
    assert store.read("slides/made/a/probabilities.parquet") == before
    wider = slides(str(folder / "a.tif"), store=config, options=SlideOptions(stride=64), tta=False)
    assert (wider.slides, wider.cached) == (1, 0)
    assert store.read("slides/made/a/probabilities.parquet") != before


def test_mistakes_are_found_before_the_work(store_uri: str, tmp_path: Path) -> None:
    options = SlideOptions()
    with pytest.raises(ConfigError, match="source is empty"):
        plan_slides("", "champion", store_uri, "", options)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no slide is among its 0 files"):
        plan_slides(str(tmp_path / "empty"), "champion", store_uri, "", options)
    write_slide(tmp_path / "a.tif", compose(1, 1).pixels)
    with pytest.raises(ModelError, match="absent"):
        plan_slides(str(tmp_path / "a.tif"), "absent", store_uri, "", options)
    with pytest.raises(ConfigError, match="no name for a run"):
        plan_slides(str(tmp_path / "a.tif"), "champion", store_uri, "Not A Name", options)
