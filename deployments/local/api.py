"""The few questions to a Prefect server for which its own client would be too slow to import."""

import json
import os
import time
from datetime import UTC, datetime
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

ALONE = "nobody was left to run it when the local stack started again"


def ask(url: str, body: object = None, seconds: float = 60) -> Any:
    """GET, or POST with a body; the answer's JSON (None where it is empty)."""
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("PREFECT_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    request = Request(url, None if body is None else json.dumps(body).encode(), headers)
    local = url.startswith(("http://127.0.0.1", "http://localhost"))
    opener = build_opener(ProxyHandler({})) if local else build_opener()
    for pause in (0.5, 1, 2, 4, None):
        try:
            with opener.open(request, timeout=seconds) as answer:
                content = answer.read()
            break
        except HTTPError as error:  # SQLite that is busy answers 503
            if error.code != 503 or pause is None:
                raise
            time.sleep(pause)
    return json.loads(content) if content else None


def is_healthy(url: str) -> bool:
    """Does a Prefect server answer there?"""
    try:
        return ask(f"{url}/health", seconds=3) is True
    except (URLError, OSError, ValueError):
        return False


def has_worker(url: str, pool: str, name: str) -> bool:
    """Is the worker of that name on line in the pool?"""
    try:
        workers = ask(f"{url}/work_pools/{pool}/workers/filter", {})
    except (URLError, OSError, ValueError):
        return False
    return any(worker["name"] == name and worker["status"] == "ONLINE" for worker in workers)


def settle(url: str) -> None:
    """Give the runs that an earlier stack left half done a true end: no process can be behind them any more."""
    states = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
    for run in ask(f"{url}/flow_runs/filter", {"flow_runs": states}):
        _end(url, run, "CRASHED", "Crashed")
    due = {"before_": datetime.now(UTC).isoformat()}
    late = {"state": {"type": {"any_": ["SCHEDULED"]}}, "next_scheduled_start_time": due}
    for run in ask(f"{url}/flow_runs/filter", {"flow_runs": late}):
        if not run["auto_scheduled"]:
            _end(url, run, "CANCELLED", "Cancelled")


def _end(url: str, run: dict[str, Any], kind: str, name: str) -> None:
    state = {"type": kind, "name": name, "message": ALONE}
    ask(f"{url}/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
