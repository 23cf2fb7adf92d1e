"""The benchmarks that need a GPU or a quiet machine run here at tiny size, so that they do not rot."""

import json
from pathlib import Path

import numpy as np
import pytest
from patch_sets import make_patch_set

from benchmarks import chaos, chaos_results, clusters, gpu, lr_finder, machine, memory, pack_model, readers, soak
from benchmarks.chaos_fault import Broken
from benchmarks.chaos_proxy import FaultProxy
from benchmarks.fit import beside_bare, stage_of


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_gpu_script_runs_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    gpu.main(["--scale", "0"])
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert [name for name, section in found.items() if isinstance(section, dict) and "error" in section] == []
    assert found["same_bits"]["eager"] == {"twice": True, "resumed after 2 and 8": True}
    assert found["skipped_step"] == {"loss": "nan", "unchanged": True, "next loss is finite": True} | {
        "seconds": found["skipped_step"]["seconds"]
    }
    assert found["streamed"]["streamed equals resident"]
    assert found["onnx"]["ieee"] < 1e-5 * found["onnx"]["largest logit"]
    assert found["resnet50_224"]["batch 4"]["of_the_first"]["trainer"] > 0
    assert found["packing"]["patches_per_second"] > 0


def test_the_page_on_reliability_shows_what_the_campaign_found() -> None:
    found = json.loads((machine.RESULTS / "chaos.json").read_text())
    page = (Path(__file__).parents[1] / "docs" / "reliability.md").read_text()
    assert chaos_results.markdown_table(found["table"]) in page
    assert f"{found['faults']} faults" in page
    assert sum(map(sum, (counts.values() for counts in found["table"].values()))) == len(found["outcomes"])


@pytest.mark.parametrize(
    ("output", "code", "outcome"),
    [
        ("pcam: /store: the disk is full", 1, None),
        ("pcam: it did not work", 1, "unclear"),
        ("the disk is full", 1, "unclear"),
        ("Traceback (most recent call last)", 1, "traceback"),
        ("", -9, "lost"),
        ("", None, "hung"),
    ],
)
def test_a_refusal_that_does_not_name_its_cause_fails_the_campaign(
    output: str, code: int | None, outcome: str | None
) -> None:
    found = chaos._broken_badly(output, Broken("", codes=(0, 1), code=code), "disk is full")
    assert (found and found[0]) == outcome


def test_the_proxy_flips_one_bit_of_a_body_once() -> None:
    answer, proxy = b"HTTP/1.1 200 OK\r\nETag: 1\r\n\r\nhello", FaultProxy(1)
    proxy.mode, proxy.spared, proxy.where = "wrong", 1, 0.5
    assert proxy.flip(answer) == answer
    assert proxy.flip(answer) == answer.replace(b"hello", b"hemlo")
    assert proxy.mode == ""
    proxy.close()


def test_a_soak_tells_what_is_flat_from_what_grows() -> None:
    noise = np.random.default_rng(0).normal(0, 3, 60)
    series = {
        "a MB": 500 + noise + 100 * (np.arange(60) < 5),
        "b MB": 500 + noise + np.arange(60),
        "a files": 30 + np.arange(60) % 3,
        "b files": 30 + np.arange(60) / 4,
    }
    rows = [{name: float(values[i]) for name, values in series.items()} for i in range(60)]
    found = soak.verdicts(rows)
    assert {name: each["flat"] for name, each in found.items()} == {
        "a MB": True, "b MB": False, "a files": True, "b files": False
    }  # fmt: skip
    assert found["b MB"]["slope"] == pytest.approx(1, abs=0.1)


def test_fit_is_measured_beside_a_bare_loop() -> None:
    found = beside_bare("resnet18", 32, stage_of("finetune", 4), 0.01, 1)
    assert found["fit"] > 0
    assert found["seconds a checkpoint"] >= 0


def test_the_purity_of_clusters_is_told_beside_chance() -> None:
    slides, labels = np.repeat(np.arange(12), 20), np.arange(240) % 2
    pure = clusters.purity(slides % 6, slides, labels, 0)
    assert (pure["groups"], pure["share in the main cluster"]) == (12, 1.0)
    assert pure["share in the main cluster, chance"] < 0.5
    mixed = clusters.purity(np.arange(240) % 5, slides, labels, 0)
    assert abs(mixed["share in the main cluster"] - 0.2) < 0.01
    assert abs(mixed["adjusted mutual information"]) < 0.1


def test_memory_is_measured_over_a_whole_pass() -> None:
    assert memory.peak_resident(192, 2)["resident"] > 50


def test_the_readers_are_measured_beside_zipfile_and_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    readers.main([str(make_patch_set(12).zip(tmp_path / "a.zip")), "--rounds", "1"])
    figures = json.loads((tmp_path / "readers.json").read_text())
    for way in ("one_thread", "packing"):
        assert figures[way]["zipfile and Pillow"]["ratio"] == 1
        assert figures[way]["our zip reader and decoder"]["ratio"] > 0


def test_the_model_of_packing_is_bounded_by_what_one_thread_does_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make_patch_set(pack_model.CHUNK).zip(tmp_path / "a.zip")
    monkeypatch.setattr(pack_model, "samples_with_gil", lambda _: pack_model.SECONDS * pack_model.RATE // 2)
    packing = {"patches": 1000, "opening_seconds": 0.5, "ending_seconds": 0.5}
    model = pack_model.packing_model(archive, tmp_path, packing)
    reading, writing = (model["parts"][name] for name in (pack_model.READING, pack_model.WRITING))
    ceiling = 1e6 / (reading["gil_us"] + writing["gil_us"])
    assert model["gil_ceiling_patches_per_second"] == round(ceiling)
    assert model["predicted_patches_per_second"]["16"] < min(1000, ceiling)


@pytest.mark.slow
def test_suggested_rates_are_trained_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    monkeypatch.setattr(lr_finder, "VALID", 16)
    sizes = "--train 64 --epochs 1 --steps 40 --before"
    lr_finder.main(["--networks", "resnet18", "--seeds", "0", *sizes.split()])
    found = json.loads((tmp_path / "lr_finder.json").read_text())["resnet18"]
    assert set(found["summary"]) == {"frozen", "finetune"}
    for stage in found["summary"]:
        assert found["seed 0"][stage]["lr"] > 0
        assert "diverged" in found["seed 0"][stage]["before"]
