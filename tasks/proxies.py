"""Proxies in the environment: servers on this machine are reached without them, and httpx has to understand them."""

import os
import urllib.request

import httpx

from pcam_model.core.errors import ConfigError
from pcam_model.core.log import log
from pcam_model.core.proxies import proxy_address

NO_PROXY = ("NO_PROXY", "no_proxy")


def loopback_variables() -> dict[str, str]:
    """Variables that exempt this machine's addresses from the user's proxies, beside those already exempted."""
    exempted = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or "localhost"
    return dict.fromkeys(NO_PROXY, f"{exempted},127.0.0.1,localhost")


def make_proxies_readable() -> None:
    """Change the environment's proxies so that httpx, Prefect's client, can read all of them, used or not.

    Raises:
        ConfigError: HTTP_PROXY, HTTPS_PROXY or ALL_PROXY is no proxy that it speaks.
    """
    for name in NO_PROXY:
        if name in os.environ:
            os.environ[name] = ",".join(filter(None, map(_readable_exemption, os.environ[name].split(","))))
    for scheme, address in urllib.request.getproxies().items():
        if scheme in ("http", "https", "all"):
            _require_readable(f"{scheme.upper()}_PROXY", proxy_address(address))


def _readable_exemption(entry: str) -> str:
    """An entry of NO_PROXY as httpx reads it; empty for what it cannot, as networks of IPv6, nor any client here."""
    host = entry.strip().strip("[]")
    try:
        httpx.URL(f"all://[{host}]" if host.count(":") > 1 and "://" not in host else f"all://*{host}")
    except httpx.InvalidURL:
        return entry.strip() if "://" in host else ""
    return host


def _require_readable(variable: str, address: str) -> None:
    try:
        httpx.HTTPTransport(proxy=address, verify=False).close()
    except ImportError:
        if variable == "ALL_PROXY":  # beside HTTP_PROXY and HTTPS_PROXY, which programs prefer, it is not needed
            log.warning("ALL_PROXY is a SOCKS proxy, which is left out here; for it: pip install 'httpx[socks]'")
            for name in (variable, variable.lower()):
                os.environ.pop(name, None)
            return
        raise ConfigError(
            f"{variable} is a SOCKS proxy, expected an HTTP proxy, as http://host:port; correct or unset it, or pip "
            "install 'httpx[socks]'"
        ) from None
    except (ValueError, httpx.InvalidURL):  # whose words may hold a part of the password
        raise ConfigError(
            f"{variable} is no address of a proxy, expected one as http://host:port (special characters of a password "
            "as %40); correct or unset it"
        ) from None
