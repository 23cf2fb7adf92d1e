"""The commands of the store and its channels: pull, publish, promote, rollback, channels, verify, prune."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pcam_model.cli.options import JsonOption, StoreOption
from pcam_model.cli.output import print_json
from pcam_model.core.optional_cache import call_with_cache
from pcam_model.core.paths import cache_dir, resolve_store_uri
from pcam_model.core.plain_text import hide_secrets, plain

ChannelOption = Annotated[str, typer.Option("--channel", metavar="NAME", help="The channel's name.")]
MessageOption = Annotated[
    str, typer.Option("--message", metavar="TEXT", help="A note for the channel's history.", show_default=False)
]
UnsafeOption = Annotated[
    bool,
    typer.Option(
        "--unsafe-single-writer",
        help="Promote in a store that ignores conditional writes. A promotion at the same time may be lost.",
    ),
]


def pull(
    model: Annotated[
        str, typer.Argument(metavar="RUN", help="A run, a channel, or the address of one, or of a store.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    store: StoreOption = "",
    everything: Annotated[bool, typer.Option("--all", help="Pull checkpoints too, not only model and report.")] = False,
    checkpoint: Annotated[
        str,
        typer.Option(
            metavar="EPOCH",
            help="Pull only the weights of one epoch, also of a run under way: best, final, 3 or frozen/3.",
            show_default=False,
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Pull a published run into a folder, verified against its manifest."""
    from pcam_model.registry import pull as pulling
    from pcam_model.registry.cache import Cache
    from pcam_model.registry.factory import open_store
    from pcam_model.registry.resolve import parse_run_address

    address = parse_run_address(model, resolve_store_uri(store))
    if checkpoint:
        return _pull_checkpoint(address.store_uri, address.name, checkpoint, folder, as_json)
    folders = () if everything else pulling.DEFAULT_FOLDERS
    opened = open_store(address.store_uri)
    published = call_with_cache(lambda cache: pulling.pull(opened, address.name, folder, folders, Cache(cache)))
    if as_json:
        return print_json({"folder": str(folder), **published.model_dump(mode="json")})
    print(f"{folder}: {published.uri}, manifest {published.digest[:12]}, every file verified")


def _pull_checkpoint(store_uri: str, name: str, checkpoint: str, folder: Path, as_json: bool) -> None:
    from pcam_model.registry.checkpoints import fetch_checkpoint
    from pcam_model.registry.factory import open_store
    from pcam_model.registry.pull import resolve_name
    from pcam_model.registry.runs import RunStore

    store = open_store(store_uri)
    stored, path = fetch_checkpoint(RunStore(store, resolve_name(store, name)), checkpoint, folder)
    if as_json:
        return print_json({"path": str(path), **stored.model_dump(mode="json")})
    print(f"{path}: weights after epoch {stored.epoch} of the {stored.stage} stage, verified; model.weights takes them")


def publish(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run that was trained on this machine.")],
    store: StoreOption = "",
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="How long to wait for the store.")] = 60,
    as_json: JsonOption = False,
) -> None:
    """Publish a run that was trained on this machine while the store was unavailable."""
    from pcam_model.core.errors import ModelError
    from pcam_model.registry.runs import validate_run_name
    from pcam_model.registry.workspace import Workspace

    folder = cache_dir() / "work" / validate_run_name(run)
    workspace = Workspace(run=run, store=resolve_store_uri(store), folder=str(folder))
    if not folder.is_dir() and workspace.run_store.find_published() is None:
        raise ModelError(f"nothing of run {run!r} waits in {folder}; `pcam train --run {run}` resumes it")
    with workspace.held():
        published = workspace.publish(timeout)
        workspace.cleanup()
    if as_json:
        return print_json(published.model_dump(mode="json"))
    print(f"Published {published.uri}")


def promote(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A published run.")],
    channel: ChannelOption = "champion",
    message: MessageOption = "",
    store: StoreOption = "",
    unsafe: UnsafeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Point a channel to a run."""
    from pcam_model.registry import channels as moving
    from pcam_model.registry.factory import open_store

    moved = moving.promote(open_store(resolve_store_uri(store)), run, channel, message=message, single_writer=unsafe)
    if as_json:
        return _print_channel(moved)
    print(f"{channel}: {moved.run}" + (f", before {moved.before}" if moved.before else ""))


def _print_channel(channel: Any) -> None:
    print_json({"name": channel.name, "run": channel.run, "before": channel.before})


def rollback(
    channel: ChannelOption = "champion",
    message: MessageOption = "",
    store: StoreOption = "",
    unsafe: UnsafeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Point a channel to the run before."""
    from pcam_model.registry import channels as moving
    from pcam_model.registry.factory import open_store

    moved = moving.rollback(open_store(resolve_store_uri(store)), channel, message=message, single_writer=unsafe)
    if as_json:
        return _print_channel(moved)
    print(f"{channel}: back to {moved.run}")


def channels(store: StoreOption = "", as_json: JsonOption = False) -> None:
    """List the channels of a store, each with its history."""
    from pcam_model.registry.channel_history import newest_first
    from pcam_model.registry.channels import list_channels
    from pcam_model.registry.factory import open_store

    opened = open_store(resolve_store_uri(store))
    listed = list_channels(opened)
    if not as_json and not listed:
        return print(f"no channels in {hide_secrets(opened.uri)}; `pcam promote RUN` makes the channel champion")
    histories = {channel.name: (channel.run, list(newest_first(opened, channel))) for channel in listed}
    if as_json:
        return print_json(
            [{"name": name, "run": run, "history": [move.model_dump(mode="json") for move in moves]}
             for name, (run, moves) in histories.items()]
        )  # fmt: skip
    for name, (run, moves) in histories.items():
        print(plain(f"{name}: {run}"))
        for move in moves:
            line = f"{move.time} {move.kind} {move.run} by {move.author}" + f": {move.message}" * bool(move.message)
            print(f"  {plain(line)}")


def verify(store: StoreOption = "", as_json: JsonOption = False) -> None:
    """Verify every published file of a store against its manifest.

    The exit code is 1 where a file is missing or differs.
    """
    from pcam_model.registry import audit
    from pcam_model.registry.factory import open_store

    opened = open_store(resolve_store_uri(store))
    uri, findings = hide_secrets(opened.uri), list(audit.verify(opened))
    if as_json:
        print_json({"store": uri, "findings": [finding.model_dump(mode="json") for finding in findings]})
    else:
        for finding in findings:
            print(plain(f"{finding.key}: {finding.problem}"))
    if findings:
        sys.exit(1)
    if not as_json:
        empty = audit.is_empty(opened)
        print(f"{uri}: " + ("nothing is published" if empty else "every published file is what its manifest says"))


def prune(
    days: Annotated[
        float, typer.Option(min=0, metavar="N", help="Only what was last written more than N days ago.")
    ] = 30,
    keep: Annotated[
        int, typer.Option(min=0, metavar="N", help="Keep the N newest published runs, and the best one.")
    ] = 3,
    scores: Annotated[bool, typer.Option("--scores", help="Delete old tables of pcam-score, too.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Delete. Without it the command only lists.")] = False,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """List, or delete, old runs that no channel ever pointed to, and old shards of pcam-score."""
    from pcam_model.registry import pruning
    from pcam_model.registry.factory import open_store

    opened = open_store(resolve_store_uri(store))
    candidates = pruning.prune_candidates(opened, days, keep)
    tables = pruning.old_scores(opened, days) if scores else []
    shards = pruning.old_shards(opened, days)
    if not as_json:
        _print_candidates([*candidates, *tables], shards, delete)
    if delete:
        for each in [*candidates, *tables]:
            pruning.prune(opened, each)
        for shard in shards:
            opened.delete(shard.key)
        pruning.sweep_store(opened)
    if as_json:
        print_json({"deleted": delete, "shards": len(shards), "shard_bytes": sum(shard.size for shard in shards),
                    "candidates": [each.model_dump(mode="json") for each in [*candidates, *tables]]})  # fmt: skip
    elif not delete:
        more = f", {len(tables):,} tables of scores" * scores + f" and {len(shards):,} shards" * bool(shards)
        remedy = "; the same command with --delete deletes them" if candidates or tables or shards else ""
        print(f"{len(candidates):,} runs{more} would be deleted{remedy}")


def _print_candidates(candidates: list[Any], shards: list[Any], delete: bool) -> None:
    verb = "deleting" if delete else "would delete"
    for each in candidates:
        state = "published" if each.published else "unfinished"
        path = each.name if each.namespace == "runs" else f"{each.namespace}/{each.name}"
        print(f"{verb} {plain(path)} ({state}, {each.size:,} bytes, {each.age_days:.0f} days)")
    if shards:
        size = sum(shard.size for shard in shards)
        print(f"{verb} {len(shards):,} shards ({size:,} bytes); pcam-score computes them again where it needs them")
