"""Channels: names such as `champion` that point to one published run, moved by conditional writes."""

import socket
import uuid
from itertools import islice
from typing import Literal

from pcam_model.core.errors import BusyError, ConfigError, StoreError
from pcam_model.core.parsing import parse_record
from pcam_model.core.users import login_name
from pcam_model.registry.backends.base import Conflict, NotFound, Store
from pcam_model.registry.capabilities import probe
from pcam_model.registry.channel_history import Channel, Move, append_move, newest_first, rollback_target
from pcam_model.registry.manifest import json_bytes, read_manifest, utc_now
from pcam_model.registry.retention import protect_run
from pcam_model.registry.run_names import NAME_PATTERN, validate_run_name

CHAMPION = "champion"


def read_channel(store: Store, name: str = CHAMPION) -> Channel | None:
    """The channel, or None where no run was ever promoted to it. Raises ModelError where it is damaged."""
    return _read(store, name)[0]


def list_channels(store: Store) -> list[Channel]:
    """All channels of a store, by name."""
    names = [entry.key.removeprefix("channels/").removesuffix(".json") for entry in store.entries("channels/")]
    return [channel for name in names if (channel := read_channel(store, name)) is not None]


def promote(
    store: Store,
    run: str,
    channel: str = CHAMPION,
    *,
    message: str = "",
    author: str = "",
    single_writer: bool = False,
    expected: str | None = None,
) -> Channel:
    """Point a channel to a published run.

    Args:
        store: the store of both.
        run: the run's name.
        channel: the channel's name; created where it does not exist.
        message: a note for the history.
        author: for the history; empty: user and host name.
        single_writer: write without conditions, as the caller guarantees that no other process promotes.
        expected: the run that the channel must point to ("": to none); None: any.

    Raises:
        BusyError: the channel points to another run than `expected`, or was moved by another process meanwhile.
        ModelError: the run is not published, is being deleted by `prune`, or files of it are missing.
        StoreError: the store ignores conditional writes.
    """
    before, etag = _read(store, channel)
    current = before.run if before else ""
    if expected is not None and current != expected:
        raise BusyError(
            f"channel {channel!r} points to {current or 'nothing'!r} now and not to {expected or 'nothing'!r}, which "
            f"{run!r} was compared with; compare again"
        )
    read_manifest(store, validate_run_name(run))
    _require_conditional_writes(store, single_writer)
    protect_run(store, run, single_writer=single_writer)
    digest = read_manifest(store, run, check_files=False)[1].digest  # pruned before it was kept, it is gone now
    return _write(store, channel, before, etag, _new_move(run, digest, "promote", message, author), single_writer)


def rollback(
    store: Store, channel: str = CHAMPION, *, message: str = "", author: str = "", single_writer: bool = False
) -> Channel:
    """Point a channel to the run before; parameters and errors as those of `promote`."""
    before, etag = _read(store, channel)
    run = rollback_target(store, before) if before else None
    if before is None or run is None:
        raise StoreError(
            f"channel {channel!r} of {store.uri} has no earlier run to go back to; `pcam promote RUN` sets one"
        )
    digest = read_manifest(store, run)[1].digest
    return _write(store, channel, before, etag, _new_move(run, digest, "rollback", message, author), single_writer)


def _new_move(run: str, digest: str, kind: Literal["promote", "rollback"], message: str, author: str) -> Move:
    return Move(
        run=run,
        digest=digest,
        kind=kind,
        time=utc_now(),
        author=author or f"{login_name()}@{socket.gethostname()}",
        message=message,
        token=uuid.uuid4().hex,
    )


def _read(store: Store, name: str) -> tuple[Channel | None, str | None]:
    """The channel and its etag."""
    key = _key(name)
    try:
        content, etag = store.get(key)
    except NotFound:
        return None, None
    return parse_record(Channel, content, f"{store.uri}/{key}"), etag


def _write(
    store: Store, name: str, before: Channel | None, etag: str | None, move: Move, single_writer: bool
) -> Channel:
    """Compare-and-swap: replace the channel that was read by one with the move appended."""
    _require_conditional_writes(store, single_writer)
    after = append_move(store, name, before, move)
    content = json_bytes(after.model_dump(mode="json", exclude_none=True))
    only_if_absent = etag is None and not single_writer
    try:
        store.write(_key(name), content, only_if_absent=only_if_absent, only_if=None if single_writer else etag)
    except Conflict:
        return _resolve_conflict(store, name, before.moves if before else 0, move)
    return after


def _require_conditional_writes(store: Store, single_writer: bool) -> None:
    if not single_writer and not probe(store).conditional_writes:
        raise StoreError(
            f"{store.uri} ignores conditional writes, so that one of two concurrent promotions could be lost; promote "
            "to another store, or with --unsafe-single-writer where no other process promotes"
        )


def _resolve_conflict(store: Store, name: str, moves_before: int, move: Move) -> Channel:
    """The channel where the move is in it, as its answer was lost and boto3 sent it again; else BusyError."""
    channel = read_channel(store, name)
    new_moves = max(0, channel.moves - moves_before) if channel else 0
    if channel and move.token in {recent.token for recent in islice(newest_first(store, channel), new_moves)}:
        return channel
    run, author = (channel.run, channel.history[-1].author) if channel else ("nothing", "another process")
    raise BusyError(
        f"channel {name!r} was moved to {run!r} by {author} meanwhile, and was not changed; look at it with "
        "`pcam channels`, then decide again"
    ) from None


def _key(name: str) -> str:
    if not NAME_PATTERN.fullmatch(name):
        raise ConfigError(f"{name!r} is no name for a channel; expected small letters, digits, '.', '_' and '-'")
    return f"channels/{name}.json"
