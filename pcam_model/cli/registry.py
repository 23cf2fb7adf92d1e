"""The commands of `pcam` that look after what is published: pull, promote, verify and their like."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pcam_model.cli.options import StoreOption
from pcam_model.core.paths import cache_dir, resolve_store_uri

ChannelOption = Annotated[str, typer.Option("--channel", help="the channel's name")]
MessageOption = Annotated[str, typer.Option("--message", help="for the channel's history")]
AloneOption = Annotated[
    bool,
    typer.Option(
        "--unsafe-single-writer",
        help="promote in a store that ignores conditions; somebody else's promotion at the same time may be lost",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (pull, publish, promote, rollback, channels, verify, prune):
        app.command()(command)


def pull(
    model: Annotated[str, typer.Argument(help="a run, a channel, or the address of one or of a store")],
    folder: Annotated[Path, typer.Argument(help="a new or empty folder")],
    store: StoreOption = "",
    everything: Annotated[bool, typer.Option("--all", help="checkpoints too, not only model and report")] = False,
    checkpoint: Annotated[
        str, typer.Option(help="only these weights, also of a run under way: best, final, 3 or frozen/3")
    ] = "",
) -> None:
    """A published model, verified against its manifest; the folder appears whole or not at all."""
    from pcam_model.registry import pull as pulling
    from pcam_model.registry.backends.base import open_store
    from pcam_model.registry.cache import Cache
    from pcam_model.registry.resolve import parse_run_address

    place = parse_run_address(model, resolve_store_uri(store))
    if checkpoint:
        return _pull_checkpoint(place.store, place.name, checkpoint, folder)
    parts = () if everything else pulling.PARTS
    published = pulling.pull(open_store(place.store), place.name, folder, parts, Cache(cache_dir()))
    print(f"{folder}: {published.uri}, manifest {published.digest[:12]}, every file verified")


def _pull_checkpoint(store: str, name: str, checkpoint: str, folder: Path) -> None:
    from pcam_model.registry.backends.base import open_store
    from pcam_model.registry.checkpoints import fetch_checkpoint
    from pcam_model.registry.pull import resolve
    from pcam_model.registry.runs import RunStore

    opened = open_store(store)
    kept, path = fetch_checkpoint(RunStore(opened, resolve(opened, name)), checkpoint, folder)
    print(f"{path}: weights after epoch {kept.epoch} of the {kept.stage} stage, verified; model.weights takes them")


def publish(
    run: Annotated[str, typer.Argument(help="a run that was trained here while the store was away")],
    store: StoreOption = "",
    timeout: Annotated[float, typer.Option(help="seconds to wait for the store")] = 60.0,
) -> None:
    """Finish a run whose training ended here, but whose store was away."""
    from pcam_model.core.errors import ModelError
    from pcam_model.registry.runs import run_name
    from pcam_model.registry.workspace import Workspace

    folder = cache_dir() / "work" / run_name(run)
    place = Workspace(run=run, store=resolve_store_uri(store), folder=str(folder))
    if not folder.is_dir() and place.run_store.published() is None:
        raise ModelError(f"nothing of run {run!r} waits in {folder}; `pcam train --run {run}` goes on with it")
    published = place.publish(timeout)
    place.forget()
    print(f"Published {published.uri}")


def promote(
    run: Annotated[str, typer.Argument(help="a published run")],
    channel: ChannelOption = "champion",
    message: MessageOption = "",
    store: StoreOption = "",
    alone: AloneOption = False,
) -> None:
    """Let a channel point to a run."""
    from pcam_model.registry import channels as moving
    from pcam_model.registry.backends.base import open_store

    moved = moving.promote(open_store(resolve_store_uri(store)), run, channel, message=message, alone=alone)
    print(f"{channel}: {moved.run}" + (f", before {moved.before}" if moved.before else ""))


def rollback(
    channel: ChannelOption = "champion",
    message: MessageOption = "",
    store: StoreOption = "",
    alone: AloneOption = False,
) -> None:
    """Let a channel point to what it pointed to before."""
    from pcam_model.registry import channels as moving
    from pcam_model.registry.backends.base import open_store

    moved = moving.rollback(open_store(resolve_store_uri(store)), channel, message=message, alone=alone)
    print(f"{channel}: back to {moved.run}")


def channels(store: StoreOption = "") -> None:
    """Every channel and its history."""
    from pcam_model.registry.backends.base import open_store
    from pcam_model.registry.channel_history import newest_first
    from pcam_model.registry.channels import list_channels

    kept = open_store(resolve_store_uri(store))
    for channel in list_channels(kept):
        print(f"{channel.name}: {channel.run}")
        for move in newest_first(kept, channel):
            print(f"  {move.when} {move.kind} {move.run} by {move.who}" + (f": {move.message}" if move.message else ""))


def verify(store: StoreOption = "") -> None:
    """Read the whole store against its manifests; exit code 1 where something is missing or different."""
    from pcam_model.registry import audit as housekeeping
    from pcam_model.registry.backends.base import open_store

    faults = list(housekeeping.verify(open_store(resolve_store_uri(store))))
    for fault in faults:
        print(f"{fault.place}: {fault.what}")
    if faults:
        sys.exit(1)
    print(f"{resolve_store_uri(store)}: every published file is what its manifest says")


def prune(
    days: Annotated[float, typer.Option(min=0, help="only what is untouched for so many days")] = 30.0,
    keep: Annotated[int, typer.Option(min=0, help="the last so many published runs and the best one stay")] = 3,
    scores: Annotated[bool, typer.Option("--scores", help="the tables of pcam-score, too")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="really delete; without it, only say what would go")] = False,
    store: StoreOption = "",
) -> None:
    """Delete old runs that no channel ever pointed to, and old shards of pcam-score; says first what would go."""
    from pcam_model.registry import pruning
    from pcam_model.registry.backends.base import open_store

    kept = open_store(resolve_store_uri(store))
    found = pruning.prune_candidates(kept, days, keep)
    tables = pruning.old_scores(kept, days) if scores else []
    shards = pruning.old_shards(kept, days)
    doing = "deleting" if delete else "would delete"
    for each in [*found, *tables]:
        state = "published" if each.published else "unfinished"
        place = each.name if each.room == "runs" else f"{each.room}/{each.name}"
        print(f"{doing} {place} ({state}, {each.bytes:,} bytes, {each.days:.0f} days)")
        if delete:
            pruning.prune(kept, each)
    if shards:
        size = sum(shard.size for shard in shards)
        print(f"{doing} {len(shards):,} shards ({size:,} bytes); pcam-score computes them again where it needs them")
        for shard in shards if delete else ():
            kept.delete(shard.key)
    if not delete:
        more = f", {len(tables)} tables of scores" * scores + f" and {len(shards):,} shards" * bool(shards)
        print(f"{len(found)} runs{more} would go; `pcam prune --delete` deletes them")
