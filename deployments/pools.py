"""`python -m deployments.pools NAME [--network NETWORK]`: make or update a docker pool.

Its runs get what the worker's environment has.

The pool holds names only: each `{{ $NAME }}` is read by the worker from its own environment when it starts a
container, so that no credential is ever stored in the server or in a file of this project.
"""

import argparse
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect_docker.worker import DockerWorker

HANDED_ON = (
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
    """prefect-docker's own base job template, with the names above as the default environment.

    `network` is a network of the engine that containers join, or `host`.
    """
    template = DockerWorker.get_default_base_job_template()
    fields = template["variables"]["properties"]
    fields["env"]["default"] = {name: f"{{{{ ${name} }}}}" for name in HANDED_ON}
    if network == "host":
        fields["network_mode"]["default"] = network
    elif network:
        fields["networks"]["default"] = [network]
    return template


def make_pool(client: SyncPrefectClient, name: str, network: str = "") -> None:
    """The docker pool of that name, made or brought up to date."""
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
    with get_client(sync_client=True) as _client:
        make_pool(_client, _options.name, _options.network)
    print(f"The docker pool {_options.name} is ready")
