"""Whether a run is kept or deleted, decided by one conditional write: a promotion and `pcam prune` cannot both win.

`retention/<run>.json` has a state. A promotion writes `kept` before it moves its channel. Pruning writes `marked`,
looks at the channels again, and writes `deleting` only where the record is still its own; only then it deletes. A run
that is being published is kept in the same way.
"""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from pydantic import Field, ValidationError

from pcam_model.core.errors import BusyError, ModelError
from pcam_model.core.schema import Record
from pcam_model.registry.backends.base import Conflict, NotFound, Store
from pcam_model.registry.capabilities import probe
from pcam_model.registry.manifest import json_bytes

ATTEMPTS = 10
PROTECTED_S = 86_400.0  # a promotion that has not moved its channel by then was interrupted


class Retention(Record):
    """The record of a run that is being promoted or deleted."""

    state: Literal["kept", "marked", "deleting"]
    time: float = Field(ge=0, allow_inf_nan=False)
    """Seconds since 1970."""
    token: str
    """Unique, so that each write changes the etag."""


def protect_run(store: Store, run: str, *, single_writer: bool = False) -> None:
    """Take a run from `pcam prune`, before a channel points to it; a mark of pruning is replaced.

    Raises:
        ModelError: it is being deleted.
        BusyError: others write the record again and again.
    """
    for _ in range(ATTEMPTS):
        current, etag = _read(store, run)
        if current is not None and current.state == "deleting":
            raise ModelError(
                f"run {run!r} is being deleted by `pcam prune`; choose another run, or try again once that has ended "
                "(`pcam prune --delete` ends it where it was interrupted)"
            )
        if single_writer:
            store.write(_key(run), _content("kept"))
            return
        if _write(store, run, "kept", etag):
            return
    raise BusyError(f"other processes promote or prune run {run!r} at the same time; try again")


@contextmanager
def protected_while_published(store: Store, run: str) -> Iterator[None]:
    """Keep an unpublished run from `pcam prune` while its manifest is written. Raises as `protect_run`."""
    if not probe(store).conditional_writes:
        yield
        return
    protect_run(store, run)
    yield
    delete_retention(store, run)


def mark_run(store: Store, run: str) -> str | None:
    """Mark a run for deletion; the etag for `begin_deletion`, or None where a promotion has taken the run.

    A deletion that another process began stays marked as such, so that no promotion comes between.
    """
    current, etag = _read(store, run)
    if current is not None and current.state == "deleting":
        return etag
    if current is not None and current.state == "kept" and time.time() - current.time < PROTECTED_S:
        return None
    return _write(store, run, "marked", etag)


def begin_deletion(store: Store, run: str, etag: str) -> bool:
    """Whether a marked run may be deleted: False where a promotion has taken it since."""
    return _write(store, run, "deleting", etag) is not None


def delete_retention(store: Store, run: str) -> None:
    """Delete the record, after the run is deleted or where it stays."""
    store.delete(_key(run))


def _read(store: Store, run: str) -> tuple[Retention | None, str | None]:
    try:
        content, etag = store.get(_key(run))
    except NotFound:
        return None, None
    try:
        return Retention.model_validate_json(content), etag
    except ValidationError:
        raise ModelError(f"{store.uri}/{_key(run)} is damaged, expected a retention record; delete it") from None


def _write(store: Store, run: str, state: Literal["kept", "marked", "deleting"], etag: str | None) -> str | None:
    """The etag of the new record; None where another process has written it meanwhile."""
    try:
        return store.write(_key(run), _content(state), only_if_absent=etag is None, only_if=etag)
    except Conflict:
        return None


def _content(state: Literal["kept", "marked", "deleting"]) -> bytes:
    return json_bytes(Retention(state=state, time=time.time(), token=uuid.uuid4().hex).model_dump())


def _key(run: str) -> str:
    return f"retention/{run}.json"
