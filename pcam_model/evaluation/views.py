"""Test-time augmentation: the 8 symmetries of the square, none of which changes the class of a patch."""

from collections.abc import Iterator

from torch import Tensor


def views(images: Tensor) -> Iterator[Tensor]:
    """The 8 symmetries of images (..., S, S): four rotations, each also mirrored; the first is the image itself."""
    for quarter_turns in range(4):
        rotated = images.rot90(quarter_turns, (-2, -1))
        yield rotated
        yield rotated.flip(-1)
