"""Kaggle's and Prefect's part of the check."""

import json
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from kaggle_standin import Standin
from prefect.settings import PREFECT_API_URL, temporary_settings

from pcam_model.config_reader import read_config
from tasks import prefect_server
from tasks.checking import check_kaggle, check_prefect

PCAM = [sys.executable, "-c", "from pcam_model.cli.main import main; main()"]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PCAM_CACHE", str(tmp_path / "cache"))
    return read_config(None, ["source.kind=kaggle"])


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_kaggle_is_asked_for_the_download_itself(config, kaggle: Standin, signed_in: None) -> None:
    (finding,) = check_kaggle(config)
    assert (finding.level, finding.found) == ("fine", "the download is allowed")
    kaggle.answers.append((403, {}))
    (finding,) = check_kaggle(config)
    assert finding.level == "failed"
    assert "rules" in finding.found
    assert not finding.transient


def test_no_credentials_are_found_out_without_a_request(config, home: Path) -> None:
    (finding,) = check_kaggle(config)
    assert finding.level == "failed"
    assert "KAGGLE_API_TOKEN" in finding.remedy


def test_versions_must_match_to_the_minor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_server.prefect, "__version__", "3.8.8")
    levels = {v: prefect_server.check_version(v).level for v in ("3.8.1", "3.7.9", "3.9.0", "2.20.0")}
    assert levels == {"3.8.1": "fine", "3.7.9": "failed", "3.9.0": "warning", "2.20.0": "failed"}


def test_clocks_that_are_apart_fail() -> None:
    now = float(int(time.time()))  # a header gives whole seconds
    assert prefect_server.check_clock(formatdate(now, usegmt=True), now).level == "fine"
    finding = prefect_server.check_clock(formatdate(now - 90, usegmt=True), now)
    assert finding.level == "failed"
    assert "90 s ahead" in finding.found


def test_a_server_that_forgets_who_holds_a_slot_is_warned_of() -> None:
    def keeping(where: str) -> dict[str, object]:
        return {"server": {"concurrency": {"lease_storage": f"prefect.server.concurrency.lease_storage.{where}"}}}

    assert prefect_server.check_lease_storage(keeping("memory")).level == "warning"
    assert prefect_server.check_lease_storage(keeping("filesystem")).level == "fine"
    assert prefect_server.check_lease_storage({}).level == "fine"


def test_an_engine_without_gpus_fails_and_one_with_them_does_not() -> None:
    bare = {"ServerVersion": "28", "Runtimes": {"runc": {}}}
    assert prefect_server.check_gpus(bare, "x").level == "failed"
    assert prefect_server.check_gpus(bare | {"Runtimes": {"nvidia": {}}}, "x").level == "fine"
    assert prefect_server.check_gpus(bare | {"DiscoveredDevices": [{"ID": "nvidia.com/gpu=0"}]}, "x").level == "fine"


def test_a_server_that_does_not_answer_fails() -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert [(each.what, each.level) for each in check_prefect("")] == [("Prefect", "failed")]
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert [each.level for each in check_prefect("")] == ["fine"]
        assert [each.level for each in check_prefect("gpu")] == ["failed"]


def test_the_command_says_what_it_found_and_its_exit_code_says_whether_the_job_could_succeed(tmp_path: Path) -> None:
    def check(*words: str) -> "subprocess.CompletedProcess[str]":
        env = {"HOME": str(tmp_path), "PCAM_CACHE": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin"}
        command = [*PCAM, "check", "--source", "sample", "--set", "model.weights=none", *words]
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)

    good = check("--store", str(tmp_path / "store"), "--json")
    assert good.returncode == 0, good.stdout + good.stderr
    assert {each["what"] for each in json.loads(good.stdout)} >= {"GPU", "memory", "cache", "store", "Prefect"}
    bad = check("--store", "ftp://nowhere")
    assert bad.returncode == 1
    assert "ftp://nowhere" in bad.stdout.replace("\n", "")
    assert "Traceback" not in bad.stderr
