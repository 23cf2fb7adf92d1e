"""A damaged record of a run, of its metrics or of a comparison is one sentence that names it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pcam_model.cli.main import app
from pcam_model.core.errors import ModelError
from pcam_model.registry.backends.base import Store
from pcam_model.registry.bucket_source import LISTING_FILE, fetch_bucket
from pcam_model.registry.decisions import find_decision
from pcam_model.registry.describe import describe_run
from pcam_model.registry.factory import open_store
from pcam_model.registry.runs import RunStore
from pcam_model.registry.workspace import CONFIG_FILE, PENDING_FILE, Workspace

JUNK = {
    "nothing": b"",
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "no UTF-8": b"\xff\xfe\0",
    "zeros": bytes(100),
    "deep objects": b'{"a":' * 100_000,
    "deep lists": b"[" * 100_000,
    "a long number": b"1" * 10_000,
    "half a character": b'{"a": "\\ud800"}',
}
STEP = b'{"kind":"step","epoch":1,"step":1,"loss":0.5}'
junk = pytest.mark.parametrize("content", JUNK.values(), ids=JUNK)


@pytest.fixture
def run(folder_store: Store, tmp_path: Path) -> RunStore:
    """A run with a split and a report."""
    run = RunStore(folder_store, "a")
    run.reserve_run({"finetune": {"epochs": 3}})
    (tmp_path / "step").mkdir()
    figures = {"valid": {"auc": {"value": 0.9, "low": 0.8, "high": None}}}
    run.commit("split", tmp_path / "step", {"result": {"meaning": "by slides", "kind": "slides"}, "inputs": {}})
    run.commit("report", tmp_path / "step", {"result": {"figures": figures}, "inputs": {}})
    return run


def show(run: RunStore) -> str:
    done = CliRunner().invoke(app, ["show", run.name, "--store", run.store.uri], catch_exceptions=False)
    return done.output


def refused(run: RunStore, key: str) -> None:
    with pytest.raises(ModelError) as caught:
        show(run)
    assert key in str(caught.value)
    assert "malformed" in str(caught.value)
    assert "\n" not in str(caught.value)


@junk
@pytest.mark.parametrize("key", ["config.json", "split/step.json", "report/step.json", "manifest.json"])
def test_a_record_that_is_none_is_named(run: RunStore, key: str, content: bytes) -> None:
    run.store.write(f"runs/a/{key}", content)
    refused(run, f"runs/a/{key}")


@pytest.mark.parametrize(
    ("step", "result"),
    [
        *(("split", result) for result in (None, 7, [], {}, {"meaning": 7})),
        *(
            ("report", result)
            for result in (None, {}, {"figures": 7}, {"figures": [[1]]}, {"figures": {"valid": None}})
        ),
        *(
            ("report", {"figures": {"valid": {"auc": auc}}})
            for auc in (7, {}, {"value": "x"}, {"value": 1, "low": "x"})
        ),
    ],
)
def test_a_result_of_another_form_is_named(run: RunStore, step: str, result: Any) -> None:
    manifest = {"record": {"result": result}, "files": {}}
    run.store.write(f"runs/a/{step}/step.json", json.dumps(manifest).encode())
    refused(run, f"runs/a/{step}/step.json")


def test_a_whole_run_is_shown_whatever_its_config_holds(run: RunStore) -> None:
    assert describe_run(run.store.uri, "a")["figures"] == {"valid": {"auc": {"value": 0.9, "low": 0.8, "high": None}}}
    run.store.write("runs/a/config.json", b'{"config": {"finetune": null}}')
    run.store.write("runs/a/checkpoints/finetune/metrics.jsonl", STEP + b"\n")
    assert "finetune: epoch 1 of ?, step 1" in show(run)


@pytest.mark.parametrize("line", [*JUNK.values(), b'{"kind": []}', STEP.replace(b"0.5", b'"x"'), STEP[:-5] + b"true}"])
def test_a_damaged_line_amid_the_metrics_is_named(run: RunStore, line: bytes) -> None:
    key = "runs/a/checkpoints/finetune/metrics.jsonl"
    run.store.write(key, STEP + b"\n" + line + b"\n" + STEP + b"\n")
    refused(run, "metrics.jsonl, line 2")


@junk
@pytest.mark.parametrize("name", [f"model/{PENDING_FILE}", CONFIG_FILE])
def test_a_damaged_record_on_this_machine_is_named(
    run: RunStore, tmp_path: Path, name: str, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(run="a", store=run.store.uri, folder=str(tmp_path / "work"))
    path = Path(workspace.folder) / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"is malformed .*run the flow again as a, which"):
        workspace.publish(0)


@junk
def test_a_damaged_decision_is_named(folder_store: Store, content: bytes) -> None:
    folder_store.write("decisions/a/b.json", content)
    with pytest.raises(ModelError, match=r"decisions/a/b\.json is malformed .*delete it"):
        find_decision(folder_store, "a", "b")


def test_a_damaged_listing_of_a_download_is_made_again(moto_settings: str, tmp_path: Path) -> None:
    open_store(moto_settings).write("a.txt", b"first")
    fetched = fetch_bucket(f"{moto_settings}/", tmp_path)
    (fetched.parent / LISTING_FILE).write_bytes(b"[" * 100_000)
    open_store(moto_settings).write("a.txt", b"second")
    assert (fetch_bucket(f"{moto_settings}/", tmp_path) / "a.txt").read_bytes() == b"second"
