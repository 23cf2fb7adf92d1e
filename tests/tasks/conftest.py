"""Kaggle's real client, and a stand-in of its server."""

import gc
import os
import time
from types import SimpleNamespace

import pytest
from kaggle_standin import PORT, Standin, archive


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return archive(tmp_path_factory.mktemp("kaggle") / "a.zip", seed=0)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home without credentials; the client talks to the stand-in and does not sleep between its own attempts."""
    for name in list(os.environ):
        if name.startswith("KAGGLE_") or name == "XDG_CONFIG_HOME":
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    (home / ".kaggle").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    from kaggle.api import kaggle_api_extended

    quick = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
    monkeypatch.setattr(kaggle_api_extended, "time", quick)
    monkeypatch.setattr(kaggle_api_extended.KaggleApi, "config", str(home / ".kaggle" / "kaggle.json"))
    return home


@pytest.fixture
def signed_in(home, monkeypatch):
    monkeypatch.setenv("KAGGLE_USERNAME", "ada")
    monkeypatch.setenv("KAGGLE_KEY", "secret")


@pytest.fixture
def kaggle(content):
    standin, end = Standin(content), time.monotonic() + 30
    while True:
        try:
            server = standin.serve(PORT)
            break
        except OSError as error:
            if time.monotonic() > end:
                pytest.skip(f"port {PORT}, the only one where Kaggle's SDK looks for a stand-in, is taken: {error}")
            time.sleep(0.2)
    yield standin
    server.shutdown()
    server.server_close()
    gc.collect()
