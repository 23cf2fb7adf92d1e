"""The whole way, on a real Prefect server of its own: from generated patches to a published model."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pcam_model.core.files import sha256

PCAM = [sys.executable, "-c", "from pcam_model.cli.main import main; main()"]
TINY = [
    "source.max_patches=240", "model.arch=resnet18", "model.weights=none", "model.image_size=32", "lr_finder.steps=30",
    "frozen.epochs=1", "frozen.batch_size=16", "finetune.epochs=1", "finetune.batch_size=16", "finetune.lr=1e-3",
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def surroundings(home: Path) -> dict[str, str]:
    """Where a command keeps everything below its home."""
    places = {"HOME": str(home), "PCAM_CACHE": str(home / "cache"), "PCAM_STORE": (home / "store").as_uri()}
    return places | {"PREFECT_HOME": str(home / "prefect"), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}


def pcam(home: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a user types it, with a home of its own."""
    return subprocess.run(
        [*PCAM, *words], env=surroundings(home) | environment, cwd=home, capture_output=True, text=True, timeout=280
    )


def settings(keys: list[str]) -> Iterator[str]:
    for key in keys:
        yield from ("--set", key)


def train(home: Path, run: str, *words: str) -> subprocess.CompletedProcess[str]:
    return pcam(home, "train", "--source", "sample", "--run", run, *settings(TINY), *words)


@pytest.fixture(scope="module")
def trained(home: Path) -> str:
    done = train(home, "first")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*") if p.is_file()}


def test_a_run_publishes_a_model_a_report_and_a_manifest_of_all_its_files(home: Path, trained: str) -> None:
    run = home / "store" / "runs" / "first"
    manifest = json.loads((run / "manifest.json").read_text())
    there = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()} - {"manifest.json"}
    assert set(manifest["files"]) == there
    assert {"model/model.safetensors", "model/model.json", "report/metrics.json", "metrics.jsonl"} <= there
    assert {
        "report/lr.png",
        "report/losses.png",
        "report/confusion.png",
        "split/split.parquet",
        "data_checks/patches.png",
    } <= there
    assert "Published" in trained
    assert "LR range test, frozen" in trained
    assert "finetune epoch 1/1" in trained


def test_no_path_of_this_machine_is_published(home: Path, trained: str) -> None:
    run = home / "store" / "runs" / "first"
    texts = [path for path in run.rglob("*") if path.suffix in (".json", ".jsonl", ".html", ".md")]
    assert len(texts) > 5
    assert [str(path) for path in texts if str(home) in path.read_text("utf-8")] == []


@pytest.mark.slow
def test_the_same_run_again_does_nothing_twice(home: Path, trained: str) -> None:
    before = files(home / "store" / "runs")
    again = train(home, "first")
    assert again.returncode == 0, again.stdout + again.stderr
    assert files(home / "store" / "runs") == before
    assert "already done" in again.stdout + again.stderr


@pytest.mark.slow
def test_another_plan_under_the_same_name_is_refused_and_says_what_differs(home: Path, trained: str) -> None:
    before = files(home / "store" / "runs")
    refused = train(home, "first", "--set", "finetune.epochs=2")
    assert refused.returncode == 1
    assert "finetune.epochs" in refused.stderr
    assert "Traceback" not in refused.stderr + refused.stdout
    assert files(home / "store" / "runs") == before


@pytest.mark.slow
def test_runs_show_and_score_read_it_back(home: Path, trained: str) -> None:
    assert "first" in pcam(home, "runs").stdout
    listed: list[dict[str, Any]] = json.loads(pcam(home, "runs", "--json").stdout)
    assert [run["name"] for run in listed] == ["first"]
    assert listed[0]["published_at"]
    shown = json.loads(pcam(home, "show", "first", "--json").stdout)
    assert shown["config"]["finetune"]["lr"] == 0.001
    assert 0 <= shown["figures"]["test"]["auc"]["value"] <= 1
    scored = pcam(home, "score", "first", "sample", "--json")
    assert scored.returncode == 0, scored.stderr
    figures = json.loads(scored.stdout)
    assert figures["patches"] == 2000
    assert 0 <= figures["figures"]["auc"] <= 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "none"], "has no run 'none'"),
        (["score", "none", "sample"], "'none'"),
        (["score", "first", "missing.zip"], "missing.zip"),
        (["train", "--set", "finetune.epoch=3"], "did you mean finetune.epochs?"),
        (["train", "--config", "none.yaml"], "none.yaml"),
        (["runs", "--store", "ftp://somewhere"], "ftp://somewhere"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_1(home: Path, trained: str, words: list[str], message: str) -> None:
    done = pcam(home, *words)
    assert done.returncode == 1
    assert re.fullmatch(r"pcam: [^\n]+\n", done.stderr), done.stderr
    assert message in done.stderr


@pytest.mark.slow
def test_a_broken_source_fails_the_flow_in_one_sentence_and_leaves_no_run(home: Path, trained: str) -> None:
    (home / "broken.zip").write_bytes(b"PK\x03\x04 and nothing more")
    before = files(home / "store" / "runs")
    done = pcam(home, "train", "--source", "broken.zip", "--run", "second", *settings(TINY))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stderr.count("pcam: ") == 1
    assert "broken.zip" in done.stderr
    assert files(home / "store" / "runs") == before


@pytest.mark.slow
def test_a_split_file_that_does_not_match_is_refused(home: Path, trained: str) -> None:
    first, third = (home / "store" / "runs" / name for name in ("first", "third"))
    shutil.copytree(first, third, ignore=shutil.ignore_patterns("manifest.json", "report", "model"))
    file = third / "split" / "split.parquet"
    pd.read_parquet(file).replace({"split": {"train": "valid", "valid": "train"}}).to_parquet(file, index=False)
    step = json.loads((third / "split" / "step.json").read_text())
    step["files"]["split.parquet"] = {"size": file.stat().st_size, "sha256": sha256(file)}
    (third / "split" / "step.json").write_text(json.dumps(step))
    refused = train(home, "third")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr + refused.stdout
    assert "it is another split or was changed" in refused.stderr
    shutil.rmtree(third)


def interrupted(home: Path, pattern: str, *words: str) -> tuple[int, float, str]:
    """`pcam train`, sent SIGTERM at the first line that matches: its code, its seconds from there, the output."""
    command = [*PCAM, "train", "-v", "--source", "sample", "--run", "stopped", *settings(TINY), *words]
    lines, signalled = list[str](), 0.0
    with subprocess.Popen(
        command, env=surroundings(home), cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            if not signalled and re.search(pattern, line):
                process.send_signal(signal.SIGTERM)
                signalled = time.monotonic()
    assert signalled, "".join(lines)
    return process.returncode, time.monotonic() - signalled, "".join(lines)


@pytest.mark.slow
def test_stopped_by_a_signal_training_is_saved_in_the_store_and_the_code_says_try_again(tmp_path: Path) -> None:
    code, _, output = interrupted(
        tmp_path, "finetune epoch 1/500", *settings(["frozen.epochs=0", "finetune.epochs=500"])
    )
    assert code == 75, output
    assert re.search(r"finetune training stopped by SIGTERM after step \d+ of 5000", output), output
    assert output.count("pcam: interrupted by SIGTERM; the same command resumes") == 1
    assert "Finished in state Crashed" in output
    live = tmp_path / "store" / "runs" / "stopped" / "checkpoints" / "finetune" / "live"
    assert json.loads((live / "live.json").read_text())["checkpoint"] == "latest.safetensors"


PHASES = {
    "checking": "Beginning flow run", "downloading": "Run stopped, in store", "packing": "Source: sample",
    "data checks": "Pack: 240 patches", "splitting": "Data: the std",
    "LR range test": "resnet18 starts from random weights", "frozen training": "LR range test, frozen: .* after",
    "fine-tuning": "frozen epoch 1/1", "committing": "finetune epoch 1/1", "report": "model.onnx: logits",
    "publishing": "Task run 'evaluation' - Finished",
}  # fmt: skip
"""The line before each phase of `pcam train -v`."""


@pytest.mark.timeout(1200)
@pytest.mark.slow
def test_asked_to_stop_in_any_phase_it_soon_ends_and_the_last_start_finishes(tmp_path: Path) -> None:
    for phase, pattern in PHASES.items():
        code, seconds, output = interrupted(tmp_path, pattern)
        assert code == 75, (phase, code, seconds, output)
        assert seconds < 60, (phase, code, seconds, output)
        assert "Traceback" not in output, (phase, output)
    done = train(tmp_path, "stopped")
    assert done.returncode == 0
    assert "checkpoints/finetune: already done" in done.stdout + done.stderr
