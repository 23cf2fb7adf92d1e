"""The Compose stack, as Compose itself reads it."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from clone import REPO, environment

FOLDER = REPO / "deployments" / "compose"
ONCE = {"prepare"}


def compose() -> list[str]:
    """The command, as a plugin or by itself."""
    plugin = ["docker", "compose"]
    if shutil.which("docker") and subprocess.run([*plugin, "version"], capture_output=True).returncode == 0:
        return plugin
    return ["docker-compose"] if shutil.which("docker-compose") else []


def config(settings: Path) -> "subprocess.CompletedProcess[str]":
    command = [*compose(), "--env-file", str(settings), "-f", str(FOLDER / "compose.yaml"), "config"]
    return subprocess.run(command, env=environment(), capture_output=True, text=True)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """The example, filled in."""
    lines = [f"{line}filled-in-0123456" if line.endswith("=") else line
             for line in (FOLDER / ".env.example").read_text().splitlines()]  # fmt: skip
    (tmp_path / "settings").write_text("\n".join(lines))
    return tmp_path / "settings"


needs_compose = pytest.mark.skipif(not compose(), reason="neither `docker compose` nor docker-compose is here")


@needs_compose
def test_the_stack_is_read_as_it_is_meant(settings: Path) -> None:
    done = config(settings)
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = yaml.safe_load(done.stdout)
    assert set(read["services"]) == {"database", "server", "s3", "prepare", "worker"}
    for name, service in read["services"].items():
        assert name in ONCE or ("healthcheck" in service and service["restart"] == "unless-stopped"), name
    assert {volume for volume in read["volumes"]} == {"database", "server", "store"}


@needs_compose
def test_what_is_not_filled_in_is_asked_for(settings: Path) -> None:
    settings.write_text("\n".join(line for line in settings.read_text().splitlines() if "POSTGRES" not in line))
    done = config(settings)
    assert done.returncode != 0
    assert "POSTGRES_PASSWORD" in done.stderr


def test_versions_are_pinned_and_no_secret_has_a_default() -> None:
    text = (FOLDER / "compose.yaml").read_text()
    images = [service["image"] for service in yaml.safe_load(text)["services"].values()]
    assert all(":" in image and "latest" not in image for image in images)
    for line in (FOLDER / ".env.example").read_text().splitlines():
        if line.startswith(("POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY", "KAGGLE_API_TOKEN")):
            assert line.endswith("=")
    assert "${POSTGRES_PASSWORD:?" in text
    assert "${S3_SECRET_KEY:?" in text
