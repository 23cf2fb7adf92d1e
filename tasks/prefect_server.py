"""Findings on a Prefect server, its work pool and workers, and the container engine behind a docker pool."""

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import prefect
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import WorkPool
from prefect.exceptions import ObjectNotFound

from pcam_model.check import Finding
from tasks.api_server import find_problem, url_source

DEPLOYMENT, DEFAULT_POOL = "pcam/full-train", "gpu"
MAX_CLOCK_SKEW_S = 30.0  # states and heartbeats are ordered by time
ENGINE_TIMEOUT_S = 10
EXPECTED_SERVER, EXPECTED_VERSION = "a server that answers", "the server's release, to the minor version"
LEASE_SETTING = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=prefect.server.concurrency.lease_storage.filesystem"


def check_server(url: str, pool: str) -> Iterator[Finding]:
    """Findings on the server at `url` and on the pool; ends early where the server does not answer.

    Args:
        url: the address of its API.
        pool: the work pool; empty: that of the deployment pcam/full-train.
    """
    if problem := find_problem(url):
        yield _no_answer(f"{url} ({url_source()})", *problem)
        return
    try:
        with get_client(sync_client=True) as client:
            response = client._client.get("/admin/version")
            response.raise_for_status()
            yield Finding(what="Prefect", found=url, expected=EXPECTED_SERVER)
            yield check_version(str(response.json()))
            yield check_clock(response.headers.get("Date"), time.time())
            yield check_lease_storage(client._client.get("/admin/settings").json())
            yield from _check_pool(client, pool)
    except (httpx.HTTPError, OSError) as error:
        yield _no_answer(url, f"fails ({str(error) or type(error).__name__})".splitlines()[0], "see its log")


def _no_answer(url: str, problem: str, remedy: str) -> Finding:
    found = f"{url} {problem}"
    return Finding(what="Prefect", found=found, expected=EXPECTED_SERVER, level="failed", remedy=remedy, transient=True)


def check_version(server: str) -> Finding:
    """Fine where the minor versions are the same; a newer server is a warning, an older one fails."""
    here, there = (tuple(int(part) for part in version.split(".")[:2]) for version in (prefect.__version__, server))
    found = f"server {server}, client {prefect.__version__}"
    if here == there:
        return Finding(what="Prefect's version", found=found, expected=EXPECTED_VERSION)
    is_incompatible = here[0] != there[0] or here > there
    return Finding(
        what="Prefect's version",
        found=found,
        expected=EXPECTED_VERSION,
        level="failed" if is_incompatible else "warning",
        remedy=f"install prefect=={server} here, or update the server",
    )


def check_clock(date: str | None, now: float) -> Finding:
    """Compare the server's clock, from its Date header, with this machine's, in seconds since 1970."""
    expected = f"within {MAX_CLOCK_SKEW_S:.0f} s of each other"
    if date is None:
        return Finding(what="clocks", found="the server sends no Date", expected=expected)
    skew = now - parsedate_to_datetime(date).timestamp()
    found = f"this machine is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the server"
    if abs(skew) <= MAX_CLOCK_SKEW_S:
        return Finding(what="clocks", found=found, expected=expected)
    remedy = "set both by NTP: heartbeats and schedules go by time"
    return Finding(what="clocks", found=found, expected=expected, level="failed", remedy=remedy)


def check_lease_storage(settings: dict[str, Any]) -> Finding:
    """Whether the server remembers over a restart which run holds a deployment's concurrency slot."""
    storage = str(settings.get("server", {}).get("concurrency", {}).get("lease_storage", "")).rpartition(".")[2]
    what, expected = "slots", "a server that remembers over a restart which run holds a deployment's slot"
    if storage != "memory":
        return Finding(what=what, found=f"stored by the server: {storage or 'its default'}", expected=expected)
    remedy = f"start the server with {LEASE_SETTING}, or its restart ends a run of pcam/full-train minutes later"
    return Finding(what=what, found="in the server's memory", expected=expected, level="warning", remedy=remedy)


def _check_pool(client: SyncPrefectClient, name: str) -> Iterator[Finding]:
    name = name or _pool_of_deployment(client) or DEFAULT_POOL
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        remedy, expected = f"python -m deployments.pools {name}", "the pool of the deployment"
        yield Finding(what="work pool", found=f"no pool {name!r}", expected=expected, remedy=remedy, level="failed")
        return
    yield Finding(
        what="work pool",
        found=f"{name}, of type {pool.type}" + (", paused" if pool.is_paused else ""),
        expected="a pool that takes runs",
        remedy=f"prefect work-pool resume {name}" if pool.is_paused else "",
        level="failed" if pool.is_paused else "fine",
    )
    yield _check_worker(client, pool)
    if pool.type == "docker":
        yield check_engine()


def _pool_of_deployment(client: SyncPrefectClient) -> str:
    try:
        return client.read_deployment_by_name(DEPLOYMENT).work_pool_name or ""
    except ObjectNotFound:
        return ""


def _check_worker(client: SyncPrefectClient, pool: WorkPool) -> Finding:
    workers = client._client.post(f"/work_pools/{pool.name}/workers/filter", json={}).json()
    online = [worker["name"] for worker in workers if worker["status"] == "ONLINE"]
    expected = "one that is on line"
    if online:
        return Finding(what="worker", found=", ".join(online), expected=expected)
    remedy = f"prefect worker start --pool {pool.name}"
    found = f"none of {len(workers)} is on line"
    return Finding(what="worker", found=found, expected=expected, remedy=remedy, level="failed")


def check_engine() -> Finding:
    """Whether this machine's container engine has GPUs: it is the worker's where the worker runs here."""
    import docker  # type: ignore[import-untyped]
    from docker.errors import DockerException  # type: ignore[import-untyped]

    expected = "an engine with GPUs"
    try:
        client = docker.from_env(timeout=ENGINE_TIMEOUT_S)
        try:
            info = client.info()
        finally:
            client.close()
    except DockerException as error:
        found = f"no engine answers here ({str(error).splitlines()[0][:120]})"
        remedy = "run pcam check on the worker's machine"
        return Finding(what="Docker", found=found, expected=expected, level="warning", remedy=remedy)
    return check_gpus(info, expected)


def check_gpus(info: dict[str, Any], expected: str) -> Finding:
    """Whether `docker info` lists NVIDIA's runtime, or its CDI devices."""
    found = f"engine {info.get('ServerVersion')}"
    devices = [str(device.get("ID")) for device in info.get("DiscoveredDevices") or []]
    if "nvidia" in info.get("Runtimes", {}) or any(device.startswith("nvidia.com/gpu") for device in devices):
        return Finding(what="Docker", found=f"{found} with NVIDIA's runtime", expected=expected)
    remedy = (
        "install the NVIDIA Container Toolkit, then `nvidia-ctk runtime configure --runtime=docker`, or use the "
        "deployment pcam/smoke, which needs no GPU"
    )
    found = f"{found} without NVIDIA's runtime"
    return Finding(what="Docker", found=found, expected=expected, level="failed", remedy=remedy)
