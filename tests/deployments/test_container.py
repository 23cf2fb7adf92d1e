"""The image on a real engine, and the flows in its containers. `make test-container` runs these."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clone import LOCKED, REPO, ask, errors, free_port, until
from engine import IMAGE, PREFECT, PYTHON, SILENCE, Engine, sh
from postgres import database

pytestmark = [
    pytest.mark.container,
    pytest.mark.timeout(1200),
    pytest.mark.skipif("PCAM_TEST_CONTAINER" not in os.environ, reason="runs by make test-container"),
]
LARGE = 300e6
SLOWNESS = float(os.environ.get("PCAM_TEST_SLOWNESS", "1"))  # factor of the time limits on a slow machine
SMALL: dict[str, Any] = {
    "source": {"kind": "sample", "max_patches": 240},
    "model": {"arch": "mobilenet_v2", "weights": "none", "image_size": 32},
    "frozen": {"epochs": 1, "batch_size": 32, "lr": 1e-3},
    "finetune": {"epochs": 1, "batch_size": 32, "lr": 1e-3},
}
COMPILE = """
import pathlib, tempfile, torch
from triton.runtime.build import _build  # as its driver for NVIDIA builds its launcher
network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
compiled, images = torch.compile(network), torch.rand(2, 3, 8, 8)
compiled(images).sum().backward()
assert torch.allclose(compiled.eval()(images), network.eval()(images), atol=1e-6)
folder = pathlib.Path(tempfile.mkdtemp())
(folder / "module.c").write_text("#include <Python.h>\\nPyObject *none(void) { Py_RETURN_NONE; }")
_build("module", str(folder / "module.c"), str(folder), [], [], [], [])
print("compiled")
"""
# Seconds to its second stage, then long enough on any machine: an epoch is three steps, a checkpoint and a table.
EPOCHS = 40
LONG = SMALL | {"finetune": {"epochs": EPOCHS, "batch_size": 64, "lr": 1e-3}}


def inside(*command: str, check: bool = True) -> str:
    """What a command says in a container whose root file system is read-only."""
    return sh("docker", "run", "--rm", "--read-only", "--network", "none", IMAGE, *command, check=check)


def build() -> float:
    """Build the image; the seconds it took."""
    begun, commit = time.monotonic(), sh("git", "rev-parse", "HEAD")
    sh("docker", "build", "--network", "host", "-t", IMAGE, "--build-arg", f"COMMIT={commit}", ".")
    return time.monotonic() - begun


@pytest.fixture(scope="module", autouse=True)
def image() -> None:
    build()


def test_the_image_runs_as_nobody_special_on_a_read_only_system() -> None:
    assert inside("id", "-u") == "10001"
    assert "train" in inside("pcam", "--help")
    writable = inside(
        "sh", "-c", "find / -xdev -writable -not -path '/proc/*' -not -path '/dev/*' 2>/dev/null", check=False
    )
    assert all(
        path.startswith(("/opt/prefect", "/var/cache/pcam", "/tmp", "/var/tmp", "/run/lock"))
        for path in writable.split()
    )
    assert "Read-only file system" in inside("sh", "-c", "touch /tmp/x", check=False)
    assert inside("sh", "-c", "touch /opt/prefect/x /var/cache/pcam/x && cat /proc/1/comm") == "tini"
    assert inside("sh", "-c", "ps -eo uid= 2>/dev/null || stat -c %u /proc/[0-9]*").split() == ["10001"] * 2


def test_the_image_compiles_networks_for_the_cpu_and_c_for_triton_and_reports_to_nobody() -> None:
    assert inside("python", "-c", COMPILE).splitlines()[-1] == "compiled"
    assert inside("printenv", "PYTORCH_ALLOC_CONF") == "expandable_segments:True"
    assert inside("printenv", "ORT_DISABLE_TELEMETRY") == "1"


def test_no_layer_holds_a_credential_and_the_labels_say_what_it_is() -> None:
    history = sh("docker", "history", "--no-trunc", IMAGE)
    about: dict[str, Any] = json.loads(sh("docker", "inspect", IMAGE))[0]["Config"]
    for word in ("SECRET", "TOKEN", "PASSWORD", "ACCESS_KEY"):
        assert word not in history
        assert word not in " ".join(about["Env"])
    assert about["Labels"]["org.opencontainers.image.revision"] == sh("git", "rev-parse", "HEAD")
    assert inside("sh", "-c", "find /opt /var/cache/pcam -name '.env*' -o -name kaggle.json -o -name '.git'") == ""


def test_nothing_but_torchs_own_stack_is_large(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = inside("sh", "-c", "du -sb $(python -c 'import site; print(site.getsitepackages()[0])')/*")
    packages = {Path(name).name: int(size) for size, name in (line.split("\t") for line in sizes.splitlines())}
    large = {name for name, size in packages.items() if size > LARGE}
    assert large <= {"nvidia", "torch", "triton"}
    history = sh(
        "docker", "history", "--no-trunc", "--human=false", "--format", "{{.Size}}\t{{json .CreatedBy}}", IMAGE
    )
    layers = [(int(size), made) for size, made in (line.split("\t", 1) for line in history.splitlines())]
    assert [made for size, made in layers if size > LARGE and "torch.txt" not in made] == []
    with capsys.disabled():
        print("", *(f"{size / 1e6:8.1f} MB  {made[:100]}" for size, made in layers if size), sep="\n")


def test_a_change_of_the_code_is_built_in_seconds() -> None:
    changed = REPO / "pcam_model" / "zz_changed_for_a_test.py"
    changed.write_text(f'"""{time.time()}"""\n')
    try:
        took = build()
    finally:
        changed.unlink()
        build()
    assert took < 15 * SLOWNESS


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A server, the pool, the automations with a short patience, the deployments, and a docker worker."""
    bucket = os.environ.get("PCAM_TEST_BUCKET", "")
    say = request.config.get_terminal_writer().line
    with database() as address:
        if not bucket:
            say("No S3 server is given: containers publish to a folder")
        if not address:
            say("No PostgreSQL is here (apt-get install postgresql): the server keeps its history in SQLite")
        engine = Engine(tmp_path_factory.mktemp("engine"), free_port(), bucket, address)
        (engine.folder / "store").mkdir()
        (engine.folder / "store").chmod(0o777)  # the container's user is not ours
        file = ["--prefect-file", "deployments/prefect.yaml"]
        try:
            engine.start_server()
            engine.python("-m", "deployments.pools", "gpu", "--network", "host")
            engine.python("-m", "deployments.automations", "--silence", str(SILENCE))
            engine.python("-m", "prefect", "--no-prompt", "deploy", "--all", *file)
            engine.adapt()
            engine.start_worker()
            yield engine
            assert errors(engine.log("server"), waived=() if address else LOCKED) == []
        finally:
            engine.stop()


@pytest.fixture
def engine(stack: Engine) -> Iterator[Engine]:
    """The stack, from which every test's runs go with it."""
    yield stack
    stack.clear()


def test_a_run_in_the_container_is_published_and_its_model_predicts_on_the_host(engine: Engine, tmp_path: Path) -> None:
    words = ["deployment", "run", "pcam/smoke", "--params", json.dumps({"config": {**SMALL, "run": "smoke"}})]
    command = [*PREFECT, *words, "--watch", "--watch-timeout", "900"]
    with subprocess.Popen(command, cwd=REPO, env=engine.env(), stdout=subprocess.PIPE, text=True) as watching:
        logs = watching.communicate(timeout=960)[0]
    assert watching.returncode == 0, logs + engine.log("worker")[-4000:]
    pcam = [PYTHON, "-c", "from pcam_model.cli.main import main; main()"]
    assert "smoke" in sh(*pcam, "runs", "--store", engine.outer)
    sh(*pcam, "pull", "smoke", str(tmp_path / "model"), "--store", engine.outer)
    assert '"auc"' in sh(*pcam, "score", str(tmp_path / "model"), "sample", "--json")


def test_the_gpu_request_reaches_the_engine(engine: Engine) -> None:
    run = engine.deploy("full-train", SMALL, "gpu", on_cpu=False)
    state = engine.ended(run)
    assert state == "COMPLETED" or "could not select device driver" in engine.log("worker")
    assert state in ("COMPLETED", "CRASHED")


def test_a_schedule_makes_a_run_in_a_container_that_is_locked_down(engine: Engine) -> None:
    deployment = ask(f"{engine.url}/deployments/name/pcam/smoke")["id"]
    soon = {"schedule": {"cron": "* * * * *"}, "active": True, "parameters": {"config": {**SMALL, "run": "scheduled"}}}
    (made,) = ask(f"{engine.url}/deployments/{deployment}/schedules", [soon])
    which = {"deployments": {"id": {"any_": [deployment]}}, "flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
    (run,) = until(lambda: ask(f"{engine.url}/flow_runs/filter", which), 300)[:1]
    about = json.loads(sh("docker", "inspect", engine.container(run["id"])))[0]
    engine.python("-m", "prefect", "--no-prompt", "deployment", "schedule", "delete", "pcam/smoke", made["id"],
                  "--accept-yes")  # fmt: skip
    assert run["auto_scheduled"]
    assert about["HostConfig"]["ReadonlyRootfs"]
    assert about["Config"]["User"] == "pcam"
    assert about["HostConfig"]["CapDrop"] == ["ALL"]
    assert not about["HostConfig"]["Privileged"]
    assert engine.ended(run["id"]) == "COMPLETED", engine.log("worker")[-4000:]


def under_way(engine: Engine, name: str) -> tuple[str, str]:
    """A run in the middle of its second stage, and its container."""
    run = engine.deploy("full-train", LONG, name)
    container = engine.container(run)
    assert until(lambda: f"finetune epoch 3/{EPOCHS}" in engine.run_logs(run), 600), engine.run_logs(run)
    assert engine.state(run) == "RUNNING", engine.run_logs(run)
    return run, container


def frozen(engine: Engine, name: str) -> bytes:
    from pcam_model.registry.factory import open_store

    return open_store(engine.outer).read(f"runs/{name}/checkpoints/frozen/step.json")


def goes_on(engine: Engine, name: str) -> None:
    """The slot is free, and the run ends without repeating what was done."""
    before = frozen(engine, name)
    again = engine.deploy("full-train", LONG, name)
    assert until(lambda: engine.state(again) == "RUNNING", 180), "the slot is taken"
    assert engine.ended(again) == "COMPLETED", engine.run_logs(again)
    logs = engine.run_logs(again)
    assert "checkpoints/frozen: already done" in logs
    assert "finetune: resumed at step" in logs
    assert "frozen epoch" not in logs
    assert f"finetune epoch 1/{EPOCHS}:" not in logs
    assert frozen(engine, name) == before


def slot_is_free(engine: Engine) -> bool:
    limit = ask(f"{engine.url}/deployments/name/pcam/full-train")["global_concurrency_limit"]
    return bool(limit["active_slots"] == 0 and limit["limit"] == 1)


def test_a_worker_that_is_killed_is_not_missed(engine: Engine) -> None:
    run, _ = under_way(engine, "without-worker")
    engine.kill("worker")
    assert engine.ended(run) == "COMPLETED", engine.run_logs(run)
    assert slot_is_free(engine)


def test_a_container_that_is_killed_ends_its_run_and_it_goes_on_later(engine: Engine) -> None:
    run, container = under_way(engine, "without-container")
    sh("docker", "kill", container)
    assert engine.ended(run, 180) == "CRASHED"
    goes_on(engine, "without-container")


def test_worker_and_container_killed_together_end_the_run_and_free_its_slot(engine: Engine) -> None:
    run, container = under_way(engine, "without-both")
    engine.kill("worker")
    sh("docker", "kill", container)
    assert engine.ended(run, 180) == "CRASHED"
    engine.start_worker()
    goes_on(engine, "without-both")


def test_a_server_that_is_away_for_a_minute_costs_no_run(engine: Engine) -> None:
    run, _ = under_way(engine, "without-server")
    lease = ask(f"{engine.url}/flow_runs/{run}")["state"]["state_details"]["deployment_concurrency_lease_id"]
    engine.kill("server")
    time.sleep(60)
    engine.start_server()
    if engine.state(run) == "RUNNING":  # its slot is still its own: minutes later it would be ended otherwise
        ask(f"{engine.url}/v2/concurrency_limits/leases/{lease}/renew", {"lease_duration": 300})
    assert engine.ended(run) == "COMPLETED", engine.run_logs(run)
    assert slot_is_free(engine)


def test_a_cancelled_run_saves_itself_and_is_gone_in_15_seconds(engine: Engine) -> None:
    from pcam_model.registry.factory import open_store
    from pcam_model.registry.run_status import read_status

    run, container = under_way(engine, "cancelled")
    begun = time.monotonic()
    state = {"type": "CANCELLING", "name": "Cancelling"}
    ask(f"{engine.url}/flow_runs/{run}/set_state", {"state": state})
    assert until(lambda: not engine.runs_on(container), 60)
    took = time.monotonic() - begun
    assert engine.ended(run, 180) == "CANCELLED"
    store = open_store(engine.outer)
    assert store.stat("runs/cancelled/checkpoints/finetune/live/live.json")
    ending = read_status(store, "cancelled")
    assert ending is not None
    assert ending.state.startswith("Cancel")
    assert took < 15 * SLOWNESS
    goes_on(engine, "cancelled")
