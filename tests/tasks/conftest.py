"""Kaggle's real client, and a stand-in of its server."""

import gc
import os
import time
from types import SimpleNamespace

import pytest
from kaggle_standin import Standin, archive
from prefect_server import prefect, server_url

from pcam_model.core import retry

__all__ = ["prefect", "server_url"]


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
def kaggle(content, monkeypatch):
    """The stand-in, on a port of its own, to which the address of Kaggle's test environment leads."""
    from kagglesdk import kaggle_env

    standin = Standin(content)
    server = standin.serve()
    standin.port = server.server_port
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.TEST, f"http://localhost:{standin.port}")
    yield standin
    server.shutdown()
    server.server_close()
    gc.collect()


@pytest.fixture
def waits(monkeypatch):
    """The seconds of each wait before a retry, in order; time passes without waiting."""
    clock = FakeClock()
    monkeypatch.setattr(retry, "CLOCK", clock)
    return clock.waits


class FakeClock(retry.Clock):
    def __init__(self):
        self.waits = []

    def monotonic(self):
        return sum(self.waits)

    def sleep(self, seconds):
        self.waits.append(seconds)
