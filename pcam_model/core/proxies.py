"""The proxy that the environment names for an address, which urllib3 does not look for itself."""

import urllib.request
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3.util import make_headers, parse_url

from pcam_model.core.errors import ConfigError


class Proxy(NamedTuple):
    """A proxy of the environment."""

    variable: str
    """The variable that names it."""
    address: str


def find_proxy(url: str, *, any_scheme: bool = False) -> Proxy | None:
    """The proxy for a web address, by HTTP_PROXY, HTTPS_PROXY and NO_PROXY; None where it is reached directly.

    `any_scheme`: by ALL_PROXY too, which urllib3 does not know and httpx does.
    """
    parts, proxies = urlsplit(url), urllib.request.getproxies()
    scheme = next((name for name in (parts.scheme, *["all"] * any_scheme) if proxies.get(name)), "")
    hosts = parts.netloc.rpartition("@")[2], parts.hostname or ""  # NO_PROXY may name a port, or IPv6 without brackets
    if not scheme or any(map(urllib.request.proxy_bypass, hosts)):
        return None
    return Proxy(f"{scheme.upper()}_PROXY", proxy_address(proxies[scheme]))


def proxy_address(value: str) -> str:
    """The address of a proxy as it is written in a variable, with its scheme."""
    return value if "://" in value else f"http://{value}"


def open_pool(proxy: Proxy | None, retries: urllib3.Retry, timeout: urllib3.Timeout) -> urllib3.PoolManager:
    """A pool of connections, through the proxy where there is one. Raises ConfigError where it is no HTTP proxy."""
    if proxy is None:
        return urllib3.PoolManager(retries=retries, timeout=timeout)
    try:
        user = parse_url(proxy.address).auth
        headers = make_headers(proxy_basic_auth=unquote(user)) if user else None
        return urllib3.ProxyManager(proxy.address, proxy_headers=headers, retries=retries, timeout=timeout)
    except (ValueError, AssertionError, urllib3.exceptions.HTTPError):  # whose words may hold a part of the password
        raise ConfigError(
            f"{proxy.variable} is no address of an HTTP proxy, expected one as http://host:port; correct or unset it"
        ) from None
