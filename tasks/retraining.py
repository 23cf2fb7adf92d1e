"""Tasks of retraining: who is champion, is anything new, and what becomes of the challenger."""

import hashlib
import json
from pathlib import Path

from prefect import task

from pcam_model.config import TrainConfig
from pcam_model.core.paths import cache_dir, resolve_store_uri
from pcam_model.core.schema import Record
from pcam_model.data.pack import Pack
from pcam_model.evaluation import promotion_gate as judging
from pcam_model.evaluation.compare import auc_difference
from pcam_model.evaluation.promotion_gate import Decision, PromotionConfig
from pcam_model.registry import channels
from pcam_model.registry.backends.base import open_store
from pcam_model.registry.decisions import find_decision, save_decision
from pcam_model.registry.describe import describe_run
from pcam_model.registry.resolve import find_model
from pcam_model.registry.run_names import differences
from pcam_model.registry.runs import RunStore
from pcam_model.registry.workspace import Workspace
from pcam_model.training.model_io import code_digest
from tasks.policy import retry_policy
from tasks.progress import progress, show_text

RUN = "retrain"  # a room on this machine, and no run in the store


class RetrainState(Record):
    """Where things stand before anything is trained."""

    champion: str
    """The run that the channel points to; empty: none."""
    challenger: str
    """The run to be trained, named for its data, config and code: another try goes on with it."""
    decision: Decision | None = None
    """What is already known to become of it."""


@task(**retry_policy(hours=0.25))
def comparison_workspace(config: TrainConfig) -> Workspace:
    """Where comparing works; nothing is written to the store yet."""
    return Workspace(run=RUN, store=resolve_store_uri(config.store.uri), folder=str(cache_dir() / "work" / RUN))


@task(**retry_policy(hours=1))
def compare_with_champion(
    workspace: Workspace, config: TrainConfig, pack: Pack, promotion: PromotionConfig
) -> RetrainState:
    """Compare data, config and code with the champion's."""
    store = open_store(workspace.store)
    channel = channels.read_channel(store, promotion.channel)
    champion, challenger = channel.run if channel else "", _name(config, pack)
    found = RetrainState(champion=champion, challenger=challenger)
    news = _news(workspace.store, champion, config, pack) if champion else ["there is no champion yet"]
    if not news:
        reason = f"data, config and code are those of the champion {champion}: there is nothing to train"
        same = Decision(verdict="unchanged", reason=reason, champion=champion, challenger=challenger,
                        **promotion.model_dump())  # fmt: skip
        return found.model_copy(update={"decision": same})
    print(f"Retraining: {'; '.join(news)}")
    before = find_decision(store, challenger, champion)
    decision = Decision.model_validate(before) if before else None
    if decision and decision.margin == promotion.margin:
        return found.model_copy(update={"decision": decision})
    return found


@task(**retry_policy(hours=24))
def judge(workspace: Workspace, state: RetrainState, pack: Pack, promotion: PromotionConfig, seed: int) -> Decision:
    """Champion and challenger on the same patches, which neither has seen in training."""
    if not state.champion:
        reason = f"there was no champion in {promotion.channel!r}, so there was nothing to compare with"
        return Decision(verdict="promoted", reason=reason, champion="", challenger=state.challenger,
                        **promotion.model_dump())  # fmt: skip
    rows, left_out = judging.held_out(pack, _split(workspace, state.challenger), _split(workspace, state.champion))
    if not judging.both_classes(pack, rows):
        reason = (
            f"only {len(rows):,} of {len(rows) + left_out:,} held-out patches are new to the champion, too few to "
            f"compare on; look at both reports, and promote by hand with `pcam promote {state.challenger}`"
        )
        return Decision(verdict="rejected", reason=reason, champion=state.champion, challenger=state.challenger,
                        patches=len(rows), left_out=left_out, **promotion.model_dump())  # fmt: skip
    tables = {}
    for run in (state.champion, state.challenger):
        with progress(f"comparing, {run}") as tell:
            model = find_model(f"{workspace.store}/runs/{run}", workspace.store, cache_dir())
            tables[run] = judging.judge(model, pack, rows, tell)
    return judging.decide(promotion, auc_difference(tables, seed), len(rows), left_out)


@task(**retry_policy(hours=1))
def apply_decision(workspace: Workspace, state: RetrainState, decision: Decision) -> Decision:
    """Move the channel where the challenger won, and write the decision down; a rejected one stays published."""
    store = open_store(workspace.store)
    if decision.verdict == "promoted":
        channel = channels.read_channel(store, decision.channel)
        if channel is None or channel.run != decision.challenger:  # else an earlier try got so far
            channels.promote(store, decision.challenger, decision.channel, message=decision.reason, over=state.champion)
    save_decision(store, decision.challenger, decision.champion, decision.model_dump(mode="json"))
    return decision


@task(**retry_policy(hours=0.25))
def report_decision(decision: Decision) -> Decision:
    """The decision on Prefect's page and in the log."""
    print(f"Decision: {decision.verdict}: {decision.reason}")
    rows = decision.model_dump(mode="json", exclude={"reason", "difference"})
    if decision.difference:
        rows |= {f"difference.{name}": value for name, value in decision.difference.model_dump(mode="json").items()
                 if not isinstance(value, dict)}  # fmt: skip
    lines = "".join(f"| {name} | {value} |\n" for name, value in rows.items())
    text = f"# {decision.verdict.capitalize()}\n\n{decision.reason}.\n\n| | |\n|---|---|\n{lines}"
    show_text("decision", text, "What became of the challenger")
    return decision


def _name(config: TrainConfig, pack: Pack) -> str:
    content = json.dumps([pack.digest, config.result_keys(), code_digest()], sort_keys=True)
    return f"retrain-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def _news(store: str, champion: str, config: TrainConfig, pack: Pack) -> list[str]:
    """What is not as it was when the champion was trained."""
    about = describe_run(store, champion)
    split = RunStore(open_store(store), champion).step_record("split")
    news = list(differences(about["config"], json.loads(json.dumps(config.result_keys()))))
    if split is None or split["inputs"]["pack"] != pack.digest:
        news.insert(0, f"the data are others than the champion's (pack {pack.digest[:12]})")
    if about["about"].get("code") != code_digest()[:12]:
        news.append("the code is another than the champion's")
    return news


def _split(workspace: Workspace, run: str) -> Path:
    RunStore(open_store(workspace.store), run).fetch("split", workspace.room(run))
    return workspace.room(run)
