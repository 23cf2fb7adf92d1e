"""The check that a run begins with, and that `pcam check` shows: the library's findings, Kaggle's and Prefect's."""

from collections.abc import Iterator
from typing import Any

from prefect import task
from prefect.settings import get_current_settings

from pcam_model.check import Finding, check_machine, raise_for_failures
from pcam_model.config import TrainConfig
from pcam_model.config_reader import validate_config
from pcam_model.core.errors import PcamError
from pcam_model.core.paths import cache_dir
from tasks.policy import retry_policy


@task(**retry_policy(hours=0.25))
def check(config: TrainConfig) -> None:
    """Find out in seconds what would fail in hours; what is only worth knowing is said."""
    validate_config(config.model_dump())
    for finding in raise_for_failures([*check_machine(config), *kaggle(config)]):
        if finding.level == "warning":
            print(f"Check: {finding.what}: {finding.found}; {finding.remedy}")


def kaggle(config: TrainConfig) -> Iterator[Finding]:
    """Whether Kaggle would give the archive, asked with the download itself, which is not read; nothing otherwise."""
    if config.source.kind != "kaggle":
        return
    from tasks.kaggle.answers import COMPETITION
    from tasks.kaggle.client import may_download, seen_before

    expected = "credentials that Kaggle takes, and the competition's rules accepted"
    if seen_before(cache_dir() / "downloads" / f"{COMPETITION}.zip"):
        yield Finding(what="Kaggle", found="the archive is here, downloaded and verified", expected=expected)
        return
    try:
        may_download()
        yield Finding(what="Kaggle", found="the download is allowed", expected=expected)
    except PcamError as error:
        yield Finding(what="Kaggle", found=str(error), expected=expected, remedy="see there", level="failed")
    except Exception as error:  # the line, a proxy, a maintenance page: Kaggle's client lets all of it through
        yield Finding(what="Kaggle", found=f"cannot be reached ({type(error).__name__})", expected=expected,
                      remedy="connect this machine, or give a downloaded archive as source.path", level="failed",
                      transient=True)  # fmt: skip


def orchestration(pool: str) -> Iterator[Finding]:
    """Server, versions, clocks, pool, worker and engine; `pool`: empty for the one of pcam/full-train."""
    url = get_current_settings().api.url
    if not url:
        level, remedy = ("failed", "export PREFECT_API_URL=http://HOST:4200/api") if pool else ("fine", "")
        yield Finding.model_validate({
            "what": "Prefect", "found": "PREFECT_API_URL is not set", "remedy": remedy, "level": level,
            "expected": "a server, for deployments; `pcam train` and `make train` start their own",
        })  # fmt: skip
        return
    from tasks import prefect_server

    yield from prefect_server.findings(url, pool)


def everything(config: TrainConfig, pool: str) -> list[dict[str, Any]]:
    """All findings, for `pcam check`."""
    found = [*check_machine(config), *kaggle(config), *orchestration(pool)]
    return [finding.model_dump() for finding in found]
