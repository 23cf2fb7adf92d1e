"""The flow `pcam`, deployed as `retrain`: a challenger where something is new, and a champion that is never worse."""

from prefect import flow

from flows.full_train import full_train, packed
from pcam_model.data.quality import LookPlan
from pcam_model.data.source import SourcePlan
from pcam_model.data.split import SplitPlan
from pcam_model.evaluation.promotion_gate import Decision, PromotionPlan
from pcam_model.evaluation.report import ScorePlan
from pcam_model.config import TrainPlan
from pcam_model.registry.backends.base import StorePlan
from pcam_model.training.device import ComputePlan
from pcam_model.training.lr_finder import SearchPlan
from pcam_model.training.network import NetworkPlan
from pcam_model.training.stage import FrozenPlan, TunedPlan
from tasks import checking
from tasks import retraining as promoting
from tasks.run_status import ENDINGS


@flow(name="pcam", log_prints=True, **ENDINGS)
def retrain(
    source: SourcePlan = SourcePlan(),
    look: LookPlan = LookPlan(),
    split: SplitPlan = SplitPlan(),
    network: NetworkPlan = NetworkPlan(),
    search: SearchPlan = SearchPlan(),
    frozen: FrozenPlan = FrozenPlan(),
    tuned: TunedPlan = TunedPlan(),
    compute: ComputePlan = ComputePlan(),
    score: ScorePlan = ScorePlan(),
    store: StorePlan = StorePlan(),
    promotion: PromotionPlan = PromotionPlan(),
    seed: int = 2,
) -> Decision:
    """Train a challenger unless data, plan and code are the champion's; promote it only where it is better."""
    plan = TrainPlan(
        source=source, look=look, split=split, network=network, search=search, frozen=frozen,
        tuned=tuned, compute=compute, score=score, store=store, seed=seed,
    )  # fmt: skip
    checking.check(plan)
    place = promoting.room(plan)
    pack = packed(place, source, seed)
    now = promoting.standing(place, plan, pack, promotion)
    if now.decided:
        return promoting.tell(now.decided)

    full_train(**dict(plan.model_copy(update={"run": now.challenger})))
    decision = promoting.compare(place, now, pack, promotion, seed)
    return promoting.tell(promoting.settle(place, now, decision))
