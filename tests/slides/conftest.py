"""A composed slide, and the model that predicts it."""

from pathlib import Path

import pytest
from slide_files import Composed, compose

import pcam_model
from pcam_model.inference.predictor import Predictor

pytest.importorskip("openslide", reason="needs pcam[slides]")


@pytest.fixture(scope="session")
def composed() -> Composed:
    """A mosaic of 12 generated patches."""
    return compose()


@pytest.fixture(scope="session")
def predictor(model_folder: Path) -> Predictor:
    """A small model in torch, one view a patch."""
    return pcam_model.load(model_folder, tta=False)
