import pytest

from pcam_model.training.one_cycle import momentum, rate


def test_the_rate_climbs_from_a_25th_to_its_maximum_and_falls_to_a_100000th() -> None:
    rates = [rate(step, 401, 0.01) for step in range(401)]
    assert rates[0] == pytest.approx(0.01 / 25)
    assert rates[100] == pytest.approx(0.01)
    assert rates[-1] == pytest.approx(0.01 / 1e5)
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)


def test_both_ways_are_cosines() -> None:
    assert rate(50, 401, 1.0) == pytest.approx((1 / 25 + 1) / 2)
    assert rate(250, 401, 1.0) == pytest.approx((1 + 1e-5) / 2)


def test_momentum_goes_down_and_comes_back() -> None:
    assert [momentum(step, 401) for step in (0, 100, 400)] == pytest.approx([0.95, 0.85, 0.95])


def test_a_single_step_has_a_schedule_too() -> None:
    assert rate(0, 1, 1.0) == pytest.approx(1 / 25)
