"""Where the local stack keeps its things, and the environment that its processes see."""

import os
import re
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
HOME = REPO / ".pcam"
PREFECT_HOME = HOME / "prefect"
LOGS = HOME / "logs"
POOL = "local"
MARK = "PCAM_LOCAL_STACK"


def store() -> str:
    """The store that runs write to: PCAM_STORE, or the embedded one in this clone."""
    return address(os.environ.get("PCAM_STORE", "") or (HOME / "store").as_uri())


def address(place: str) -> str:
    """A store's address: one with a scheme stays as it is, a folder becomes an absolute file:// address."""
    return place if re.match(r"[a-z0-9]+://", place) else Path(place).expanduser().resolve().as_uri()


def work_environment() -> dict[str, str]:
    """What a run has to know of this clone, the same whichever worker takes it."""
    cache = os.environ.get("PCAM_CACHE", "")
    return {"PCAM_STORE": store()} | ({"PCAM_CACHE": str(Path(cache).expanduser().resolve())} if cache else {})


def environment(url: str, own_server: bool, mark: str = "") -> dict[str, str]:
    """The environment of a Prefect process that speaks to `url`.

    With our own server none of the user's Prefect settings may reach in (another database, a cloud's key); with the
    user's server all of them must.
    """
    kept = {k: v for k, v in os.environ.items() if not (own_server and k.startswith("PREFECT_"))}
    if own_server:
        kept |= {"PREFECT_HOME": str(PREFECT_HOME), "PREFECT_PROFILES_PATH": str(PREFECT_HOME / "profiles.toml")}
    ours = {
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",  # SQLite on a busy machine
        "PREFECT_RUNNER_AUTO_INSTALL_DEPENDENCIES": "false",
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "1",
        "PREFECT_CLI_COLORS": "false",
        "PYTHONUNBUFFERED": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PWD": str(REPO),
    }
    # A proxy for the outside world must not be asked for this machine's own server.
    direct = ",".join(filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1,localhost"]))
    return kept | ours | work_environment() | {"NO_PROXY": direct, "no_proxy": direct} | ({MARK: mark} if mark else {})
