"""What a real server makes of the deployments: schedules, limits, automations, pools."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest
import yaml
from clone import REPO, ask, environment, prefect, until

pytestmark = pytest.mark.slow

QUICK: dict[str, Any] = {"finetune": {"epochs": 1}, "seed": 2}  # of the stand-in flow
TEMPLATE = "deployments/kubernetes/base-job-template.json"


def start(server: str, name: str, **parameters: Any) -> str:
    """Start a run of a deployment; its id."""
    deployment = ask(f"{server}/deployments/name/pcam/{name}")
    body = {"parameters": deployment["parameters"] | parameters, "state": {"type": "SCHEDULED"}}
    return str(ask(f"{server}/deployments/{deployment['id']}/create_flow_run", body)["id"])


def state(server: str, run: str) -> dict[str, Any]:
    return dict(ask(f"{server}/flow_runs/{run}")["state"])


def deploy(server: str, project: Path, folder: Path, name: str, **changes: Any) -> None:
    """The retraining under a name of its own, so that no other test's deployment takes its place, as a process here."""
    file = yaml.safe_load((REPO / "deployments/prefect.yaml").read_text()) | {"build": None}
    (one,) = [deployment for deployment in file["deployments"] if deployment["name"] == "retrain"]
    one |= {"name": name, "work_pool": {"name": "local"}, "schedules": [], **changes}
    one["parameters"]["config"] = QUICK
    one["pull"] = [{"prefect.deployments.steps.set_working_directory": {"directory": str(project)}}]
    (folder / "prefect.yaml").write_text(yaml.safe_dump(file | {"deployments": [one]}))
    done = prefect(server, "deploy", "--all", "--prefect-file", str(folder / "prefect.yaml"), home=folder)
    assert done.returncode == 0, done.stdout + done.stderr


def test_of_two_retrainings_at_once_one_waits(server: str, pool: str, project: Path, tmp_path: Path) -> None:
    deploy(server, project, tmp_path, "twice")
    runs = [start(server, "twice", config=QUICK | {"finetune": {"epochs": 8}}) for _ in range(2)]
    assert until(lambda: "AwaitingConcurrencySlot" in {state(server, run)["name"] for run in runs})
    assert until(lambda: {state(server, run)["name"] for run in runs} == {"Completed"})
    spans = sorted((run["start_time"], run["end_time"]) for run in (ask(f"{server}/flow_runs/{run}") for run in runs))
    assert spans[0][1] <= spans[1][0]


def test_a_schedule_makes_runs_that_complete(server: str, pool: str, project: Path, tmp_path: Path) -> None:
    deploy(server, project, tmp_path, "minutely", schedules=[{"cron": "* * * * *"}])
    which = {"deployments": {"name": {"any_": ["minutely"]}}, "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    completed = until(lambda: ask(f"{server}/flow_runs/filter", which), 200)
    assert completed
    assert all(run["auto_scheduled"] for run in completed)
    deployment = ask(f"{server}/deployments/name/pcam/minutely")["id"]
    ask(f"{server}/deployments/{deployment}/pause_deployment", {})


def test_the_files_are_deployed_as_they_are_but_for_the_image(server: str, tmp_path: Path) -> None:
    file = yaml.safe_load((REPO / "deployments/prefect.yaml").read_text())
    pool = [sys.executable, "-m", "deployments.pools", "gpu"]
    env = environment(PREFECT_API_URL=server, PREFECT_HOME=str(tmp_path))
    subprocess.run(pool, cwd=REPO, env=env, check=True, capture_output=True)
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump(file | {"build": None}))
    done = prefect(
        server, "deploy", "--name", "smoke", "--name", "retrain", "--name", "nightly",
        "--prefect-file", str(tmp_path / "prefect.yaml"), home=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    weekly = ask(f"{server}/deployments/name/pcam/retrain")
    assert [(each["schedule"]["cron"], each["active"]) for each in weekly["schedules"]] == [("0 3 * * 0", False)]
    for flow, cron in (("pcam-score", "0 1 * * *"), ("pcam-slides", "0 2 * * *")):
        nightly = ask(f"{server}/deployments/name/{flow}/nightly")
        assert [(each["schedule"]["cron"], each["active"]) for each in nightly["schedules"]] == [(cron, False)]
    assert weekly["work_pool_name"] == "gpu"
    assert weekly["concurrency_options"]["collision_strategy"] == "ENQUEUE"


def test_the_kubernetes_template_is_accepted_and_keeps_its_word(server: str, tmp_path: Path) -> None:
    made = prefect(
        server, "work-pool", "create", "gpu-k8s", "--type", "kubernetes", "--base-job-template", TEMPLATE, home=tmp_path
    )
    assert made.returncode == 0, made.stdout + made.stderr
    pool = ask(f"{server}/work_pools/gpu-k8s")
    assert pool["base_job_template"] == json.loads((REPO / TEMPLATE).read_text())
    body = {"name": "on-k8s", "flow_id": ask(f"{server}/flows/", {"name": "pcam"})["id"], "work_pool_name": "gpu-k8s"}
    assert ask(f"{server}/deployments/", body | {"job_variables": {"gpus": 2, "shm_size": "16Gi"}})["id"]
    with pytest.raises(OSError, match="HTTP Error 4"):
        ask(f"{server}/deployments/", body | {"job_variables": {"gpus": "many"}})


def deleted(url: str) -> bool:
    """Whether the server has done it: SQLite that is busy answers 503."""
    try:
        build_opener(ProxyHandler({})).open(Request(url, method="DELETE")).close()
    except HTTPError as refusal:
        if refusal.code != 503:
            raise
        return False
    return True


@pytest.fixture
def web_hook(server: str) -> Iterator[tuple[str, list[str]]]:
    """A web hook's address, and what it was told; as long as it is there, the server may have automations."""
    bodies: list[str] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    hook = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=hook.serve_forever, daemon=True, kwargs={"poll_interval": 0.1}).start()
    yield f"http://127.0.0.1:{hook.server_port}/", bodies
    made = [f"{server}/automations/{automation['id']}" for automation in ask(f"{server}/automations/filter", {})]
    assert all(until(partial(deleted, automation)) for automation in made)
    hook.shutdown()
    hook.server_close()


def test_who_looks_after_the_runs_is_told_of_one_that_fails(
    server: str, pool: str, project: Path, web_hook: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, bodies = web_hook
    env = environment(PREFECT_API_URL=server, PREFECT_HOME=str(tmp_path))

    def automations(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "deployments.automations", *words]
        return subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True)

    block = "from prefect.blocks.notifications import CustomWebhookNotificationBlock as Hook; "
    block += f"Hook(name='pcam', url={url!r}, json_data={{'text': '{{{{subject}}}} {{{{body}}}}'}}).save('pcam')"
    subprocess.run([sys.executable, "-c", block], env=env, check=True, capture_output=True)
    refused = automations("--alert", "custom-webhook/none")
    assert refused.returncode != 0
    assert "no notification block" in refused.stderr
    for _ in range(2):  # the second time nothing is made twice
        done = automations("--alert", "custom-webhook/pcam")
        assert done.returncode == 0, done.stderr
    assert len(ask(f"{server}/automations/filter", {})) == 4
    deploy(server, project, tmp_path, "unlucky")
    for _ in range(3):  # an event that meets a locked SQLite holds what follows it for a quarter of an hour
        run = start(server, "unlucky", config={"finetune": {"epochs": 0}, "seed": 13})
        assert until(lambda run=run: state(server, run)["name"] == "Failed")
        if until(lambda: [words for words in bodies if "is Failed" in words], 60):
            break
    assert any("an unlucky seed" in words for words in bodies), bodies
    payload = {"source": "new.zip", "meaning": "drift: stain", "scores": "file:///scores/x"}
    resource = {"prefect.resource.id": "pcam.model.first", "prefect.resource.name": "first"}
    event = f"from prefect.events import emit_event; emit_event('pcam.drift', resource={resource}, payload={payload})"
    subprocess.run([sys.executable, "-c", event], env=env, check=True, capture_output=True)
    assert until(lambda: [words for words in bodies if "drifted from those of first" in words], 60), bodies
    assert any("new.zip: drift: stain" in words for words in bodies), bodies
