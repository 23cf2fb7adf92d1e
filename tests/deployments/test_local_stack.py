"""The local stack with a real server and runner: it starts, is shared, follows runs and leaves nothing behind."""

import signal
import sys
import time
from pathlib import Path

import pytest
from clone import (
    ask,
    environment,
    free_port,
    is_healthy,
    local,
    make_project,
    processes_of,
    start,
    start_local,
    stop,
    until,
)


def test_a_run_is_followed_to_its_end_and_says_where_everything_is(project: Path, server: str) -> None:
    done = local(project, "train", RUN="one", SET="finetune.epochs=1", PCAM_STORE=str(project / "elsewhere"))
    assert done.returncode == 0, done.stderr
    assert [line[10:] for line in done.stdout.splitlines() if line[2:3] == ":"] == ["epoch 0 of sample"]
    assert "0.9123" in done.stdout
    for kind, path in (("Report: ", "report/report.html"), ("Model:  ", "model")):
        assert f"{kind}{project}/elsewhere/runs/one/{path}\n" in done.stdout
    assert (project / "elsewhere/runs/one/manifest.json").exists()


@pytest.mark.slow
def test_what_up_exports_is_its_own_server_and_not_somebody_elses(project: Path, server: str) -> None:
    done = local(project, "train", RUN="exported", SET="finetune.epochs=0", PREFECT_API_URL=server)
    assert done.returncode == 0, done.stderr
    assert deployments(server) >= {"full-train", "retrain"}
    assert "full-train-local" not in deployments(server)


@pytest.mark.slow
def test_a_failed_run_fails_the_command_on_a_server_of_the_users_that_has_a_password(tmp_path: Path) -> None:
    project, password, port = make_project(tmp_path / "clone"), "user:password", free_port()
    url, home = f"http://127.0.0.1:{port}/api", {"PREFECT_HOME": str(tmp_path / "prefect"), "DO_NOT_TRACK": "1"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    users = start(command, tmp_path / "log", environment(**home, PREFECT_SERVER_API_AUTH_STRING=password))
    try:
        assert until(lambda: is_healthy(url))
        refused = local(project, "train", PREFECT_API_URL=url, PREFECT_API_AUTH_STRING="user:wrong")
        assert refused.returncode == 1
        assert f"{url} (from PREFECT_API_URL) answers 401" in refused.stderr
        overrides = {"RUN": "two", "SET": "seed=13 finetune.epochs=1"}
        done = local(project, "train", PREFECT_API_URL=url, PREFECT_API_AUTH_STRING=password, **home, **overrides)
        assert done.returncode == 1
        assert "ended as Failed" in done.stderr
        assert "exit code 1" in done.stderr
        assert done.stdout.count("Traceback") == 1
        assert "an unlucky seed" in done.stdout
        assert [each["name"] for each in ask(f"{url}/deployments/filter", {}, auth=password)] == ["full-train-local"]
        assert processes_of(project) == []
        assert users.poll() is None
    finally:
        stop(users, grace=10)


@pytest.mark.slow
def test_an_interrupt_cancels_the_run_and_says_how_to_go_on(project: Path, server: str) -> None:
    with start_local(project, "train", RUN="three", SET="finetune.epochs=300") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert any("epoch 0" in line for line in iter(process.stdout.readline, ""))
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        output = process.stderr.read()
        _, err = process.communicate()
    assert process.returncode == 75, err
    assert "run three is cancelled; `make train RUN=three` goes on" in output
    assert "exit code 75" in output
    runs = ask(f"{server}/flow_runs/filter", {"flow_runs": {"name": {"any_": ["three"]}}})
    assert [run["state"]["name"] for run in runs] == ["Cancelled"]


@pytest.mark.slow
def test_two_at_once_share_a_server_which_the_last_one_ends_and_none_of_the_users_settings_reach_it(
    tmp_path: Path,
) -> None:
    project, wrong = make_project(tmp_path / "clone"), "sqlite+aiosqlite:////nowhere/prefect.db"
    (project / ".env").write_text(f"PREFECT_SERVER_DATABASE_CONNECTION_URL={wrong}\n")
    users = {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": wrong,
        "PREFECT_API_KEY": "a cloud's key",
        "PREFECT_PROFILE": "cloud",
        "PREFECT_SERVER_API_AUTH_STRING": "user:password",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }
    with start_local(project, "train", RUN="long", SET="finetune.epochs=300", **users) as first:
        assert until(lambda: (project / ".pcam/stack/own/url").exists() or first.poll() is not None)
        second = local(project, "train", RUN="short", SET="finetune.epochs=0")
        assert second.returncode == 0, second.stderr
        assert len(processes_of(project)) >= 3  # server, runner and the first one's run
        first.terminate()
        out, err = first.communicate()
    assert first.returncode == 75
    assert "run long is cancelled" in err
    assert out.split("/runs/")[0].split()[-1] == second.stdout.split("/runs/")[0].split()[-1]  # the same server
    assert processes_of(project) == []


def test_what_a_killed_command_leaves_is_swept_by_down_and_its_variable_does_not_mislead(tmp_path: Path) -> None:
    project = make_project(tmp_path / "clone")
    with start_local(project, "up") as process:
        assert until(lambda: processes_of(project))
        process.kill()
    assert processes_of(project)
    done = local(project, "down", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.stdout == "The local stack has stopped.\n"
    assert processes_of(project) == []
    assert local(project, "down").stdout == "No local stack runs here.\n"


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_start_that_is_broken_off_leaves_nothing(tmp_path: Path, end: signal.Signals) -> None:
    project = make_project(tmp_path / "clone")
    with start_local(project, "up") as process:
        while not any("prefect.server.api" in command for command in processes_of(project)):
            time.sleep(0.1)
        process.send_signal(end)
        _, err = process.communicate()
    assert process.returncode == 75, err
    assert processes_of(project) == []


def test_a_refusal_of_the_users_server_is_one_sentence_within_seconds(project: Path, tmp_path: Path) -> None:
    url = "http://127.0.0.1:9/api"
    (tmp_path / "profiles.toml").write_text(f'active = "work"\n[profiles.work]\nPREFECT_API_URL = "{url}"\n')
    for origin, setting in (
        ("from PREFECT_API_URL", {"PREFECT_API_URL": url}),
        ("from Prefect's profile 'work'", {"PREFECT_HOME": str(tmp_path)}),
    ):
        started = time.monotonic()
        done = local(project, "up", **setting)
        assert done.returncode == 1
        assert time.monotonic() - started < 30
        assert done.stderr.startswith(f"Prefect's API at {url} ({origin}) does not answer")
        assert done.stderr.count("\n") == 1


def deployments(server: str) -> set[str]:
    return {each["name"] for each in ask(f"{server}/deployments/filter", {})}
