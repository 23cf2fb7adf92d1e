"""Ordered prefetching by threads."""

import threading
import time

import pytest

from pcam_model.core.concurrency import ordered_prefetch


def test_results_come_in_order_and_at_most_so_many_are_pending() -> None:
    started = 0
    lock = threading.Lock()

    def square(number: int) -> int:
        nonlocal started
        with lock:
            started += 1
        time.sleep(0.002 * (number % 3))
        return number * number

    taken = 0
    for result in ordered_prefetch(square, range(30), threads=4, max_pending=5):
        assert result == taken * taken
        assert started <= taken + 5
        taken += 1
    assert taken == 30


def test_a_consumer_that_stops_cancels_what_has_not_begun() -> None:
    computed: list[int] = []

    def compute(number: int) -> int:
        computed.append(number)
        return number

    results = ordered_prefetch(compute, range(1000), threads=1, max_pending=4)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert len(computed) <= 4


def test_an_error_reaches_the_consumer_in_its_place() -> None:
    results = ordered_prefetch(lambda number: 1 // number, [2, 1, 0], threads=2, max_pending=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
