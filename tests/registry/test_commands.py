"""The commands that look after what is published."""

from pathlib import Path

import pytest
from a_run import publish_run
from typer.testing import CliRunner

from pcam_model.cli.main import app
from pcam_model.core.errors import ModelError
from pcam_model.core.predictions_csv import PredictionRows
from pcam_model.registry.backends.base import Store
from pcam_model.registry.score_tables import publish_scores, write_shard


def pcam(store: Store, *words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, [*words, "--store", store.uri], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def two(folder_store: Store, tmp_path: Path) -> Store:
    for name in "ab":
        publish_run(folder_store, tmp_path, name)
    return folder_store


def test_promote_pull_rollback_and_the_history_of_it(two: Store, tmp_path: Path) -> None:
    assert pcam(two, "promote", "a", "--message", "first") == "champion: a\n"
    assert pcam(two, "promote", "b") == "champion: b, before a\n"
    assert "every file verified" in pcam(two, "pull", "champion", str(tmp_path / "pulled"))
    assert (tmp_path / "pulled" / "model" / "model.safetensors").is_file()
    assert pcam(two, "rollback", "--message", "worse abroad") == "champion: back to a\n"
    lines = pcam(two, "channels").splitlines()
    assert lines[0] == "champion: a"
    assert "rollback a" in lines[1]
    assert lines[1].endswith(": worse abroad")
    assert len(lines) == 4


def test_a_store_without_anything_says_so(folder_store: Store) -> None:
    assert pcam(folder_store, "verify") == f"{folder_store.uri}: nothing is published\n"
    assert pcam(folder_store, "channels").startswith(f"no channels in {folder_store.uri}; `pcam promote RUN`")


def test_verify_says_what_is_wrong_and_exits_with_1(two: Store) -> None:
    assert "every published file" in pcam(two, "verify")
    two.write("runs/a/model/model.json", b"x")
    assert "runs/a/model/model.json: 1 bytes instead of" in pcam(two, "verify", code=1)


def test_prune_only_says_until_it_is_told_to_delete(two: Store) -> None:
    pcam(two, "promote", "a")
    assert "would delete b (published" in pcam(two, "prune", "--days", "0", "--keep", "0")
    assert list(two.folders("runs/")) == ["a", "b"]
    pcam(two, "prune", "--days", "0", "--keep", "0", "--delete")
    assert list(two.folders("runs/")) == ["a"]


def test_prune_takes_old_shards_and_only_where_it_is_asked_for_tables(two: Store, tmp_path: Path) -> None:
    rows = PredictionRows(rows=(("x", 0.5, 1, "x.tif"),))
    for digest in ("a", "b"):
        write_shard(two, digest * 64, rows)
    publish_scores(two, "november", {}, [rows], tmp_path / "scores")
    words = ("prune", "--days", "0", "--keep", "3")
    assert "0 runs would be deleted\n" in pcam(two, *words, "--days", "9")
    assert "shards" not in pcam(two, *words, "--days", "9")
    output = pcam(two, *words)
    assert "would delete 2 shards (" in output
    assert "0 runs and 2 shards would be deleted; the same command with --delete deletes them" in output
    assert "november" not in output
    output = pcam(two, *words, "--scores")
    assert "would delete scores/november (published" in output
    assert "0 runs, 1 tables of scores and 2 shards" in output
    assert len(list(two.entries("shards/"))) == 2
    assert two.stat("scores/november/manifest.json")
    pcam(two, *words, "--delete")
    assert list(two.entries("shards/")) == []
    assert two.stat("scores/november/manifest.json")
    pcam(two, *words, "--scores", "--delete")
    assert list(two.entries("scores/")) == []
    assert list(two.folders("runs/")) == ["a", "b"]


def test_publish_finishes_what_waits_and_says_where_nothing_does(
    two: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PCAM_CACHE", str(tmp_path / "cache"))
    assert "runs/a" in pcam(two, "publish", "a")
    with pytest.raises(ModelError, match="nothing of run 'c' waits"):
        pcam(two, "publish", "c")
    room = tmp_path / "cache" / "work" / "d" / "model"
    room.mkdir(parents=True)
    (room / "model.json").write_text("{}")
    (room / ".step.json").write_text('{"result": {}, "inputs": {}}')
    assert "runs/d" in pcam(two, "publish", "d", "--timeout", "0")
    assert two.stat("runs/d/manifest.json") is not None
    assert not room.exists()
