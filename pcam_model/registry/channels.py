"""Channels: the only thing in a store that moves. A name such as `champion` points to one published run."""

import getpass
import socket
import uuid
from itertools import islice
from typing import Literal

from pydantic import ValidationError

from pcam_model.core.errors import BusyError, ConfigError, ModelError, StoreError
from pcam_model.registry.backends.base import Conflict, NotFound, Store
from pcam_model.registry.capabilities import probe
from pcam_model.registry.channel_history import Channel, Move, back_to, moved, newest_first
from pcam_model.registry.manifest import json_bytes, now, read_manifest
from pcam_model.registry.run_names import NAME, validate_run_name

CHAMPION = "champion"


def read_channel(store: Store, name: str = CHAMPION) -> Channel | None:
    """The channel, or None where nothing was ever promoted to it."""
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
    """Let the channel point to a published run.

    Args:
        store: Where both are.
        run: The run's name.
        channel: The channel's name; made where it is not there.
        message: For the history.
        author: For the history; the user of this machine by default.
        single_writer: The caller vouches that nobody else promotes just now; only for a store that ignores conditions.
        expected: The run that the decision to promote was made against ("": none); None: whichever.

    Raises:
        BusyError: Somebody else moved the channel at the same time, or since the decision; nothing was changed.
        ModelError: The run is not published, or not whole.
        StoreError: The store ignores the conditions that keep two promotions apart.
    """
    before, etag = _read(store, channel)
    there = before.run if before else ""
    if expected is not None and there != expected:
        raise BusyError(
            f"channel {channel!r} points to {there or 'nothing'!r} now and not to {expected or 'nothing'!r}, which "
            f"{run!r} was compared with; compare again"
        )
    digest = read_manifest(store, validate_run_name(run))[1].digest
    return _move(store, channel, before, etag, _made(run, digest, "promote", message, author), single_writer)


def rollback(
    store: Store, channel: str = CHAMPION, *, message: str = "", author: str = "", single_writer: bool = False
) -> Channel:
    """Let the channel point to what it pointed to before; see `promote`."""
    before, etag = _read(store, channel)
    run = back_to(store, before) if before else None
    if before is None or run is None:
        raise StoreError(f"channel {channel!r} of {store.uri} has nothing before it; promote a run with `pcam promote`")
    digest = read_manifest(store, run)[1].digest
    return _move(store, channel, before, etag, _made(run, digest, "rollback", message, author), single_writer)


def _made(run: str, digest: str, kind: Literal["promote", "rollback"], message: str, author: str) -> Move:
    author = author or f"{getpass.getuser()}@{socket.gethostname()}"
    return Move(run=run, digest=digest, kind=kind, time=now(), author=author, message=message, token=uuid.uuid4().hex)


def _read(store: Store, name: str) -> tuple[Channel | None, str | None]:
    key = _key(name)
    try:
        content, etag = store.get(key)
        return Channel.model_validate_json(content), etag
    except NotFound:
        return None, None
    except ValidationError as error:
        raise ModelError(f"{store.uri}/{key} is no channel ({error.errors()[0]['msg']}); it was damaged") from None


def _move(
    store: Store, name: str, before: Channel | None, etag: str | None, move: Move, single_writer: bool
) -> Channel:
    """One compare-and-swap: the history that was read, and one move more.

    A conflict may be with ourselves, where an answer was lost and boto3 tried again: then the move is in the history.
    """
    if not single_writer and not probe(store).conditional_writes:
        raise StoreError(
            f"{store.uri} ignores conditional writes, so two promotions at once could lose one; promote to another "
            "store, or with --unsafe-single-writer when you are sure that nobody else promotes"
        )
    after = moved(store, name, before, move)
    content = json_bytes(after.model_dump(mode="json", exclude_none=True))
    try:
        store.write(
            _key(name),
            content,
            only_if_absent=etag is None and not single_writer,
            only_if=None if single_writer else etag,
        )
    except Conflict:
        there = read_channel(store, name)
        since = max(0, there.moves - (before.moves if before else 0)) if there else 0
        if there is None or move.token not in {past.token for past in islice(newest_first(store, there), since)}:
            raise BusyError(
                f"channel {name!r} was moved to {there.run if there else 'nothing'!r} by "
                f"{there.history[-1].author if there else 'somebody'} just now; look at it, then decide again"
            ) from None
        return there
    return after


def _key(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name for a channel; expected small letters, digits, '.', '_' and '-'")
    return f"channels/{name}.json"
