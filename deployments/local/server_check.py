"""Check that PREFECT_API_URL is the API of a Prefect server."""

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from pcam_model.core.errors import PcamError


def check_server(url: str) -> None:
    """Raise PcamError where PREFECT_API_URL is dead, or is not the API of a Prefect server that lets us in."""
    no_retries = temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0})
    try:
        with no_retries, get_client(httpx_settings={"timeout": 10}, sync_client=True) as client:
            client.read_work_pools(limit=1)
    except (httpx.HTTPError, ValueError) as error:
        code = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else "no JSON"
        found, remedy = f"answers {code}", "see that it ends in /api"
        if code in (401, 403):
            remedy = "set PREFECT_API_AUTH_STRING=user:password or PREFECT_API_KEY"
        elif isinstance(error, httpx.TransportError):
            found, remedy = "does not answer", "start that server, or unset PREFECT_API_URL to use a local one"
        raise PcamError(f"PREFECT_API_URL={url} {found}, expected a Prefect server that lets us in; {remedy}") from None
