"""The moves of a channel: the last ones stand in the channel itself, older ones in pages that never change.

So a promotion, and who asks where a channel points, costs the same after thousands of moves. A page is known by its
digest, and names the page before it: the line has no gaps, and writing a page twice is writing it once.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from pcam_model.core.errors import ModelError
from pcam_model.core.schema import Record
from pcam_model.registry.backends.base import NotFound, Store
from pcam_model.registry.manifest import json_bytes, parsed, sha256_hex

PAGE = 32  # moves a page; a channel itself holds up to twice as many


class Move(Record):
    """One move of a channel."""

    run: str
    digest: str
    """SHA-256 of the run's manifest."""
    kind: Literal["promote", "rollback"]
    time: str
    author: str
    message: str = ""
    token: str
    """Unique, so that a writer knows its own move again."""


class PageRef(Record):
    """Where a line of moves goes on into the past."""

    moves: int = Field(ge=1)
    """How many there are, in that page and in all before it."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the page."""


class Page(Record):
    """Some moves in a row, oldest first."""

    channel: str
    history: tuple[Move, ...] = Field(min_length=1)
    older: PageRef | None = None


class Channel(Record):
    """Where a channel points, and its last moves, oldest first; see `newest_first` for all of them."""

    name: str
    history: tuple[Move, ...] = Field(min_length=1)
    older: PageRef | None = None

    @property
    def run(self) -> str:
        """The run it points to."""
        return self.history[-1].run

    @property
    def before(self) -> str | None:
        """The run that it pointed to before its last move, or None."""
        return self.history[-2].run if len(self.history) > 1 else None

    @property
    def moves(self) -> int:
        """How many moves it has made in all."""
        return len(self.history) + (self.older.moves if self.older else 0)


def newest_first(store: Store, channel: Channel) -> Iterator[Move]:
    """Every move that the channel has made, from the last to the first; a page is read when it is come to.

    Raises:
        ModelError: a page is missing or damaged.
    """
    yield from reversed(channel.history)
    older = channel.older
    while older:
        page = _read_page(store, channel.name, older)
        yield from reversed(page.history)
        older = page.older


def whole_history(store: Store, channel: Channel) -> list[Move]:
    """Every move that the channel has made, oldest first; see `newest_first`."""
    return list(newest_first(store, channel))[::-1]


def back_to(store: Store, channel: Channel) -> str | None:
    """The run that a rollback leads to, or None: the one before, of those that were promoted and not rolled back."""
    above = 1  # so many promotions still lie on top of it
    for move in newest_first(store, channel):
        if above == 0:
            return move.run
        above += 1 if move.kind == "rollback" else -1
    return None


def moved(store: Store, name: str, before: Channel | None, move: Move) -> Channel:
    """The channel after one move more; what becomes too long for it is laid down in pages first."""
    history, older = (*(before.history if before else ()), move), before.older if before else None
    while len(history) > 2 * PAGE:
        page = Page(channel=name, history=history[:PAGE], older=older)
        content = json_bytes(page.model_dump(mode="json", exclude_none=True))
        older = PageRef(moves=PAGE + (older.moves if older else 0), sha256=sha256_hex(content))
        store.write(_key(name, older), content)
        history = history[PAGE:]
    return Channel(name=name, history=history, older=older)


def _read_page(store: Store, name: str, older: PageRef) -> Page:
    key = _key(name, older)
    try:
        content = store.read(key)
    except NotFound:
        raise _broken(store, key, "is missing") from None
    if sha256_hex(content) != older.sha256:
        raise _broken(store, key, "has another SHA-256 than when it was written")
    page = parsed(Page, content, f"{store.uri}/{key}")
    if page.channel != name or len(page.history) + (page.older.moves if page.older else 0) != older.moves:
        raise _broken(store, key, "is of another channel, or leaves moves out")
    return page


def _broken(store: Store, key: str, what: str) -> ModelError:
    return ModelError(
        f"{store.uri}/{key}: this page of a channel's history {what}; bring it back from a backup of the store (the "
        "channel itself still points to its run)"
    )


def _key(name: str, older: PageRef) -> str:
    return f"history/{name}/{older.moves:08d}-{older.sha256[:16]}.json"
