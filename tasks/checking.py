"""The check before a run, which `pcam check` shows too: the library's findings, Kaggle's and Prefect's."""

import logging
from collections.abc import Iterator
from typing import Any

from prefect.settings import get_current_settings

from pcam_model.check import Finding, check_machine, raise_for_failures
from pcam_model.config import TrainConfig
from pcam_model.config_reader import validate_config
from pcam_model.core.errors import PcamError
from pcam_model.core.log import log
from pcam_model.core.paths import cache_dir
from tasks.policy import retried


@retried(hours=0.25)
def check_run(config: TrainConfig) -> None:
    """Find in seconds what would fail after hours; log warnings.

    Raises:
        MachineCheckError: the run would fail here.
    """
    validate_config(config.model_dump())
    level = logging.INFO if config.source.kind == "sample" else logging.WARNING  # any machine can do the sample
    for finding in raise_for_failures([*check_machine(config), *check_kaggle(config)]):
        if finding.level == "warning":
            log.log(level, "Check: %s: %s; %s", finding.what, finding.found, finding.remedy)


def check_kaggle(config: TrainConfig) -> Iterator[Finding]:
    """Whether Kaggle would send the archive: the download is requested and not read. No finding for other sources."""
    if config.source.kind != "kaggle":
        return
    from tasks.kaggle.client import request_download, verified_digest
    from tasks.kaggle.errors import COMPETITION

    expected = "credentials that Kaggle accepts, and the competition's rules accepted"
    if verified_digest(cache_dir() / "downloads" / f"{COMPETITION}.zip"):
        yield Finding(what="Kaggle", found="the archive is downloaded and verified", expected=expected)
        return
    try:
        request_download()
        yield Finding(what="Kaggle", found="the download is allowed", expected=expected)
    except PcamError as error:
        yield Finding.of_error("Kaggle", error, expected)
    except Exception as error:  # a broken line, a proxy, a maintenance page: Kaggle's client lets all of it through
        yield Finding(
            what="Kaggle",
            found=f"cannot be reached ({type(error).__name__})",
            expected=expected,
            remedy="connect this machine, or give a downloaded archive as source.path",
            level="failed",
            transient=True,
        )


def check_prefect(pool: str) -> Iterator[Finding]:
    """Findings on server, versions, clocks, pool, worker and engine.

    Args:
        pool: the work pool; empty: that of the deployment pcam/full-train.
    """
    url = get_current_settings().api.url
    if url:
        from tasks import prefect_server

        yield from prefect_server.check_server(url, pool)
        return
    yield Finding(
        what="Prefect",
        found="PREFECT_API_URL is not set",
        expected="a server, for deployments; `pcam train` and `make train` start their own",
        remedy="export PREFECT_API_URL=http://HOST:4200/api" if pool else "",
        level="failed" if pool else "fine",
    )


def check_everything(config: TrainConfig, pool: str) -> list[dict[str, Any]]:
    """All findings, for `pcam check`."""
    findings = [*check_machine(config), *check_kaggle(config), *check_prefect(pool)]
    return [finding.model_dump() for finding in findings]
