"""The findings on machines that lack something; each failure says what to do."""

import os
import stat
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from pcam_model.check import Finding, hardware, raise_for_failures, storage
from pcam_model.check.inputs import check_source, check_weights
from pcam_model.config import TrainConfig
from pcam_model.config_reader import read_config
from pcam_model.core.errors import MachineCheckError, SourceError
from pcam_model.registry.backends.base import StoreUnavailable
from pcam_model.registry.capabilities import StoreCapabilities


def config_with(*settings: str) -> TrainConfig:
    return read_config(settings=settings)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PCAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def driver(folder: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with that driver, and a torch that does not reach the GPU."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho {version}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("version", "cuda", "remedy"),
    [
        ("535.129.03", "13.0", "update the NVIDIA driver to 580"),
        ("580.65.06", "13.0", "nvidia-smi"),
        ("580.65.06", None, "TORCH_INDEX"),
    ],
)
def test_a_gpu_that_torch_does_not_reach_fails_with_the_reason(
    version: str, cuda: str | None, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(tmp_path, version, monkeypatch)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    found = hardware.check_gpu()
    assert found.level == "failed"
    assert version in found.found
    assert remedy in found.remedy


def test_no_gpu_is_said_aloud_and_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(hardware, "installed_driver", lambda: "")
    assert hardware.check_gpu().level == "warning"


@pytest.mark.parametrize(("free", "level"), [(1e9, "failed"), (4e9, "warning"), (64e9, "fine")])
def test_memory_is_measured_before_it_runs_out(free: float, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "available_memory", lambda: free)
    assert hardware.check_memory(config_with("source.kind=kaggle")).level == level


def test_the_disk_must_hold_the_archive_and_the_pack(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda _: usage(20e9, 10e9, 10e9))
    assert storage.check_disk(config_with()).level == "fine"
    short = storage.check_disk(config_with("source.kind=kaggle"))
    assert short.level == "failed"
    assert "17.5 GB" in short.expected
    assert "PCAM_CACHE" in short.remedy
    (cache / "packs" / "x").mkdir(parents=True)
    (cache / "packs" / "x" / "pack.json").write_text(f'{{"count": {storage.KAGGLE_PATCHES}}}')
    assert storage.check_disk(config_with("source.kind=kaggle")).level == "fine"


def test_a_cache_that_cannot_be_written_to_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PCAM_CACHE", str(tmp_path / "file" / "cache"))
    found = storage.check_cache()
    assert found.level == "failed"
    assert "PCAM_CACHE" in found.remedy


def test_a_good_cache_and_store_are_fine_and_left_as_they_were(cache: Path, tmp_path: Path) -> None:
    assert storage.check_cache().level == "fine"
    assert storage.check_temporary().level == "fine"
    assert not cache.exists()
    assert storage.check_store(config_with(f"store.uri={tmp_path}/store")).level == "fine"
    assert [path.name for path in (tmp_path / "store").iterdir()] == [".lock"]


def test_a_store_is_asked_whether_it_keeps_its_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "probe", lambda _: StoreCapabilities(if_absent=False, if_match=True))
    found = storage.check_store(config_with(f"store.uri={tmp_path}"))
    assert found.level == "warning"
    assert "If-None-Match" in found.found
    assert "promotion" in found.remedy
    assert storage.check_store(config_with("store.uri=ftp://x")).level == "failed"


def test_source_and_weights_are_looked_for_before_the_run(tmp_path: Path, kaggle_zip: Path) -> None:
    assert check_source(config_with("source.kind=path", f"source.path={kaggle_zip}")).level == "fine"
    assert check_source(config_with("source.kind=path", "source.path=no.zip")).level == "failed"
    assert "--source" in check_source(config_with("source.kind=path")).remedy
    assert check_weights(config_with("model.weights=none")).level == "fine"
    assert check_weights(config_with(f"model.weights={tmp_path}/no.pth")).level == "failed"


def test_slides_and_their_annotations_are_looked_for_before_the_run(tmp_path: Path) -> None:
    settings = ("source.kind=slides", f"source.path={tmp_path}")
    (tmp_path / "a.svs").touch()
    finding = check_source(config_with(*settings))
    assert finding.level == "failed"
    assert "1 of 1 slides have no annotations" in finding.found
    assert "unannotated_slides=normal" in finding.remedy
    (tmp_path / "a.geojson").touch()
    assert check_source(config_with(*settings)).found == f"1 slides in {tmp_path}"


def test_a_source_that_is_not_there_is_one_finding_with_one_remedy(tmp_path: Path) -> None:
    finding = check_source(config_with("source.kind=path", f"source.path={tmp_path / 'none.zip'}"))
    assert (finding.level, finding.found) == ("failed", f"{tmp_path / 'none.zip'}: no such file or folder")
    assert finding.remedy == "give the path of a .zip, a .tar or a folder of patches"


def test_a_finding_of_an_error_takes_its_remedy_from_the_message_or_else_the_one_that_is_given() -> None:
    whole = Finding.of_error("a", SourceError("no such file; give another"), "b", "c")
    assert (whole.found, whole.remedy, whole.level) == ("no such file", "give another", "failed")
    assert Finding.of_error("a", SourceError("no such file"), "b", "c").remedy == "c"


def test_what_failed_is_one_sentence_and_what_may_pass_is_worth_a_retry() -> None:
    fine = Finding(what="a", found="b", expected="c", level="warning", remedy="d")
    bad = Finding(what="disk", found="1 GB", expected="2 GB", level="failed", remedy="free some")
    away = bad.model_copy(update={"what": "store", "transient": True})
    assert raise_for_failures([fine]) == [fine]
    with pytest.raises(
        MachineCheckError, match=r"^\(1\) disk: found 1 GB, expected 2 GB; free some; \(2\) store: found"
    ):
        raise_for_failures([fine, bad, away])
    with pytest.raises(StoreUnavailable):
        raise_for_failures([fine, away])
