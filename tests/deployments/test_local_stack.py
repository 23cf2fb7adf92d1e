"""The local stack with a real server and worker: it starts, is shared, follows runs and leaves nothing behind."""

import signal
import time
from pathlib import Path

import pytest
from clone import ask, local, make_project, processes_of, start_local


def test_a_run_is_followed_to_its_end_and_says_where_everything_is(project: Path, server: str) -> None:
    done = local(project, "train", "--run", "one", "--set", "finetune.epochs=1", PCAM_STORE=str(project / "elsewhere"))
    assert done.returncode == 0, done.stderr
    assert "epoch 0 of sample" in done.stdout
    assert "auc 0.9123" in done.stdout
    for kind, folder in (("Report: ", "report"), ("Model:  ", "model")):
        assert f"{kind}{project}/elsewhere/runs/one/{folder}\n" in done.stdout
    assert (project / "elsewhere/runs/one/manifest.json").exists()


def test_a_run_that_fails_fails_the_command_on_anothers_server_too(project: Path, server: str, tmp_path: Path) -> None:
    other = make_project(tmp_path / "other")
    done = local(other, "train", "--run", "two", "--set", "seed=13 finetune.epochs=1", PREFECT_API_URL=server)
    assert done.returncode == 1
    assert done.stdout.count("Traceback") == 1 and "an unlucky seed" in done.stdout
    assert "ended as Failed" in done.stderr
    assert processes_of(other) == []
    assert len(processes_of(project)) >= 2


def test_an_interrupt_cancels_the_run(project: Path, server: str) -> None:
    with start_local(project, "train", "--run", "three", "--set", "finetune.epochs=300") as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any("epoch 0" in line for line in lines)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 130 and "the run is cancelled" in rest
    runs = ask(f"{server}/flow_runs/filter", {"flow_runs": {"name": {"any_": ["three"]}}})
    assert [run["state"]["name"] for run in runs] == ["Cancelled"]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_start_that_is_broken_off_leaves_nothing(tmp_path: Path, end: signal.Signals) -> None:
    project = make_project(tmp_path / "clone")
    with start_local(project, "up") as process:
        while not any("server start" in command for command in processes_of(project)):
            time.sleep(0.1)
        process.send_signal(end)
    assert process.returncode == 130
    assert processes_of(project) == []


def test_who_is_killed_leaves_nothing(tmp_path: Path) -> None:
    project = make_project(tmp_path / "clone")
    with start_local(project, "up") as process:
        while not any("server start" in command for command in processes_of(project)):
            time.sleep(0.1)
        process.kill()
    limit = time.monotonic() + 60
    while processes_of(project) and time.monotonic() < limit:
        time.sleep(0.2)
    assert processes_of(project) == []
