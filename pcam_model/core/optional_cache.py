"""Work that needs no cache, but is quicker with one: without one it is done in a temporary folder."""

import atexit
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

from pcam_model.core.errors import ConfigError, UnwritableError
from pcam_model.core.log import log
from pcam_model.core.paths import cache_dir
from pcam_model.core.write_guard import make_temporary_dir, write_guard

R = TypeVar("R")


def call_with_cache(call: Callable[[Path], R]) -> R:
    """The result of `call` with the cache folder; where that cannot be written to, with a temporary one.

    The reason is logged, once a process; the temporary folder is removed at the process's end.
    """
    try:
        folder = cache_dir()
    except ConfigError as error:
        return call(_fallback(str(error)))
    try:
        with write_guard(folder):
            return call(folder)
    except UnwritableError as error:
        if error.folder is None or not error.folder.is_relative_to(folder):
            raise
        reason = str(error)
    return call(_fallback(reason))


def _fallback(reason: str) -> Path:
    if not _temporary_cache.cache_info().currsize:
        log.warning("%s. Going on with a temporary cache", reason)
    return _temporary_cache()


@cache
def _temporary_cache() -> Path:
    folder = make_temporary_dir("cache")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
