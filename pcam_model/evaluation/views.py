"""Test-time augmentation: the 8 symmetries of the square, none of which changes what a patch is."""

from collections.abc import Callable, Iterator

from torch import Tensor

VIEWS = 8


def views(images: Tensor) -> Iterator[Tensor]:
    """The 8 views of images (..., S, S): four turns, each as it is and mirrored; the first is the image itself."""
    for turns in range(4):
        turned = images.rot90(turns, (-2, -1))
        yield turned
        yield turned.flip(-1)


def mean_logits(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Mean logits (B, 2) over the 8 views of images (B, 3, S, S), one view at a time; 8 forward passes."""
    total = sum((network(view).float() for view in views(images)), start=images.new_zeros(()).float())
    return total / VIEWS
