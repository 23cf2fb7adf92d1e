"""Tasks of retraining: find the champion and what is new, compare, promote."""

import hashlib
import json
from pathlib import Path
from typing import Literal

from pcam_model.config import TrainConfig
from pcam_model.core.log import log
from pcam_model.core.parsing import parse_value
from pcam_model.core.paths import cache_dir, resolve_store_uri
from pcam_model.core.schema import Record
from pcam_model.data.pack import Pack
from pcam_model.evaluation import promotion_gate
from pcam_model.evaluation.compare import auc_difference
from pcam_model.evaluation.domains import domain_differences
from pcam_model.evaluation.promotion_gate import Decision, PromotionConfig
from pcam_model.registry import channels
from pcam_model.registry.decisions import REMEDY, find_decision, save_decision
from pcam_model.registry.describe import describe_run
from pcam_model.registry.factory import open_store
from pcam_model.registry.resolve import find_model
from pcam_model.registry.run_names import differences
from pcam_model.registry.runs import RunStore
from pcam_model.registry.workspace import Workspace
from pcam_model.training.model_io import code_digest
from tasks.policy import retried, step
from tasks.progress import progress, show_text

RUN = "retrain"  # a folder on this machine; the store has no such run


class RetrainState(Record):
    """Champion and challenger by name, and the decision where no training is needed."""

    champion: str
    """The run that the channel points to; empty: none."""
    challenger: str
    """The run to be trained, named by its data, configuration and code: a retry continues it."""
    decision: Decision | None = None
    """The decision, where it needs no training: nothing is new, or it was made before."""


def comparison_workspace(config: TrainConfig) -> Workspace:
    """The workspace of the comparison; nothing is written to the store."""
    return Workspace(run=RUN, store=resolve_store_uri(config.store.uri), folder=str(cache_dir() / "work" / RUN))


@retried(hours=1)
def compare_with_champion(
    workspace: Workspace, config: TrainConfig, pack: Pack, promotion: PromotionConfig
) -> RetrainState:
    """Find the champion, and what of data, configuration and code has changed since."""
    store = open_store(workspace.store)
    channel = channels.read_channel(store, promotion.channel)
    champion, challenger = channel.run if channel else "", _challenger_name(config, pack)
    state = RetrainState(champion=champion, challenger=challenger)
    changes = _changes(workspace.store, champion, config, pack) if champion else ["there is no champion yet"]
    if not changes:
        reason = f"data, config and code are those of the champion {champion}: there is nothing to train"
        return state.model_copy(update={"decision": _decision(state, promotion, "unchanged", reason)})
    log.info("Retraining: %s", "; ".join(changes))
    saved = find_decision(store, challenger, champion)
    decision = (
        parse_value(Decision, saved, f"the decision on {challenger} in {store.uri}", remedy=REMEDY) if saved else None
    )
    if decision and decision.margin == promotion.margin:
        return state.model_copy(update={"decision": decision})
    return state


def judge(workspace: Workspace, state: RetrainState, pack: Pack, promotion: PromotionConfig, seed: int) -> Decision:
    """Compare champion and challenger, where there is a champion."""
    if state.champion:
        return compare(workspace, state, pack, promotion, seed)
    reason = f"there was no champion in {promotion.channel!r}, so there was nothing to compare with"
    return _decision(state, promotion, "promoted", reason)


@step("comparison", hours=24)
def compare(workspace: Workspace, state: RetrainState, pack: Pack, promotion: PromotionConfig, seed: int) -> Decision:
    """Compare champion and challenger on the same patches, which neither was trained on."""
    rows, left_out = promotion_gate.held_out_rows(
        pack, _fetch_split(workspace, state.challenger), _fetch_split(workspace, state.champion)
    )
    if not promotion_gate.has_both_classes(pack, rows):
        reason = (
            f"only {len(rows):,} of {len(rows) + left_out:,} held-out patches are new to the champion, too few to "
            f"compare on; look at both reports, and promote by hand with `pcam promote {state.challenger}`"
        )
        rejected = _decision(state, promotion, "rejected", reason)
        return rejected.model_copy(update={"patches": len(rows), "left_out": left_out})
    tables = {}
    for run in (state.champion, state.challenger):
        with progress(f"comparing, {run}") as on_progress:
            model = find_model(f"{workspace.store}/runs/{run}", workspace.store, cache_dir())
            tables[run] = promotion_gate.predict_rows(model, pack, rows, on_progress)
    domains = domain_differences(tables, seed)
    return promotion_gate.decide(promotion, auc_difference(tables, seed), len(rows), left_out, domains)


@step("decision", hours=1)
def apply_decision(workspace: Workspace, state: RetrainState, decision: Decision) -> None:
    """Promote a challenger that is better, and save the decision; a rejected challenger stays published."""
    store = open_store(workspace.store)
    if decision.verdict == "promoted":
        channel = channels.read_channel(store, decision.channel)
        if channel is None or channel.run != decision.challenger:  # else an earlier attempt has promoted it
            channels.promote(
                store, decision.challenger, decision.channel, message=decision.reason, expected=state.champion
            )
    save_decision(store, decision.challenger, decision.champion, decision.model_dump(mode="json"))


def report_decision(decision: Decision) -> None:
    """Log the decision, and show it on the flow run's page."""
    log.info("Decision: %s: %s", decision.verdict, decision.reason)
    rows = decision.model_dump(mode="json", exclude={"reason", "difference", "domains"})
    if decision.difference:
        values = decision.difference.model_dump(mode="json").items()
        rows |= {f"difference.{name}": value for name, value in values if not isinstance(value, dict)}
    rows |= {
        f"difference in {name}": f"{each.value:+.4f} ({each.low:+.4f} to {each.high:+.4f}, {each.units:,} {each.unit})"
        for name, each in decision.domains.items()
    }
    lines = "".join(f"| {name} | {value} |\n" for name, value in rows.items())
    text = f"# {decision.verdict.capitalize()}\n\n{decision.reason}.\n\n| | |\n|---|---|\n{lines}"
    show_text("decision", text, "The decision on the challenger")


def _decision(
    state: RetrainState, promotion: PromotionConfig, verdict: Literal["unchanged", "promoted", "rejected"], reason: str
) -> Decision:
    """A decision without a comparison."""
    return Decision(
        verdict=verdict,
        reason=reason,
        channel=promotion.channel,
        champion=state.champion,
        challenger=state.challenger,
        margin=promotion.margin,
    )


def _challenger_name(config: TrainConfig, pack: Pack) -> str:
    content = json.dumps([pack.digest, config.result_keys(), code_digest()], sort_keys=True)
    return f"retrain-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def _changes(store: str, champion: str, config: TrainConfig, pack: Pack) -> list[str]:
    """What differs from the champion's training, a phrase each."""
    description = describe_run(store, champion)
    split = RunStore(open_store(store), champion).step_record("split")
    changes = list(differences(description["config"], json.loads(json.dumps(config.result_keys()))))
    if split is None or split["inputs"]["pack"] != pack.digest:
        changes.insert(0, f"the data differ from the champion's (pack {pack.digest[:12]})")
    if description["environment"].get("code") != code_digest()[:12]:
        changes.append("the code differs from the champion's")
    return changes


def _fetch_split(workspace: Workspace, run: str) -> Path:
    """Download a run's split; its folder."""
    folder = workspace.step_dir(run)
    RunStore(open_store(workspace.store), run).fetch("split", folder)
    return folder
