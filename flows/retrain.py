"""The flow `pcam`, deployed as `retrain`: a challenger where something is new, and a champion that is never worse."""

from prefect import flow

from flows.full_train import build_pack, full_train
from pcam_model.config import TrainConfig
from pcam_model.config_reader import override_preset
from pcam_model.evaluation.promotion_gate import Decision, PromotionConfig
from pcam_model.presets import PresetName
from tasks import checking, retraining
from tasks.run_status import STATUS_HOOKS


@flow(name="pcam", log_prints=True, **STATUS_HOOKS)
def retrain(
    config: TrainConfig = TrainConfig(),
    preset: PresetName | None = None,
    promotion: PromotionConfig = PromotionConfig(),
) -> Decision:
    """Train a challenger unless data, config and code are the champion's; promote it only where it is better.

    Args:
        config: every key of the run; a key that is not given has the preset's value, else its default.
        preset: a ready configuration that `config` overrides key by key.
        promotion: which channel the challenger competes for, and by how much it may be worse.
    """
    config = override_preset(preset, config)
    checking.check(config)
    workspace = retraining.comparison_workspace(config)
    pack = build_pack(workspace, config)
    state = retraining.compare_with_champion(workspace, config, pack, promotion)
    if state.decision:
        return retraining.report_decision(state.decision)

    full_train(config.model_copy(update={"run": state.challenger}))
    decision = retraining.judge(workspace, state, pack, promotion, config.seed)
    return retraining.report_decision(retraining.apply_decision(workspace, state, decision))
