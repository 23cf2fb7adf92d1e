"""The state dict of a body in a checkpoint of any tool, found by the body's own names."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from pcam_model.training.efficientnet_names import efficientnet_names

MAX_DEPTH = 4
"""Levels of dictionaries that are searched."""
MIN_NAMES = 0.1
"""Share of a body's names that are no coincidence."""
AVERAGED_WORDS = ("teacher", "ema")
"""In names: of two equal copies, the averaged weights are the better ones."""
DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))(\d)\.")

Naming = Mapping[str, str]
"""The body's name of each tensor, by the name that a file gives it behind a prefix."""


@dataclass(frozen=True)
class StateDict:
    """The tensors of one dictionary of a file whose names, behind one prefix, are those of a body."""

    tensors: Mapping[str, Tensor]
    """By the body's names."""
    dictionary: str
    """The keys that lead to the dictionary, joined by dots; "" for the file itself."""
    prefix: str
    """What stands before the names."""
    unexpected: Mapping[str, Tensor]
    """The dictionary's other tensors, by their own names."""
    alternatives: tuple[str, ...] = ()
    """Other dictionaries and prefixes that hold as many of the tensors."""

    @property
    def location(self) -> str:
        """Dictionary and prefix, for people."""
        parts = [f"dictionary {self.dictionary}"] * bool(self.dictionary) + [f"prefix {self.prefix}"] * bool(
            self.prefix
        )
        return ", ".join(parts) or "no prefix"


def find_state_dict(content: object, body: nn.Module) -> StateDict | None:
    """The dictionary and prefix with the most tensors of the body, by name and shape; None where hardly a name fits.

    Of equal ones, a teacher or average is taken, else the first.
    """
    expected = body.state_dict()
    candidates = [
        candidate
        for dictionary, tensors in tensor_dicts(content)
        for naming in namings(body)
        for candidate in _by_prefix(dictionary, tensors, naming)
        if len(candidate.tensors) > MIN_NAMES * len(expected)
    ]
    if not candidates:
        return None

    def fit(candidate: StateDict) -> tuple[int, int]:
        shapes = sum(expected[key].shape == tensor.shape for key, tensor in candidate.tensors.items())
        return shapes, len(candidate.tensors)

    best_fit = max(map(fit, candidates))
    best = [candidate for candidate in candidates if fit(candidate) == best_fit]
    first, *others = sorted(best, key=lambda candidate: not _is_averaged(candidate))  # stable: else the file's order
    alternatives = tuple(dict.fromkeys(other.location for other in others if other.location != first.location))
    return StateDict(first.tensors, first.dictionary, first.prefix, first.unexpected, alternatives)


def tensor_dicts(content: object) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The dictionaries in a file that hold tensors by name, each with the first keys that lead to it."""
    yield from _tensor_dicts(content, "", 0, set())


def _tensor_dicts(content: object, path: str, depth: int, seen: set[int]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Those that are not `seen`, by identity: a pickle may hold one dictionary a million times, or in itself."""
    if not isinstance(content, Mapping) or depth > MAX_DEPTH or id(content) in seen:
        return
    seen.add(id(content))
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if tensors:
        yield path, tensors
    for key, value in content.items():
        yield from _tensor_dicts(value, f"{path}.{key}".lstrip("."), depth + 1, seen)


def namings(body: nn.Module) -> list[Naming]:
    """The names of a body's tensors: its own, those of `nn.Sequential(*children)`, DenseNet's of before 2018, and those
    of EfficientNet-PyTorch.
    """
    names = list(body.state_dict())
    position = {name: str(index) for index, (name, _) in enumerate(body.named_children())}
    inner = [(name, *name.split(".", 1)) for name in names if "." in name]  # not a transformer's class token
    numbered = {f"{position[child]}.{rest}": name for name, child, rest in inner}
    # torchvision's own files of DenseNet are named so.
    dotted = {DENSE_LAYER.sub(r"\1.\2.", name): name for name in names}
    own = {name: name for name in names}
    return [own, numbered, *([dotted] if dotted != own else []), *filter(None, [efficientnet_names(names)])]


def _by_prefix(dictionary: str, tensors: Mapping[str, Tensor], naming: Naming) -> Iterator[StateDict]:
    """A candidate for each prefix under which a name is in `naming`."""
    by_prefix: dict[str, dict[str, Tensor]] = {}
    used: dict[str, set[str]] = {}
    for key, tensor in tensors.items():
        for start in (0, *(dot.end() for dot in re.finditer(r"\.", key))):
            if key[start:] in naming:
                by_prefix.setdefault(key[:start], {})[naming[key[start:]]] = tensor
                used.setdefault(key[:start], set()).add(key)
    for prefix, fitting in by_prefix.items():
        unexpected = {key: tensor for key, tensor in tensors.items() if key not in used[prefix]}
        yield StateDict(fitting, dictionary, prefix, unexpected)


def _is_averaged(candidate: StateDict) -> bool:
    words = re.split(r"[._]", f"{candidate.dictionary}.{candidate.prefix}".lower())
    return any(word in words for word in AVERAGED_WORDS)
