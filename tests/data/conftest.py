"""Fixtures that build packs and collect log messages."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from pcam_model.data.pack import Pack, build_pack
from pcam_model.data.source import SourceConfig, fetch


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the library logs, as `messages.text`."""
    caplog.set_level(logging.INFO, logger="pcam_model")
    return caplog


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., Pack]:
    """pack(path, **source config) -> Pack, below tmp_path/packs."""

    def build(path: Path | None = None, *, seed: int = 2, **source_keys: object) -> Pack:
        location = {"kind": "path", "path": str(path)} if path else {"kind": "sample"}
        config = SourceConfig.model_validate({**location, **source_keys})
        return build_pack(fetch(config, seed), config, tmp_path / "packs", seed)

    return build
