"""Proxies in the environment, which servers on this machine are reached without."""

import os


def loopback_variables() -> dict[str, str]:
    """Variables that exempt this machine's addresses from the user's proxies, beside those already exempted."""
    exempted = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or "localhost"
    return dict.fromkeys(("NO_PROXY", "no_proxy"), f"{exempted},127.0.0.1,localhost")
