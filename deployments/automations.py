"""`python -m deployments.automations [--silence SECONDS] [--alert TYPE/NAME]`: create or update the automations.

They are in automations.yaml. `--alert` names a notification block of the server (`custom-webhook/pcam`,
`sendgrid-email/pcam`; made on the server's page, or with `prefect block`), which is sent every run that fails and
every drift of scored patches.
"""

import argparse
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import yaml
from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from pcam_model.core.errors import ConfigError, PcamError
from tasks.api_server import check_api, configured_url

FILE = Path(__file__).parent / "automations.yaml"
SILENT = "pcam-crash-silent-runs"


def make_automations(silence: int | None = None, alert: str = "") -> list[str]:
    """Create or update all automations of the file; their names.

    Args:
        silence: seconds after which a silent run is Crashed, in place of the file's; heartbeats come every 30.
        alert: the notification block that is sent failures and drift, as TYPE/NAME; empty: none.

    Raises:
        ConfigError: the server has no such block.
    """
    names = []
    for content in _definitions(alert):
        automation = Automation.model_validate(content)
        if silence is not None and automation.name == SILENT:
            automation.trigger.within = timedelta(seconds=silence)  # type: ignore[union-attr]
        try:
            automation.id = cast(Automation, Automation.read(name=automation.name)).id
            automation.update()
        except (ValueError, ObjectNotFound):
            automation.create()
        names.append(automation.name)
    return names


def _definitions(alert: str) -> Iterator[dict[str, Any]]:
    file = yaml.safe_load(FILE.read_text())
    yield from file["automations"]
    if alert:
        block = _block_id(alert)
        for definition in file["alerts"]:
            actions = [{**action, "block_document_id": block} for action in definition["actions"]]
            yield {**definition, "actions": actions}


def _block_id(alert: str) -> str:
    block_type, _, name = alert.partition("/")
    try:
        with get_client(sync_client=True) as client:
            return str(client.read_block_document_by_name(name, block_type).id)
    except ObjectNotFound:
        raise ConfigError(
            f"the server has no notification block {alert!r}, expected TYPE/NAME of one that `prefect block ls` shows; "
            "make it on the server's page, Blocks"
        ) from None


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(prog="python -m deployments.automations", description=__doc__)
    _parser.add_argument("--silence", type=int, help="seconds after which a silent run is Crashed")
    _parser.add_argument("--alert", default="", help="the notification block that is sent failures, TYPE/NAME")
    _options = _parser.parse_args()
    try:
        check_api(configured_url())
        print("On the server:", ", ".join(make_automations(_options.silence, _options.alert)))
    except PcamError as _error:
        sys.exit(str(_error))
