"""The moves of a channel: the last ones are part of the channel, older ones are in pages that never change.

So a promotion, and reading where a channel points, cost the same after thousands of moves. A page is known by its
digest and names the page before it: no move can be missing, and writing a page twice is writing it once.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from pcam_model.core.errors import ModelError
from pcam_model.core.parsing import parse_record
from pcam_model.core.schema import Record
from pcam_model.registry.backends.base import NotFound, Store
from pcam_model.registry.manifest import json_bytes, sha256_hex

PAGE_SIZE = 32  # moves; a channel itself has up to twice as many


class Move(Record):
    """A promotion or rollback."""

    run: str
    """The run that the channel points to from then on."""
    digest: str
    """SHA-256 of the run's manifest."""
    kind: Literal["promote", "rollback"]
    time: str
    """ISO 8601, UTC."""
    author: str
    message: str = ""
    token: str
    """Unique, so that a writer recognises its own move."""


class PageRef(Record):
    """The newest page of a channel's older moves."""

    moves: int = Field(ge=1)
    """Number of moves in that page and in all before it."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the page."""


class Page(Record):
    """Consecutive moves of a channel, oldest first."""

    channel: str
    history: tuple[Move, ...] = Field(min_length=1)
    older: PageRef | None = None


class Channel(Record):
    """A channel and its last moves, oldest first; `newest_first` gives all of them."""

    name: str
    history: tuple[Move, ...] = Field(min_length=1)
    older: PageRef | None = None

    @property
    def run(self) -> str:
        """The run that it points to."""
        return self.history[-1].run

    @property
    def before(self) -> str | None:
        """The run that it pointed to before its last move, or None."""
        return self.history[-2].run if len(self.history) > 1 else None

    @property
    def moves(self) -> int:
        """The number of all its moves."""
        return len(self.history) + (self.older.moves if self.older else 0)


def newest_first(store: Store, channel: Channel) -> Iterator[Move]:
    """All moves of a channel, newest first; pages are read as they are needed.

    Raises:
        ModelError: a page is missing or damaged.
    """
    yield from reversed(channel.history)
    older = channel.older
    while older:
        page = _read_page(store, channel.name, older)
        yield from reversed(page.history)
        older = page.older


def full_history(store: Store, channel: Channel) -> list[Move]:
    """All moves of a channel, oldest first; see `newest_first`."""
    return list(newest_first(store, channel))[::-1]


def rollback_target(store: Store, channel: Channel) -> str | None:
    """The run that a rollback leads to: the last promoted one below those that were rolled back, or None."""
    promotions_above = 1
    for move in newest_first(store, channel):
        if promotions_above == 0:
            return move.run
        promotions_above += 1 if move.kind == "rollback" else -1
    return None


def append_move(store: Store, name: str, before: Channel | None, move: Move) -> Channel:
    """The channel with one more move; where its history becomes too long, the oldest moves are written to pages."""
    history, older = (*(before.history if before else ()), move), before.older if before else None
    while len(history) > 2 * PAGE_SIZE:
        page = Page(channel=name, history=history[:PAGE_SIZE], older=older)
        content = json_bytes(page.model_dump(mode="json", exclude_none=True))
        older = PageRef(moves=PAGE_SIZE + (older.moves if older else 0), sha256=sha256_hex(content))
        store.write(_page_key(name, older), content)
        history = history[PAGE_SIZE:]
    return Channel(name=name, history=history, older=older)


def _read_page(store: Store, channel: str, ref: PageRef) -> Page:
    key = _page_key(channel, ref)
    try:
        content = store.read(key)
    except NotFound:
        raise _damaged(store, key, "is missing") from None
    if sha256_hex(content) != ref.sha256:
        raise _damaged(store, key, "has another SHA-256 than when it was written")
    page = parse_record(Page, content, f"{store.uri}/{key}")
    if page.channel != channel or len(page.history) + (page.older.moves if page.older else 0) != ref.moves:
        raise _damaged(store, key, "is of another channel, or lacks moves")
    return page


def _damaged(store: Store, key: str, problem: str) -> ModelError:
    return ModelError(
        f"{store.uri}/{key}: this page of a channel's history {problem}; restore it from a backup of the store (the "
        "channel itself still points to its run)"
    )


def _page_key(channel: str, ref: PageRef) -> str:
    return f"history/{channel}/{ref.moves:08d}-{ref.sha256[:16]}.json"
