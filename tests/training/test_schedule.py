import pytest

from pcam_model.training.schedule import one_cycle_lr, one_cycle_momentum


def test_the_learning_rate_climbs_from_a_25th_to_its_maximum_and_falls_to_a_100000th() -> None:
    lrs = [one_cycle_lr(step, 401, 0.01) for step in range(401)]
    assert lrs[0] == pytest.approx(0.01 / 25)
    assert lrs[100] == pytest.approx(0.01)
    assert lrs[-1] == pytest.approx(0.01 / 1e5)
    assert lrs[:101] == sorted(lrs[:101])
    assert lrs[100:] == sorted(lrs[100:], reverse=True)


def test_both_ways_are_cosines() -> None:
    assert one_cycle_lr(50, 401, 1.0) == pytest.approx((1 / 25 + 1) / 2)
    assert one_cycle_lr(250, 401, 1.0) == pytest.approx((1 + 1e-5) / 2)


def test_momentum_goes_down_and_comes_back() -> None:
    assert [one_cycle_momentum(step, 401) for step in (0, 100, 400)] == pytest.approx([0.95, 0.85, 0.95])


def test_a_single_step_has_a_schedule_too() -> None:
    assert one_cycle_lr(0, 1, 1.0) == pytest.approx(1 / 25)
