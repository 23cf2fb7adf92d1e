"""A channel's history: a line without gaps, of any length, that does not make the next move dearer."""

from pathlib import Path

import pytest
from a_run import publish_run

from pcam_model.core.errors import ModelError, StoreError
from pcam_model.registry import channel_history as history
from pcam_model.registry.audit import verify
from pcam_model.registry.backends.base import Store
from pcam_model.registry.capabilities import probe
from pcam_model.registry.channel_history import Channel, full_history, newest_first
from pcam_model.registry.channels import list_channels, promote, read_channel, rollback
from pcam_model.registry.manifest import json_bytes
from pcam_model.registry.pruning import prune_candidates


@pytest.fixture
def three(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(history, "PAGE_SIZE", 2)
    for name in "abc":
        publish_run(store, tmp_path, name, name.encode() * 50)
    return store


def runs(store: Store) -> str:
    channel = read_channel(store)
    assert channel is not None
    moves = full_history(store, channel)
    assert channel.moves == len(moves)
    assert moves[::-1] == list(newest_first(store, channel))
    return "".join(move.run for move in moves)


class Counting:
    """Counts what is asked of a store, and the bytes that go to it and come from it."""

    def __init__(self, store: Store) -> None:
        self.inner, self.uri, self.requests, self.bytes = store, store.uri, 0, 0

    def __getattr__(self, name: str) -> object:
        method = getattr(self.inner, name)

        def counted(*given: object, **how: object) -> object:
            answer = method(*given, **how)
            self.requests += 1
            some = [each for each in (*given, answer, answer[0] if isinstance(answer, tuple) else b"")]
            self.bytes += sum(len(each) for each in some if isinstance(each, bytes))
            return answer

        return counted


def cost(store: Store, name: str) -> tuple[int, int]:
    counting = Counting(store)
    promote(counting, name, author="ada")  # type: ignore[arg-type]
    return counting.requests, counting.bytes


def test_the_line_goes_on_through_its_pages(three: Store) -> None:
    names = "abc" * 5
    for name in names:
        promote(three, name)
    assert runs(three) == names
    assert len(list(three.entries("history/champion/"))) == 6
    assert [channel.name for channel in list_channels(three)] == ["champion"]
    assert list(verify(three)) == []
    channel = read_channel(three)
    assert channel is not None
    assert len(channel.history) <= 4
    assert channel.before == "b"


def test_a_promotion_costs_the_same_after_many(folder_store: Store, tmp_path: Path) -> None:
    for name in "ab":
        publish_run(folder_store, tmp_path, name)
    probe(folder_store)  # once a process
    early = [cost(folder_store, "ab"[turn % 2]) for turn in range(3 * history.PAGE_SIZE)]
    for turn in range(600 - len(early)):
        promote(folder_store, "ab"[turn % 2], author="ada")
    late = [cost(folder_store, "ab"[turn % 2]) for turn in range(history.PAGE_SIZE)]
    assert max(late)[0] <= max(early)[0] <= 8  # one more where a page is laid down
    most = max(moved for _, moved in late)
    assert most <= 1.05 * max(moved for _, moved in early) < 100_000
    counting = Counting(folder_store)
    assert read_channel(counting) is not None
    assert (counting.requests, counting.bytes < 30_000) == (1, True)


def test_rollbacks_lead_back_through_pages(three: Store) -> None:
    for name in "abcab":
        promote(three, name)
    assert [rollback(three).run for _ in range(4)] == list("acba")
    with pytest.raises(StoreError, match="has no earlier run"):
        rollback(three)
    promote(three, "c")
    assert rollback(three).run == "a"
    assert runs(three) == "abcabacbaca"
    assert list(verify(three)) == []


def test_a_store_of_before_there_were_pages_goes_on(three: Store) -> None:
    for name in "abc":
        promote(three, name)
    channel = read_channel(three)
    assert channel is not None
    moves = [move.model_dump(mode="json") for move in channel.history]
    three.write("channels/champion.json", json_bytes({"name": "champion", "history": moves * 7}))
    assert runs(three) == "abc" * 7
    assert rollback(three).run == "b"
    assert promote(three, "a").before == "b"
    assert runs(three) == "abc" * 7 + "ba"
    assert list(verify(three)) == []
    found = read_channel(three)
    assert found is not None
    assert len(found.history) <= 4


def test_a_page_that_is_lost_or_damaged_is_found_and_nothing_is_pruned(three: Store) -> None:
    for name in "abcabcabc":
        promote(three, name)
    pages = list(three.entries("history/champion/"))
    content = three.read(pages[0].key)
    for damage in (lambda: three.delete(pages[0].key), lambda: three.write(pages[0].key, content[:-2] + b" \n")):
        damage()
        faults = list(verify(three))
        assert [fault.key for fault in faults] == ["channels/champion.json"]
        assert pages[0].key in faults[0].problem
        with pytest.raises(ModelError, match="restore it from a backup"):
            prune_candidates(three, days=0)
    assert promote(three, "a").run == "a"
    assert rollback(three).run == "c"
    three.write(pages[0].key, content)
    assert list(verify(three)) == []
    assert prune_candidates(three, days=0) == []


def test_what_is_only_in_a_page_is_needed(three: Store) -> None:
    for name in "abbbbbbb":
        promote(three, name)
    assert [run.name for run in prune_candidates(three, days=0)] == ["c"]


def test_a_page_of_another_line_is_no_part_of_this_one(three: Store) -> None:
    for name in "abcabc":
        promote(three, name)
        promote(three, name, "beta")
    channel, other = read_channel(three), read_channel(three, "beta")
    assert channel is not None
    assert other is not None
    assert other.older is not None
    strange = Channel(name="champion", history=channel.history, older=other.older)
    three.write(
        f"history/champion/{other.older.moves:08d}-{other.older.sha256[:16]}.json",
        three.read(next(iter(three.entries("history/beta/"))).key),
    )
    with pytest.raises(ModelError, match="of another channel"):
        full_history(three, strange)
