"""Settings of Prefect that cannot be read end in one sentence, which names what to correct."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pcam_model.core.errors import ConfigError
from tasks.prefect_settings import import_prefect

TRAIN = "import sys; sys.argv[1:] = ['train']; from pcam_model.cli.main import main; main()"
SLOW = pytest.mark.slow
ROOT, ONE_THREAD = Path(__file__).parents[2], {"OMP_NUM_THREADS": "1"}

CASES = [
    pytest.param("", "", {"PREFECT_LOGGING_LEVEL": "LOUD"}, "PREFECT_LOGGING_LEVEL: Input should be 'DEBUG'"),
    pytest.param("", "", {"PREFECT_API_REQUEST_TIMEOUT": "soon"}, "PREFECT_API_REQUEST_TIMEOUT: .*number", marks=SLOW),
    pytest.param(
        "", "", {"PREFECT_CLIENT_CUSTOM_HEADERS": "a"}, "PREFECT_CLIENT_CUSTOM_HEADERS is no JSON", marks=SLOW
    ),
    pytest.param(".prefect/profiles.toml", 'active = "x', {}, "profiles.toml is no TOML", marks=SLOW),
    pytest.param("pyproject.toml", "[tool.prefect", {}, "from pyproject.toml: invalid TOML", marks=SLOW),
    pytest.param("prefect.toml", '[logging]\nlevel = "LOUD"', {}, "level: Input should be", marks=SLOW),
]


@pytest.mark.parametrize(("file", "content", "variables", "expected"), CASES)
def test_settings_that_cannot_be_read(
    file: str, content: str, variables: dict[str, str], expected: str, tmp_path: Path
) -> None:
    if file:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(content)
    environment = {"HOME": str(tmp_path), "PATH": os.defpath, "PYTHONPATH": str(ROOT), **ONE_THREAD} | variables
    done = subprocess.run(
        [sys.executable, "-c", TRAIN], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert re.search(f"^pcam: Prefect's settings cannot be read: .*{expected}.*; correct ", done.stderr), done.stderr


def test_certificates_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.pem").write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "a.pem"))
    with pytest.raises(ConfigError, match=r"SSL_CERT_FILE names .*a\.pem, which holds no certificates"):
        import_prefect()


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_certificates_that_are_not_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=f"{name} names .*none, which is not there; correct or unset it"):
        import_prefect()


MISSING = [
    pytest.param({"PREFECT_PROFILE": "work"}, "no profile 'work', which is set by environment variable"),
    pytest.param({"PREFECT_API_SSL_CERT_FILE": "/none"}, "PREFECT_API_SSL_CERT_FILE names /none", marks=SLOW),
    pytest.param({"PREFECT_LOGGING_SETTINGS_PATH": __file__}, "test_prefect_settings.py, which is no YAML", marks=SLOW),
    pytest.param({"ALL_PROXY": "htp://127.0.0.1:9"}, "ALL_PROXY is no address of a proxy", marks=SLOW),
]


@pytest.mark.parametrize(("variables", "expected"), MISSING)
def test_what_the_user_names_and_is_not_there_is_never_replaced(
    variables: dict[str, str], expected: str, tmp_path: Path
) -> None:
    environment = {"HOME": str(tmp_path), "PATH": os.defpath, "PYTHONPATH": str(ROOT), **ONE_THREAD} | variables
    done = subprocess.run(
        [sys.executable, "-c", TRAIN], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("pcam: ")
    assert expected in done.stderr
