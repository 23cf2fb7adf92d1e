"""The Compose stack, as Compose itself reads it: who runs, who reaches whom, and who holds which secret."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from clone import REPO, environment
from prefect.settings import Settings

FOLDER = REPO / "deployments" / "compose"
ONCE = {"account", "prepare"}
SERVICES = {"database", "server", "s3", "engine", "worker"} | ONCE
DEMANDED = {
    "PREFECT_API_AUTH_STRING",
    "POSTGRES_PASSWORD",
    "S3_ROOT_ACCESS_KEY",
    "S3_ROOT_SECRET_KEY",
    "S3_ACCESS_KEY",
    "S3_SECRET_KEY",
    "DOCKER_GROUP",
}
VACUUM = "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED"
TEXT = (FOLDER / "compose.yaml").read_text()
EXAMPLE = (FOLDER / ".env.example").read_text()

Services = dict[str, dict[str, Any]]


def compose() -> list[str]:
    """The command, as a plugin or by itself."""
    plugin = ["docker", "compose"]
    if shutil.which("docker") and subprocess.run([*plugin, "version"], capture_output=True).returncode == 0:
        return plugin
    return ["docker-compose"] if shutil.which("docker-compose") else []


def config(settings: Path) -> "subprocess.CompletedProcess[str]":
    command = [*compose(), "--env-file", str(settings), "-f", str(FOLDER / "compose.yaml"), "config"]
    env = {name: value for name, value in environment().items() if name not in DEMANDED}
    return subprocess.run(command, env=env, capture_output=True, text=True)


def fill(text: str) -> str:
    """The example with a value of its own for each variable, so that the file tells who holds it."""
    return re.sub(r"^(\w+)=$", r"\1=value-of-\1", text, flags=re.MULTILINE)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """The example, filled in."""
    (tmp_path / "settings").write_text(fill(EXAMPLE))
    return tmp_path / "settings"


@pytest.fixture(scope="module")
def services() -> Services:
    """The services of the file, with the example's values and without Compose."""
    values = dict(re.findall(r"^(\w+)=(.*)$", fill(EXAMPLE), re.MULTILINE))
    text = re.sub(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}", lambda it: values.get(it[1], it[2] or ""), TEXT)
    return dict(yaml.safe_load(text)["services"])


def holders(services: Services, variable: str) -> set[str]:
    """The services whose definition holds a variable's value."""
    return {name for name, service in services.items() if re.search(rf"value-of-{variable}\b", str(service))}


needs_compose = pytest.mark.skipif(not compose(), reason="neither `docker compose` nor docker-compose is here")


@needs_compose
def test_compose_reads_the_stack_as_the_tests_here_do(settings: Path, services: Services) -> None:
    done = config(settings)
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = yaml.safe_load(done.stdout)
    assert set(read["services"]) == SERVICES
    for name, service in read["services"].items():
        assert set(service["networks"]) == set(services[name]["networks"])
        assert service.get("environment", {}) == services[name].get("environment", {})
    assert {name for name, network in read["networks"].items() if network.get("internal")} == {"database", "engine"}
    assert set(read["volumes"]) == {"database", "server", "objects", "accounts"}


@needs_compose
@pytest.mark.parametrize("variable", sorted(DEMANDED))
def test_what_is_not_filled_in_is_demanded_by_its_name(settings: Path, variable: str) -> None:
    kept = [line for line in settings.read_text().splitlines() if not line.startswith(f"{variable}=")]
    settings.write_text("\n".join(kept))
    done = config(settings)
    assert done.returncode != 0
    assert variable in done.stderr


def test_no_secret_has_a_default() -> None:
    assert {line[:-1] for line in EXAMPLE.splitlines() if line.endswith("=")} == DEMANDED | {"KAGGLE_API_TOKEN"}
    for variable in DEMANDED:
        assert f"${{{variable}:?" in TEXT
        assert f"${{{variable}:-" not in TEXT


def test_images_are_pinned_to_exact_versions(services: Services) -> None:
    foreign = {service["image"] for service in services.values()} - {"pcam:dev"}
    assert len(foreign) == 3
    for image in foreign:
        assert re.fullmatch(r"[a-z/-]+:v?\d+(\.\d+)+(-\w+)?(@sha256:[0-9a-f]{64})?", image), image


def test_every_service_stays_up_or_ends_and_tells_its_health(services: Services) -> None:
    assert set(services) == SERVICES
    for name in SERVICES - ONCE:
        assert services[name]["restart"] == "unless-stopped", name
        assert "test" in services[name]["healthcheck"], name
    for name in ONCE:
        assert "restart" not in services[name], name


def test_every_service_is_locked_down_and_published_on_this_machine_only(services: Services) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "network_mode" not in service, name
        assert not service.get("privileged"), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
    assert {name for name, service in services.items() if "ports" in service} == {"server", "s3"}


def test_the_server_and_all_its_clients_have_the_login(services: Services) -> None:
    assert services["server"]["environment"]["PREFECT_SERVER_API_AUTH_STRING"] == "value-of-PREFECT_API_AUTH_STRING"
    for name in ("prepare", "worker"):
        assert services[name]["environment"]["PREFECT_API_AUTH_STRING"] == "value-of-PREFECT_API_AUTH_STRING"
    assert holders(services, "PREFECT_API_AUTH_STRING") == {"server", "prepare", "worker"}


def test_prefect_forgets_old_runs_so_that_the_database_does_not_grow_for_ever(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VACUUM, raising=False)
    assert "flow_runs" not in Settings().server.services.db_vacuum.enabled_vacuum_types
    monkeypatch.setenv(VACUUM, services["server"]["environment"][VACUUM])
    assert {"events", "flow_runs"} <= Settings().server.services.db_vacuum.enabled_vacuum_types


def test_only_the_proxy_mounts_the_engines_socket_and_only_the_worker_reaches_it(services: Services) -> None:
    assert {name for name, service in services.items() if "docker.sock" in str(service)} == {"engine"}
    assert services["engine"]["networks"] == ["engine"]
    assert {name for name, service in services.items() if "engine" in service["networks"]} == {"engine", "worker"}
    assert services["worker"]["environment"]["DOCKER_HOST"] == "tcp://engine:2375"
    assert "-allowfrom=worker" in services["engine"]["command"]
    assert yaml.safe_load(TEXT)["networks"]["engine"]["internal"] is True
    assert "group_add" not in services["worker"]


def allows(services: Services, method: str, path: str) -> bool:
    """Whether the proxy lets a request through: it anchors its expressions at both ends."""
    (rule,) = [word for word in services["engine"]["command"] if word.startswith(f"-allow{method}=")] or [""]
    return bool(rule and re.fullmatch(rule.partition("=")[2], path))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/version"),
        ("GET", "/v1.50/version"),
        ("GET", "/v1.50/info"),
        ("GET", "/v1.50/images/registry.example:5000/pcam:dev/json"),
        ("POST", "/v1.50/images/create"),
        ("POST", "/v1.50/containers/create"),
        ("GET", "/v1.50/containers/0a1b/json"),
        ("GET", "/v1.50/containers/0a1b/logs"),
        *(("POST", f"/v1.50/containers/0a1b/{action}") for action in ("start", "wait", "stop", "kill")),
    ],
)
def test_the_proxy_allows_what_the_worker_asks(services: Services, method: str, path: str) -> None:
    assert allows(services, method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/containers/create"),  # without a version: older proxies do not look at its mounts
        ("POST", "/v1.50/containers/0a1b/exec"),
        ("POST", "/v1.50/exec/0a1b/start"),
        ("POST", "/v1.50/containers/0a1b/update"),
        ("POST", "/v1.50/containers/0a1b/attach"),
        ("PUT", "/v1.50/containers/0a1b/archive"),
        ("GET", "/v1.50/containers/0a1b/archive"),
        ("GET", "/v1.50/containers/0a1b/export"),
        ("GET", "/v1.50/containers/json"),
        ("DELETE", "/v1.50/containers/0a1b"),
        ("POST", "/v1.50/build"),
        ("POST", "/v1.50/commit"),
        ("POST", "/v1.50/volumes/create"),
        ("POST", "/v1.50/networks/create"),
        ("POST", "/v1.50/networks/pcam-database/connect"),
        ("POST", "/v1.50/services/create"),
        ("POST", "/v1.50/swarm/init"),
        ("POST", "/v1.50/plugins/pull"),
        ("GET", "/v1.50/secrets"),
    ],
)
def test_the_proxy_refuses_everything_else(services: Services, method: str, path: str) -> None:
    assert not allows(services, method, path)


def test_the_proxy_mounts_no_path_of_the_host_but_one_folder(services: Services) -> None:
    assert "-allowbindmountfrom=/srv/pcam" in services["engine"]["command"]


def test_a_job_reaches_the_server_and_the_store_and_nothing_else(services: Services) -> None:
    assert yaml.safe_load(TEXT)["networks"]["jobs"]["name"] == "pcam-jobs"
    assert "deployments.pools gpu --network pcam-jobs" in " ".join(services["prepare"]["command"])
    assert {name for name, service in services.items() if "jobs" in service["networks"]} == {"server", "s3"}
    assert {name for name, service in services.items() if "database" in service["networks"]} == {"database", "server"}


def test_the_stores_root_key_is_with_the_s3_server_and_the_account_only(services: Services) -> None:
    assert holders(services, "S3_ROOT_ACCESS_KEY") == {"s3", "account"}
    assert holders(services, "S3_ROOT_SECRET_KEY") == {"s3", "account"}
    assert holders(services, "S3_SECRET_KEY") == {"account", "prepare", "worker"}
    assert holders(services, "POSTGRES_PASSWORD") == {"database", "server"}
    assert services["worker"]["environment"]["AWS_SECRET_ACCESS_KEY"] == "value-of-S3_SECRET_KEY"


def test_the_account_is_no_administrator_and_the_store_is_tried_with_it(services: Services) -> None:
    (script,) = services["account"]["command"]
    assert re.findall(r"--role (\w+)", script) == ["user"]
    assert services["prepare"]["depends_on"]["account"] == {"condition": "service_completed_successfully"}
    assert "python -m deployments.store" in " ".join(services["prepare"]["command"])
    prepare, worker = (services[name]["environment"] for name in ("prepare", "worker"))
    assert {name: prepare[name] for name in prepare if name.startswith(("AWS_", "PCAM_"))} == {
        name: worker[name] for name in worker if name.startswith(("AWS_", "PCAM_"))
    }
