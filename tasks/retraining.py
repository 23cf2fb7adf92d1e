"""Tasks of retraining: who is champion, is anything new, and what becomes of the challenger."""

import hashlib
import json
from pathlib import Path

from prefect import task

from pcam_model.data.pack import Pack
from pcam_model.evaluation import promotion_gate as judging
from pcam_model.evaluation.promotion_gate import Decision, PromotionPlan
from pcam_model.evaluation.compare import auc_difference
from pcam_model.core.paths import cache_folder, store_address
from pcam_model.config import TrainPlan
from pcam_model.core.schema import Record
from pcam_model.registry import channels
from pcam_model.registry.decisions import find_decision, keep_decision
from pcam_model.registry.resolve import find_model
from pcam_model.registry.run_names import differences
from pcam_model.registry.runs import RunStore
from pcam_model.registry.describe import describe_run
from pcam_model.registry.backends.base import open_store
from pcam_model.registry.workspace import Workspace
from pcam_model.training.model_io import code_digest
from tasks.policy import within
from tasks.progress import progress, show_text

RUN = "retrain"  # a room on this machine, and no run in the store


class Standing(Record):
    """Where things stand before anything is trained."""

    champion: str
    """The run that the channel points to; empty: none."""
    challenger: str
    """The run to be trained, named for its data, plan and code: another try goes on with it."""
    decided: Decision | None = None
    """What is already known to become of it."""


@task(**within(hours=0.25))
def room(plan: TrainPlan) -> Workspace:
    """Where comparing works; nothing is written to the store yet."""
    return Workspace(run=RUN, store=store_address(plan.store.uri), folder=str(cache_folder() / "work" / RUN))


@task(**within(hours=1))
def standing(place: Workspace, plan: TrainPlan, pack: Pack, promotion: PromotionPlan) -> Standing:
    """Compare data, plan and code with the champion's."""
    store = open_store(place.store)
    channel = channels.read_channel(store, promotion.channel)
    champion, challenger = channel.run if channel else "", _name(plan, pack)
    found = Standing(champion=champion, challenger=challenger)
    news = _news(place.store, champion, plan, pack) if champion else ["there is no champion yet"]
    if not news:
        reason = f"data, plan and code are those of the champion {champion}: there is nothing to train"
        same = Decision(verdict="unchanged", reason=reason, champion=champion, challenger=challenger,
                        **promotion.model_dump())  # fmt: skip
        return found.model_copy(update={"decided": same})
    print(f"Retraining: {'; '.join(news)}")
    before = find_decision(store, challenger, champion)
    decided = Decision.model_validate(before) if before else None
    if decided and decided.margin == promotion.margin:
        return found.model_copy(update={"decided": decided})
    return found


@task(**within(hours=24))
def compare(place: Workspace, now: Standing, pack: Pack, promotion: PromotionPlan, seed: int) -> Decision:
    """Champion and challenger on the same patches, which neither has seen in training."""
    if not now.champion:
        reason = f"there was no champion in {promotion.channel!r}, so there was nothing to compare with"
        return Decision(verdict="promoted", reason=reason, champion="", challenger=now.challenger,
                        **promotion.model_dump())  # fmt: skip
    rows, left_out = judging.held_out(pack, _split(place, now.challenger), _split(place, now.champion))
    if not judging.both_classes(pack, rows):
        reason = (
            f"only {len(rows):,} of {len(rows) + left_out:,} held-out patches are new to the champion, too few to "
            f"compare on; look at both reports, and promote by hand with `pcam promote {now.challenger}`"
        )
        return Decision(verdict="rejected", reason=reason, champion=now.champion, challenger=now.challenger,
                        patches=len(rows), left_out=left_out, **promotion.model_dump())  # fmt: skip
    tables = {}
    for run in (now.champion, now.challenger):
        with progress(f"comparing, {run}") as tell:
            model = find_model(f"{place.store}/runs/{run}", place.store, cache_folder())
            tables[run] = judging.judge(model, pack, rows, tell)
    return judging.decide(promotion, auc_difference(tables, seed), len(rows), left_out)


@task(**within(hours=1))
def settle(place: Workspace, now: Standing, decision: Decision) -> Decision:
    """Move the channel where the challenger won, and write the decision down; a rejected one stays published."""
    store = open_store(place.store)
    if decision.verdict == "promoted":
        channel = channels.read_channel(store, decision.channel)
        if channel is None or channel.run != decision.challenger:  # else an earlier try got so far
            channels.promote(store, decision.challenger, decision.channel, why=decision.reason, over=now.champion)
    keep_decision(store, decision.challenger, decision.champion, decision.model_dump(mode="json"))
    return decision


@task(**within(hours=0.25))
def tell(decision: Decision) -> Decision:
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


def _name(plan: TrainPlan, pack: Pack) -> str:
    content = json.dumps([pack.digest, plan.result(), code_digest()], sort_keys=True)
    return f"retrain-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def _news(store: str, champion: str, plan: TrainPlan, pack: Pack) -> list[str]:
    """What is not as it was when the champion was trained."""
    about = describe_run(store, champion)
    split = RunStore(open_store(store), champion).step_record("split")
    news = list(differences(about["plan"], json.loads(json.dumps(plan.result()))))
    if split is None or split["inputs"]["pack"] != pack.digest:
        news.insert(0, f"the data are others than the champion's (pack {pack.digest[:12]})")
    if about["about"].get("code") != code_digest()[:12]:
        news.append("the code is another than the champion's")
    return news


def _split(place: Workspace, run: str) -> Path:
    RunStore(open_store(place.store), run).fetch("split", place.room(run))
    return place.room(run)
