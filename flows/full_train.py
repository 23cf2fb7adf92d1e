"""The flow `pcam`: from a source of patches to a published model."""

from prefect import flow

from pcam_model.data.quality import LookPlan
from pcam_model.data.pack import Pack
from pcam_model.data.source import SourcePlan
from pcam_model.data.split import SplitPlan
from pcam_model.evaluation.report import ScorePlan
from pcam_model.config import TrainPlan
from pcam_model.registry.runs import Published
from pcam_model.registry.backends.base import StorePlan
from pcam_model.registry.workspace import Workspace
from pcam_model.training.device import ComputePlan
from pcam_model.training.lr_finder import SearchPlan
from pcam_model.training.context import Material
from pcam_model.training.network import NetworkPlan
from pcam_model.training.stage import FrozenPlan, Stage, TunedPlan
from tasks import checking, data, publishing, scoring, training
from tasks.run_status import ENDINGS


@flow(name="pcam", log_prints=True, **ENDINGS)
def full_train(
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
    run: str = "",
    seed: int = 2,
) -> Published:
    """Train a patch classifier and publish it; started again under the same run name, finish what is missing."""
    plan = TrainPlan(
        source=source, look=look, split=split, network=network, search=search, frozen=frozen,
        tuned=tuned, compute=compute, score=score, store=store, run=run, seed=seed,
    )  # fmt: skip
    checking.check(plan)
    place = publishing.begin(plan)

    pack = packed(place, source, seed)
    data.look(place, pack, look, seed)
    publishing.claim(place, plan)
    sides = data.split(place, pack, split)
    material = Material(pack=pack, split=sides, network=network, seed=seed, compute=compute)

    head = training.settle(place, material, Stage(name="frozen", plan=frozen), start=None)
    low = training.search_lr(place, material, head, search, start=None)
    warm = training.train_frozen(place, material, head, low, start=None)

    whole = training.settle(place, material, Stage(name="tuned", plan=tuned), start=warm)
    high = training.search_lr(place, material, whole, search, start=warm)
    trained = training.fine_tune(place, material, whole, high, start=warm)

    report = scoring.score(place, plan, material, [low, high], [warm, trained])
    return publishing.publish(place, plan, material, [warm, trained], report)


def packed(place: Workspace, source: SourcePlan, seed: int) -> Pack:
    """The source as a pack: one that was kept, else downloaded, packed and kept."""
    pack = data.kept(place, source, seed)
    if pack is None:
        archive = data.download(source, seed)
        pack = data.pack(archive, source, seed)
        data.keep(place, pack, source, seed)
    return pack
