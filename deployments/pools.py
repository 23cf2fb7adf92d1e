"""`python -m deployments.pools NAME`: make or update a docker pool whose runs get what the worker's environment has.

The pool holds names only: each `{{ $NAME }}` is read by the worker from its own environment when it starts a
container, so that no credential is ever stored in the server or in a file of this project.
"""

import sys
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


def docker_template() -> dict[str, Any]:
    """prefect-docker's own base job template, with the names above as the default environment."""
    template = DockerWorker.get_default_base_job_template()
    template["variables"]["properties"]["env"]["default"] = {name: f"{{{{ ${name} }}}}" for name in HANDED_ON}
    return template


def make_pool(client: SyncPrefectClient, name: str) -> None:
    """The docker pool of that name, made or brought up to date."""
    template = docker_template()
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=name, type="docker", base_job_template=template))
    else:
        client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))


if __name__ == "__main__":
    with get_client(sync_client=True) as _client:
        make_pool(_client, sys.argv[1])
    print(f"The docker pool {sys.argv[1]} is ready")
