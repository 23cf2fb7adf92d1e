"""The Prefect server that a command's flows use: the user's, once it is checked, or a temporary one of the command."""

import os
import tempfile
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
from prefect.client.orchestration import get_client
from prefect.context import SettingsContext
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings

from pcam_model.core.errors import PcamError
from pcam_model.core.proxies import find_proxy
from tasks.server_process import running_server

CHECK_TIMEOUT_S = 10
PROXY_CODES = (407, 502, 503, 504)  # which a proxy answers for a server that it does not reach


class ApiProblem(NamedTuple):
    """Why an address cannot be used as Prefect's API."""

    found: str
    remedy: str


@contextmanager
def usable_server() -> Iterator[str]:
    """The address of the API that this process's flows use inside: the user's, else that of a temporary server.

    Raises:
        PcamError: the server that the user's settings name cannot be used, or the temporary one does not start.
    """
    if url := configured_url():
        check_api(url)
        yield url
        return
    with (
        tempfile.TemporaryDirectory(prefix="pcam-prefect-", ignore_cleanup_errors=True) as folder,
        running_server(Path(folder), Path(folder) / "server.log", ephemeral=True) as url,
    ):
        yield url


def configured_url() -> str:
    """The address of Prefect's API in the user's settings: environment, profile, files; empty where none is set."""
    return get_current_settings().api.url or ""


def check_api(url: str) -> None:
    """Raise PcamError where an address is dead, or is not the API of a Prefect server that lets us in."""
    problem = find_problem(url)
    if problem:
        raise PcamError(
            f"Prefect's API at {url} ({url_source()}) {problem.found}, expected a Prefect server that lets us in; "
            f"{problem.remedy}"
        )


def find_problem(url: str) -> ApiProblem | None:
    """Ask an address for work pools, once; None where it answers as a Prefect server that lets us in."""
    settings = temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0})
    try:
        with settings, get_client(httpx_settings={"timeout": CHECK_TIMEOUT_S}, sync_client=True) as client:
            client.read_work_pools(limit=1)
    except httpx.HTTPStatusError as error:
        return _explain_status(url, error.response.status_code)
    except (httpx.UnsupportedProtocol, httpx.InvalidURL):
        return ApiProblem("is no web address", "write it as http://HOST:4200/api, without quotes around it")
    except (httpx.TransportError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return _explain_proxy(url, f"does not answer ({reason})") or ApiProblem(
            f"does not answer ({reason})",
            f"start that server, or remove the address ({url_source()}) and a local server is started",
        )
    except (httpx.HTTPError, ValueError):  # a page, or an address that is none
        return ApiProblem("does not answer as Prefect's API does", "see that the address is right and ends in /api")
    return None


def _explain_status(url: str, code: int) -> ApiProblem:
    if code in (401, 403):
        return ApiProblem(f"answers {code}", "set PREFECT_API_AUTH_STRING=user:password or PREFECT_API_KEY")
    if code in PROXY_CODES and (problem := _explain_proxy(url, f"answers {code}")):
        return problem
    if code >= 500:
        return ApiProblem(f"answers {code}", "read that server's log, or try again later")
    return ApiProblem(f"answers {code}", "see that the address is right and ends in /api")


def _explain_proxy(url: str, found: str) -> ApiProblem | None:
    """The problem where a proxy stands between; None where none does."""
    proxy = find_proxy(url, any_scheme=True)
    if proxy is None:
        return None
    remedy = f"add {urllib.parse.urlsplit(url).hostname or ''} to NO_PROXY, or correct {proxy.variable}"
    return ApiProblem(f"{found} through the proxy of {proxy.variable}", remedy)


def url_source() -> str:
    """Where the address of Prefect's API is set."""
    if os.environ.get("PREFECT_API_URL"):
        return "from PREFECT_API_URL"
    context = SettingsContext.get()
    if context and PREFECT_API_URL in context.profile.settings:
        return f"from Prefect's profile {context.profile.name!r}"
    return "from .env, prefect.toml or pyproject.toml of this folder"
