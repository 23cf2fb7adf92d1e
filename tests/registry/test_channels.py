"""Channels move one step at a time, and nobody's step is lost."""

from pathlib import Path

import pytest
from a_run import publish_run
from at_once import together

from pcam_model.core.errors import BusyError, ConfigError, ModelError, StoreError
from pcam_model.registry import capabilities
from pcam_model.registry.backends.base import Store
from pcam_model.registry.capabilities import probe
from pcam_model.registry.channels import list_channels, promote, read_channel, rollback
from pcam_model.registry.runs import RunStore


@pytest.fixture
def three(store: Store, tmp_path: Path) -> Store:
    for name in "abc":
        publish_run(store, tmp_path, name, name.encode() * 50)
    return store


def test_a_channel_points_to_what_was_promoted_last(three: Store) -> None:
    assert read_channel(three) is None
    promote(three, "a", message="first", author="ada")
    channel = promote(three, "b")
    assert channel == read_channel(three)
    assert channel.run == "b"
    assert channel.before == "a"
    assert [(move.run, move.kind, move.message) for move in channel.history] == [
        ("a", "promote", "first"),
        ("b", "promote", ""),
    ]
    assert channel.history[0].author == "ada"
    assert "@" in channel.history[1].author
    assert [found.name for found in list_channels(three)] == ["champion"]


def test_a_rollback_goes_back_step_by_step_and_is_kept_in_the_history(three: Store) -> None:
    for name in "abc":
        promote(three, name, "beta")
    assert rollback(three, "beta").run == "b"
    assert rollback(three, "beta").run == "a"
    with pytest.raises(StoreError, match="has no earlier run"):
        rollback(three, "beta")
    assert promote(three, "c", "beta").before == "a"
    assert [move.run for move in read_channel(three, "beta").history] == list("abcbac")  # type: ignore[union-attr]


def test_only_a_published_run_can_be_promoted(three: Store) -> None:
    RunStore(three, "d").reserve_run({})
    for name in ("d", "nothing"):
        with pytest.raises(ModelError, match="is not published"):
            promote(three, name)
    three.delete("runs/a/model/model.json")
    with pytest.raises(ModelError, match="damaged"):
        promote(three, "a")
    with pytest.raises(StoreError, match="no earlier run"):
        rollback(three)
    with pytest.raises(ConfigError, match="no name for a channel"):
        promote(three, "b", "../up")
    assert read_channel(three) is None


def test_two_promotions_at_once_leave_one_winner_and_one_told_so(three: Store) -> None:
    promote(three, "c")
    outcomes = []

    def work(number: int) -> None:
        for _ in range(3):
            try:
                promote(three, "ab"[number % 2], author=str(number))
                outcomes.append("won")
            except BusyError as error:
                outcomes.append("refused" if "just now" in str(error) else str(error))

    together(4, work)
    channel = read_channel(three)
    assert channel is not None
    assert len(outcomes) == 12
    assert channel.older is None
    assert len(channel.history) == 1 + outcomes.count("won")
    assert outcomes.count("won") >= 3
    assert len({move.token for move in channel.history}) == len(channel.history)


class Deaf:
    """A store that takes conditions and ignores them, as some servers do."""

    def __init__(self, store: Store) -> None:
        self.inner = store

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def write(self, key: str, content: bytes, **conditions: object) -> str:
        return self.inner.write(key, content)


def test_a_store_that_ignores_conditions_is_found_out_and_refused(
    folder_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capabilities, "_CACHE", {})
    publish_run(folder_store, tmp_path)
    deaf = Deaf(folder_store)
    with pytest.raises(StoreError, match="--unsafe-single-writer"):
        promote(deaf, "a")  # type: ignore[arg-type]
    assert read_channel(folder_store) is None
    assert promote(deaf, "a", single_writer=True).run == "a"  # type: ignore[arg-type]


def test_the_probe_finds_conditions_kept_and_leaves_nothing(store: Store) -> None:
    assert probe(store).conditional_writes
    assert list(store.entries()) == []
