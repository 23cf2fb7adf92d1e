"""What a Prefect server says of itself, of a pool and of its workers; and the engine behind a docker pool."""

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

DEPLOYMENT, POOL = "pcam/full-train", "gpu"
SKEW = 30.0  # seconds; states and heartbeats are ordered by time
ANSWERS, SAME = "a server that answers", "the server's release, to the minor version"


def findings(url: str, pool: str) -> Iterator[Finding]:
    """Everything that can be asked; ends early where the server does not answer."""
    try:
        with get_client(sync_client=True) as client:
            answer = client._client.get("/admin/version")
            answer.raise_for_status()
            yield Finding(what="Prefect", found=url, expected=ANSWERS)
            yield version(str(answer.json()))
            yield clock(answer.headers.get("Date"), time.time())
            yield slots(client._client.get("/admin/settings").json())
            yield from _pool(client, pool)
    except (httpx.HTTPError, OSError) as error:
        reason = f"{url}: {str(error) or type(error).__name__}".splitlines()[0]
        remedy = "start it (`prefect server start`), mend PREFECT_API_URL, or set PREFECT_API_KEY"
        yield Finding(what="Prefect", found=reason, expected=ANSWERS, level="failed", remedy=remedy, transient=True)


def version(server: str) -> Finding:
    """Server and client speak one language when their minor versions are the same, or the server is newer."""
    here, there = (tuple(int(part) for part in v.split(".")[:2]) for v in (prefect.__version__, server))
    found = f"server {server}, client {prefect.__version__}"
    if here == there:
        return Finding(what="Prefect's version", found=found, expected=SAME)
    broken = here[0] != there[0] or here > there
    return Finding(what="Prefect's version", found=found, expected=SAME, level="failed" if broken else "warning",
                   remedy=f"install prefect=={server} here, or update the server")  # fmt: skip


def clock(date: str | None, now: float) -> Finding:
    """The server's clock against this machine's."""
    expected = f"within {SKEW:.0f} s of each other"
    if date is None:
        return Finding(what="clocks", found="the server does not tell its time", expected=expected)
    apart = now - parsedate_to_datetime(date).timestamp()
    found = f"this machine is {abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} the server"
    if abs(apart) <= SKEW:
        return Finding(what="clocks", found=found, expected=expected)
    return Finding(what="clocks", found=found, expected=expected, level="failed",
                   remedy="set both by NTP: heartbeats and schedules go by time")  # fmt: skip


def slots(settings: dict[str, Any]) -> Finding:
    """Where a server keeps which run holds a deployment's slot: one that forgets it ends that run."""
    kept = str(settings.get("server", {}).get("concurrency", {}).get("lease_storage", "")).rpartition(".")[2]
    what, expected = "slots", "a server that knows after its restart which run holds a deployment's slot"
    if kept != "memory":
        return Finding(what=what, found=f"kept by the server in its {kept or 'own way'}", expected=expected)
    return Finding(what=what, found="kept in the server's memory", expected=expected, level="warning",
                   remedy="start the server with PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE="
                   "prefect.server.concurrency.lease_storage.filesystem, or its restart ends a run of pcam/full-train "
                   "minutes later")  # fmt: skip


def _pool(client: SyncPrefectClient, name: str) -> Iterator[Finding]:
    name = name or _deployed_to(client) or POOL
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        yield Finding(what="work pool", found=f"no pool {name!r}", expected="the pool of the deployment",
                      remedy=f"python -m deployments.pools {name}", level="failed")  # fmt: skip
        return
    paused = {"level": "failed", "remedy": f"prefect work-pool resume {name}"} if pool.is_paused else {}
    found = f"{name}, of type {pool.type}" + (", paused" if pool.is_paused else "")
    yield Finding.model_validate({"what": "work pool", "found": found, "expected": "a pool that takes runs", **paused})
    yield _worker(client, pool)
    if pool.type == "docker":
        yield engine()


def _deployed_to(client: SyncPrefectClient) -> str:
    try:
        return client.read_deployment_by_name(DEPLOYMENT).work_pool_name or ""
    except ObjectNotFound:
        return ""


def _worker(client: SyncPrefectClient, pool: WorkPool) -> Finding:
    workers = client._client.post(f"/work_pools/{pool.name}/workers/filter", json={}).json()
    online = [worker["name"] for worker in workers if worker["status"] == "ONLINE"]
    if online:
        return Finding(what="worker", found=", ".join(online), expected="one that is on line")
    return Finding(what="worker", found=f"none of {len(workers)} is on line", expected="one that is on line",
                   remedy=f"prefect worker start --pool {pool.name}", level="failed")  # fmt: skip


def engine() -> Finding:
    """The container engine of this machine, which is the worker's where this is the worker's machine."""
    import docker  # type: ignore[import-untyped]
    from docker.errors import DockerException  # type: ignore[import-untyped]

    expected = "an engine that hands on GPUs"
    try:
        client = docker.from_env(timeout=10)
        try:
            about = client.info()
        finally:
            client.close()
    except DockerException as error:
        return Finding(what="Docker", found=f"no engine answers here ({str(error).splitlines()[0][:120]})",
                       expected=expected, level="warning", remedy="run pcam check on the worker's machine")  # fmt: skip
    return gpus_of(about, expected)


def gpus_of(about: dict[str, Any], expected: str) -> Finding:
    """What `docker info` says of GPUs: NVIDIA's runtime, or its CDI devices."""
    found = f"engine {about.get('ServerVersion')}"
    devices = [str(device.get("ID")) for device in about.get("DiscoveredDevices") or []]
    if "nvidia" in about.get("Runtimes", {}) or any(device.startswith("nvidia.com/gpu") for device in devices):
        return Finding(what="Docker", found=f"{found} with NVIDIA's runtime", expected=expected)
    return Finding(what="Docker", found=f"{found} without NVIDIA's runtime", expected=expected, level="failed",
                   remedy="install the NVIDIA Container Toolkit, then `nvidia-ctk runtime configure --runtime=docker`, "
                   "or use deployment pcam/smoke, which needs no GPU")  # fmt: skip
