"""Test-time augmentation: the 8 symmetries of the square, none of which changes what a patch is."""

from collections.abc import Iterator

from torch import Tensor


def views(images: Tensor) -> Iterator[Tensor]:
    """The 8 views of images (..., S, S): four turns, each as it is and mirrored; the first is the image itself."""
    for turns in range(4):
        turned = images.rot90(turns, (-2, -1))
        yield turned
        yield turned.flip(-1)
