"""`pcam show` and `pcam runs`, also of a run that is training, and the JSON of the store's commands."""

import json
from pathlib import Path
from typing import Any

import pytest
from a_model import publish_model
from typer.testing import CliRunner

from pcam_model.cli.main import app
from pcam_model.core.errors import ModelError
from pcam_model.registry.factory import open_store
from pcam_model.registry.runs import RunStore

STEP = {"kind": "step", "stage": "finetune", "lr": 1e-3}
EPOCH = {"kind": "epoch", "stage": "finetune", "train_loss": 0.5, "valid_loss": 0.4, "valid_auc": 0.91}


@pytest.fixture
def store(tmp_path: Path) -> str:
    return open_store((tmp_path / "store").as_uri()).uri


def pcam(store: str, *words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--store", store], catch_exceptions=False, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.stdout


def pcam_json(store: str, *words: str) -> Any:
    return json.loads(pcam(store, *words, "--json"))


def start_run(uri: str, *rows: dict[str, Any]) -> None:
    """A run that is in its fine-tuning, with these rows of its metrics.jsonl."""
    store = open_store(uri)
    RunStore(store, "first").reserve_run({"finetune": {"epochs": 6}})
    if rows:
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        store.write("runs/first/checkpoints/frozen/metrics.jsonl", b'{"kind":"step","epoch":1,"step":1,"loss":1}\n')
        store.write("runs/first/checkpoints/finetune/metrics.jsonl", lines)


def test_a_run_that_is_training_is_shown_with_stage_epoch_step_and_last_figures(store: str) -> None:
    start_run(store, {**STEP, "epoch": 1, "step": 10, "loss": 0.6}, {**EPOCH, "epoch": 1, "step": 10},
              {**STEP, "epoch": 2, "step": 12, "loss": 0.45})  # fmt: skip
    text = pcam(store, "show", "first")
    assert "published: no\nfinished steps: none yet\n" in text
    line = "finetune: epoch 2 of 6, step 12, training loss 0.4500; after epoch 1: valid_loss 0.4000, valid_auc 0.9100"
    assert f"{line}\n" in text
    training = pcam_json(store, "show", "first")["training"]
    assert (training["stage"], training["epoch"], training["step"]) == ("finetune", 2, 12)
    assert training["last_epoch"]["valid_auc"] == 0.91


def test_a_run_before_its_training_and_between_an_epoch_and_the_next_step_is_shown(store: str) -> None:
    start_run(store)
    assert pcam_json(store, "show", "first")["training"] is None
    open_store(store).write(
        "runs/first/checkpoints/finetune/metrics.jsonl", json.dumps({**EPOCH, "epoch": 1, "step": 10}).encode() + b"\n"
    )
    assert "finetune: epoch 1 of 6, step 10; after epoch 1: valid_loss 0.4000" in pcam(store, "show", "first")


def test_a_published_run_is_shown_without_training(store: str, model_folder: Path) -> None:
    published = publish_model(open_store(store), model_folder)
    shown = pcam_json(store, "show", "made")
    assert (shown["uri"], shown["training"]) == (published.uri, None)
    assert shown["published_at"]
    assert [run["name"] for run in pcam_json(store, "runs")] == ["made"]


def test_the_commands_of_the_store_report_in_json(store: str, model_folder: Path, tmp_path: Path) -> None:
    publish_model(open_store(store), model_folder)
    assert pcam_json(store, "promote", "made") == {"name": "champion", "run": "made", "before": None}
    (channel,) = pcam_json(store, "channels")
    assert (channel["name"], channel["run"], len(channel["history"])) == ("champion", "made", 1)
    assert pcam_json(store, "pull", "champion", str(tmp_path / "pulled"))["folder"] == str(tmp_path / "pulled")
    assert pcam_json(store, "verify") == {"store": store, "findings": []}
    assert pcam_json(store, "prune", "--days", "0") == {
        "deleted": False, "shards": 0, "shard_bytes": 0, "candidates": [],
    }  # fmt: skip


def test_damaged_runs_are_listed_and_texts_of_others_cannot_write_to_the_terminal(store: str, tmp_path: Path) -> None:
    opened = open_store(store)
    publish_model(opened, tmp_path / "model")
    opened.write("runs/broken/manifest.json", b"{")
    done = CliRunner().invoke(app, ["runs", "--store", store], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert [line.split()[1] for line in done.stdout.splitlines() if "broken" in line] == ["broken"]
    assert "made" in done.stdout
    assert [run["damaged"] != "" for run in pcam_json(store, "runs")] == [True, False]
    pcam(store, "promote", "made", "--message", "fine\x1b[2J\nchampion: other \u202e")
    assert r"fine\x1b[2J\nchampion: other \u202e" in pcam(store, "channels")


@pytest.mark.parametrize("line", [b"garbage", b"[]", b"{}", b'{"kind": "step", "epoch": 1, "step": "x"}'])
def test_damaged_metrics_are_a_sentence(store: str, line: bytes) -> None:
    start_run(store, {**STEP, "epoch": 1, "step": 1, "loss": 0.5})
    key = "runs/first/checkpoints/finetune/metrics.jsonl"
    open_store(store).write(key, open_store(store).read(key) + line + b"\n")
    with pytest.raises(ModelError, match=r"metrics\.jsonl, line 2 is malformed"):
        pcam(store, "show", "first")
