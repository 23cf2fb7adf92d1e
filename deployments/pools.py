"""`python -m deployments.pools NAME [--network NETWORK]`: create or update a docker pool.

Its containers get variables of the worker's environment, by name: each `{{ $NAME }}` in the pool is read by the worker
when it starts a container, so that no credential is stored in the server or in a file of this project. The worker's own
Prefect settings, the server's login among them, Prefect hands on by itself.
"""

import argparse
import sys
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect_docker.worker import DockerWorker  # type: ignore[import-untyped]

from pcam_model.core.errors import PcamError
from tasks.api_server import check_api, configured_url

FORWARDED_VARIABLES = (
    "PCAM_STORE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL_S3",
    "KAGGLE_API_TOKEN",
    "KAGGLE_USERNAME",
    "KAGGLE_KEY",
)


def docker_template(network: str = "") -> dict[str, Any]:
    """prefect-docker's base job template, with `FORWARDED_VARIABLES` as the default environment.

    Args:
        network: a network of the engine that containers join, or `host`; empty: the engine's default.
    """
    template: dict[str, Any] = DockerWorker.get_default_base_job_template()
    fields = template["variables"]["properties"]
    fields["env"]["default"] = {name: f"{{{{ ${name} }}}}" for name in FORWARDED_VARIABLES}
    if network == "host":
        fields["network_mode"]["default"] = network
    elif network:
        fields["networks"]["default"] = [network]
    return template


def make_pool(client: SyncPrefectClient, name: str, network: str = "") -> None:
    """Create or update the docker pool of that name."""
    template = docker_template(network)
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=name, type="docker", base_job_template=template))
    else:
        client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(prog="python -m deployments.pools")
    _parser.add_argument("name")
    _parser.add_argument("--network", default="", help="a network of the engine, or host")
    _options = _parser.parse_args()
    try:
        check_api(configured_url())
    except PcamError as _error:
        sys.exit(str(_error))
    with get_client(sync_client=True) as _client:
        make_pool(_client, _options.name, _options.network)
    print(f"The docker pool {_options.name} is ready")
