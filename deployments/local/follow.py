"""Start a run of a deployment and stay with it to its end."""

import logging
import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import LogFilter
from prefect.client.schemas.objects import FlowRun, Log
from prefect.client.schemas.sorting import LogSort
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Cancelling, State

from pcam_model.core.errors import BadPlan

# What Prefect says of itself, and the traceback that its engine prints a second time.
CHATTER = re.compile(
    r"Beginning flow run|View at|Created task run|Finished in state|Executing |Running \d+ deployment|Deployment step"
    r"|All deployment steps|Runner failed to retrieve flow|Engine execution exited|Process for flow run"
)


def create(client: SyncPrefectClient, deployment: str, parameters: dict[str, Any], env: dict[str, str]) -> FlowRun:
    """A run of the deployment, named as the run in the store."""
    found = client.read_deployment_by_name(deployment)
    try:
        return client.create_flow_run_from_deployment(
            found.id, parameters=parameters, job_variables={"env": env}, name=parameters["run"]
        )
    except PrefectHTTPStatusError as error:
        if error.response.status_code not in (409, 422):
            raise
        raise BadPlan(f"the plan was refused: {_detail(error)}; mend that key and run again") from None


def to_the_end(client: SyncPrefectClient, run: UUID, show: Callable[[Log], None]) -> State[Any]:
    """Show the run's log as it comes; its final state. An interrupt cancels the run."""
    log = _LogReader(client, run, show)
    try:
        return _final_state(client, run, log)
    except KeyboardInterrupt:
        client.set_flow_run_state(run, Cancelling(), force=True)
        state = _final_state(client, run, log, seconds=60)
        print(f"Interrupted: the run is {state.name.lower()}.", flush=True)
        raise


def _final_state(client: SyncPrefectClient, run: UUID, log: "_LogReader", seconds: float = float("inf")) -> State[Any]:
    end = time.monotonic() + seconds
    while True:
        state = client.read_flow_run(run).state
        log.catch_up()
        if state is not None and (state.is_final() or time.monotonic() > end):
            time.sleep(1.5)  # the run's last lines are sent in batches of a second
            log.catch_up()
            return state
        time.sleep(1)


class _LogReader:
    """Each line once, though lines of several processes arrive out of order."""

    def __init__(self, client: SyncPrefectClient, run: UUID, show: Callable[[Log], None]) -> None:
        self.client, self.run, self.show = client, run, show
        self.seen: set[UUID] = set()
        self.since: Any = None
        self.last_shown = ""

    def catch_up(self) -> None:
        which: dict[str, Any] = {"flow_run_id": {"any_": [self.run]}}
        if self.since is not None:
            which["timestamp"] = {"after_": self.since - timedelta(seconds=20)}
        offset = 0
        while page := self.client.read_logs(LogFilter(**which), limit=200, offset=offset, sort=LogSort.TIMESTAMP_ASC):
            for line in page:
                self._show_once(line)
            offset += len(page)

    def _show_once(self, line: Log) -> None:
        if line.id in self.seen:
            return
        self.seen.add(line.id)
        self.since = line.timestamp
        ours = line.name in ("prefect.flow_runs", "prefect.task_runs") and line.level >= logging.INFO
        again = line.level >= logging.ERROR and line.message == self.last_shown  # a task's fault is also its flow's
        if (ours or line.level >= logging.WARNING) and not again and not CHATTER.match(line.message):
            self.last_shown = line.message
            self.show(line)


def _detail(error: PrefectHTTPStatusError) -> str:
    try:
        detail = error.response.json()["detail"]
    except (ValueError, KeyError):
        detail = error.response.text
    return " ".join(str(detail).split()).removeprefix("Error creating flow run: ").rstrip(".")
