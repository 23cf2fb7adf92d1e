"""Checkpoints beside training: the last and the best can be listed and fetched, under way and afterwards."""

import json
from pathlib import Path

import pytest
from a_run import safetensors
from typer.testing import CliRunner

from pcam_model.cli.main import app
from pcam_model.core.checkpoint_names import epoch_file
from pcam_model.core.errors import ModelError, StoreError
from pcam_model.core.files import write_atomic
from pcam_model.registry.audit import verify
from pcam_model.registry.backends.base import Store
from pcam_model.registry.checkpoints import fetch_checkpoint, list_checkpoints
from pcam_model.registry.describe import describe_run
from pcam_model.registry.live_sync import LiveSync, restore_checkpoint
from pcam_model.registry.runs import RunStore

AUCS = {1: 0.7, 2: 0.9, 3: 0.8, 4: 0.85}
LIVE = "runs/a/checkpoints/finetune/live/"


@pytest.fixture
def run(store: Store) -> RunStore:
    run = RunStore(store, "a")
    run.reserve_run({"seed": 2})
    return run


def train(folder: Path, beside: LiveSync, epochs: int) -> None:
    """As a stage does it that keeps the last epoch and the best."""
    folder.mkdir(exist_ok=True)
    for epoch in range(1, epochs + 1):
        write_atomic(folder / "latest.safetensors", safetensors(b"state %d" % epoch * 40))
        write_atomic(folder / epoch_file(epoch), safetensors(b"weights %d" % epoch * 40))
        rows = [{"kind": "epoch", "epoch": turn, "step": turn, "valid_auc": AUCS[turn]} for turn in range(1, epoch + 1)]
        write_atomic(folder / "metrics.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        best = max(range(1, epoch + 1), key=AUCS.__getitem__)
        for old in set(range(1, epoch)) - {best}:
            (folder / epoch_file(old)).unlink(missing_ok=True)
        beside.sync_now()


def finish(run: RunStore, folder: Path, epoch: int) -> None:
    write_atomic(folder / "final.safetensors", safetensors(b"weights %d" % epoch * 40))
    for name in ("latest.safetensors", epoch_file(epoch)):
        (folder / name).unlink()
    run.commit("checkpoints/finetune", folder, {"result": {"epoch": epoch}, "inputs": {}})


def listed(run: RunStore) -> list[tuple[int, float | None, bool, bool]]:
    return [(kept.epoch, kept.valid_auc, kept.best, kept.final) for kept in list_checkpoints(run)]


def test_the_best_is_that_of_the_last_stage(run: RunStore, tmp_path: Path) -> None:
    for stage, epochs in (("frozen", 2), ("finetune", 1)):
        train(tmp_path / stage, LiveSync(run, f"checkpoints/{stage}", tmp_path / stage), epochs)
    assert [(kept.stage, kept.epoch) for kept in list_checkpoints(run)] == [("frozen", 2), ("finetune", 1)]
    assert fetch_checkpoint(run, "best", tmp_path / "got")[0].stage == "finetune"
    assert fetch_checkpoint(run, "frozen/best", tmp_path / "got")[0].stage == "frozen"


def test_old_ones_go_as_new_ones_come_but_never_what_is_gone_on_from(run: RunStore, tmp_path: Path) -> None:
    assert list_checkpoints(run) == []
    train(tmp_path / "work", LiveSync(run, "checkpoints/finetune", tmp_path / "work"), 4)
    assert listed(run) == [(2, 0.9, True, False), (4, 0.85, False, False)]
    kinds = [entry.key.removeprefix(LIVE).split("-")[0] for entry in run.store.entries(LIVE)]
    assert sorted(kinds) == ["epoch", "epoch", "latest", "live.json"]
    assert restore_checkpoint(run, "checkpoints/finetune", tmp_path / "elsewhere")
    assert {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "work").iterdir()
    }


def test_a_machine_that_goes_on_keeps_the_best_of_the_one_before(run: RunStore, tmp_path: Path) -> None:
    train(tmp_path / "one", LiveSync(run, "checkpoints/finetune", tmp_path / "one"), 3)
    assert restore_checkpoint(run, "checkpoints/finetune", tmp_path / "two")
    beside = LiveSync(run, "checkpoints/finetune", tmp_path / "two")
    write_atomic(tmp_path / "two" / "latest.safetensors", safetensors(b"later" * 40))
    beside.sync_now()
    assert listed(run) == [(2, 0.9, True, False), (3, 0.8, False, False)]


def test_without_an_epochs_weights_training_goes_on_all_the_same(run: RunStore, tmp_path: Path) -> None:
    train(tmp_path / "work", LiveSync(run, "checkpoints/finetune", tmp_path / "work"), 3)
    for entry in list(run.store.entries(LIVE + "epoch-0002")):
        run.store.delete(entry.key)
    assert restore_checkpoint(run, "checkpoints/finetune", tmp_path / "elsewhere")
    names = sorted(path.name for path in (tmp_path / "elsewhere").glob("[!.]*"))
    assert names == [epoch_file(3), "latest.safetensors", "metrics.jsonl"]


@pytest.mark.parametrize("finished", [False, True])
def test_best_final_and_numbers_are_fetched_and_verified(run: RunStore, tmp_path: Path, finished: bool) -> None:
    train(tmp_path / "work", LiveSync(run, "checkpoints/finetune", tmp_path / "work"), 4)
    if finished:
        finish(run, tmp_path / "work", 4)
        run.publish()
        assert listed(run) == [(2, 0.9, True, False), (4, 0.85, False, True)]
        assert list(verify(run.store)) == []
    kept, path = fetch_checkpoint(run, "best", tmp_path / "got")
    assert kept.epoch == 2
    assert path == tmp_path / "got" / "finetune-epoch-0002.safetensors"
    assert path.read_bytes() == safetensors(b"weights 2" * 40)
    for wanted in ("4", "finetune/4", *["final"] * finished):
        assert fetch_checkpoint(run, wanted, tmp_path / "got")[1].read_bytes() == safetensors(b"weights 4" * 40)
    for wanted in ("3", "frozen/best", "lowest", *["final"] * (not finished)):
        with pytest.raises(
            ModelError, match=rf"has no checkpoint '{wanted}'; it has finetune/2 \(best\), finetune/4; "
        ):
            fetch_checkpoint(run, wanted, tmp_path / "got")
    assert [one["epoch"] for one in describe_run(run.store.uri, "a")["checkpoints"]] == [2, 4]
    run.store.write(kept.key, b"damaged")
    with pytest.raises(ModelError, match="the object is damaged"):
        fetch_checkpoint(run, "best", tmp_path / "anew")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="is a file; name a folder"):
        fetch_checkpoint(run, "4", tmp_path / "file")


def test_the_command_says_what_it_brought(run: RunStore, tmp_path: Path) -> None:
    train(tmp_path / "work", LiveSync(run, "checkpoints/finetune", tmp_path / "work"), 3)
    words = ["pull", "a", str(tmp_path / "got"), "--checkpoint", "best", "--store", run.store.uri]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "finetune-epoch-0002.safetensors: weights after epoch 2 of the finetune" in done.output
