"""The one-cycle schedule (Smith 2018, with fastai's numbers): pure functions of the step."""

import math

WARM = 0.25  # share of the steps on the way up
DIV, FINAL_DIV = 25.0, 1e5
MOMENTUM = (0.95, 0.85)


def lr(step: int, steps: int, maximum: float) -> float:
    """The learning rate of `step` (0 .. steps - 1): from maximum / 25 up to maximum, then down to maximum / 1e5."""
    return _cycle(step, steps, maximum / DIV, maximum, maximum / FINAL_DIV)


def momentum(step: int, steps: int) -> float:
    """AdamW's first beta at `step`: 0.95 down to 0.85, and back."""
    slow, fast = MOMENTUM
    return _cycle(step, steps, slow, fast, slow)


def _cycle(step: int, steps: int, start: float, top: float, end: float) -> float:
    place = step / max(steps - 1, 1)
    if place < WARM:
        return _cosine(start, top, place / WARM)
    return _cosine(top, end, (place - WARM) / (1 - WARM))


def _cosine(start: float, end: float, place: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * place)) / 2
