"""Default paths, and what a machine without a home folder is told."""

import os
from pathlib import Path

import pytest

from pcam_model.core import paths
from pcam_model.core.errors import ConfigError
from pcam_model.core.paths import cache_dir, resolve_store_uri


def test_the_cache_is_the_users_cache_folder_unless_pcam_cache_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PCAM_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "pcam"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "pcam"
    monkeypatch.setenv("PCAM_CACHE", "~/mine")
    assert cache_dir() == tmp_path / "mine"


def test_without_a_home_folder_the_message_names_pcam_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PCAM_CACHE", raising=False)
    monkeypatch.setattr(paths.platformdirs, "user_cache_dir", lambda name: f"~/.cache/{name}")  # as without HOME
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(ConfigError, match="set PCAM_CACHE"):
        cache_dir()


def test_the_store_is_the_given_one_then_pcam_store_then_a_folder_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PCAM_STORE", raising=False)
    assert resolve_store_uri() == (tmp_path / ".pcam" / "store").as_uri()
    monkeypatch.setenv("PCAM_STORE", "s3://bucket/pcam")
    assert resolve_store_uri() == "s3://bucket/pcam"
    assert resolve_store_uri("file:///elsewhere") == "file:///elsewhere"
