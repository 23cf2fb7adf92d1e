"""Many processes at once, some of them killed: the store stays whole."""

import multiprocessing
import os
import random
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from a_run import model_folder, publish_run

from pcam_model.core.errors import BusyError
from pcam_model.registry.audit import verify
from pcam_model.registry.channel_history import full_history
from pcam_model.registry.channels import promote, read_channel
from pcam_model.registry.factory import open_store
from pcam_model.registry.pull import pull, verify_folder
from pcam_model.registry.runs import RunStore

PROCESSES, ROUNDS = (int(os.environ.get(name, default)) for name, default in (("MANY", 4), ("ROUNDS", 3)))
KILLS = int(os.environ.get("KILLS", 2))
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["a_run", "pcam_model.registry.backends.s3", "pcam_model.registry.pull"])


def process(work: Callable[..., None], *given: object) -> ForkServerProcess:
    """A process with this environment; the one that it comes from was started in an earlier one."""
    started = FORKS.Process(target=in_environment, args=(dict(os.environ), work, *given))
    started.start()
    return started


def in_environment(environment: dict[str, str], work: Callable[..., None], *given: object) -> None:
    os.environ.clear()
    os.environ.update(environment)
    work(*given)


def publish_and_promote(address: str, folder: str, number: int, rounds: int) -> None:
    store = open_store(address)
    for turn in range(rounds):
        name = f"p{number}-{turn}"
        publish_run(store, Path(folder) / name, name, name.encode() * 300)
        while True:
            try:
                promote(store, name, author=str(number))
                break
            except BusyError:
                time.sleep(random.random() * 0.05)


def read_all_the_while(address: str, folder: str, stop: str) -> None:
    store, turn = open_store(address), 0
    while read_channel(store) is None:
        time.sleep(0.02)
    while not Path(stop).exists() or turn == 0:
        pull(store, "champion", Path(folder) / str(turn))
        manifest = verify_folder(Path(folder) / str(turn))
        model = (Path(folder) / str(turn) / "model" / "model.safetensors").read_bytes()
        if not model.endswith(manifest.run.encode() * 300):
            raise SystemExit(f"a mix in {turn}")
        turn += 1


def test_many_publish_and_promote_at_once_and_the_history_is_a_line(address: str, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    reader = process(read_all_the_while, address, str(tmp_path / "pulled"), str(stop))
    writers = [
        process(publish_and_promote, address, str(tmp_path / "made"), number, ROUNDS) for number in range(PROCESSES)
    ]
    for writer in writers:
        writer.join()
    stop.touch()
    reader.join()
    assert [ended.exitcode for ended in [*writers, reader]] == [0] * (PROCESSES + 1)
    store = open_store(address)
    channel = read_channel(store)
    assert channel is not None
    moves = full_history(store, channel)
    assert sorted(move.run for move in moves) == sorted(
        f"p{number}-{turn}" for number in range(PROCESSES) for turn in range(ROUNDS)
    )
    for number in range(PROCESSES):
        own = [move.run for move in moves if move.author == str(number)]
        assert own == [f"p{number}-{turn}" for turn in range(ROUNDS)]
    assert list(verify(store)) == []


def publish_large(address: str, folder: str, exists_in_store: str) -> None:
    run = RunStore(open_store(address), "killed")
    Path(exists_in_store).touch()
    run.reserve_run({"seed": 1})
    run.commit("model", Path(folder), {"made": "it"})
    run.publish()


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_publisher_leaves_a_whole_run_or_none(address: str, tmp_path: Path, number: int) -> None:
    folder, exists_in_store = model_folder(tmp_path / "model", os.urandom(20 << 20)), tmp_path / "begun"
    publisher = process(publish_large, address, str(folder), str(exists_in_store))
    while not exists_in_store.exists():
        time.sleep(0.005)
    time.sleep(random.random() * 0.6)
    publisher.kill()
    publisher.join()
    store = open_store(address)
    assert list(verify(store)) == []
    publish_large(address, str(folder), str(exists_in_store))
    assert RunStore(store, "killed").find_published() is not None
    assert list(verify(store)) == []
    pull(store, "killed", tmp_path / "pulled")
    assert (tmp_path / "pulled/model/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
