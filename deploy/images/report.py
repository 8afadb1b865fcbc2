"""Report what images weigh: what they share with the base image, and what each brings of its own, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from .contents import Layer, saved
from .engine import Engine

SHOWN_CHARACTERS = 70


@dataclass(frozen=True)
class Weight:
    """What an image weighs unpacked, and how much of it lies in layers of the base image."""

    image: str
    shared: Sequence[Layer]
    own: Sequence[Layer]

    @property
    def shared_bytes(self) -> int:
        """Return the size of what every function on this base shares."""
        return sum(layer.size_bytes for layer in self.shared)

    @property
    def own_bytes(self) -> int:
        """Return the size of what this image adds."""
        return sum(layer.size_bytes for layer in self.own)

    def as_json(self) -> dict[str, Any]:
        """Return it for a machine to read."""
        return {
            "image": self.image,
            "bytes": self.shared_bytes + self.own_bytes,
            "base": {"bytes": self.shared_bytes, "layers": len(self.shared)},
            "layers": [
                {"bytes": layer.size_bytes, "diff_id": layer.diff_id, "made_by": layer.made_by} for layer in self.own
            ],
        }


def weigh(engine: Engine, images: Iterable[str], base: str) -> list[Weight]:
    """Return what *images*, built on the image *base*, weigh, and first the base itself."""
    below = _layers(engine, base)
    return [Weight(base, (), below), *(_weight(image, _layers(engine, image), below) for image in images)]


def table(weights: Sequence[Weight]) -> str:
    """Return the weights as a table, under each image the layers of its own."""
    width = max(len(weight.image) for weight in weights)
    lines = [f"{'image':{width}}  {'total':>9}  {'base (layers)':>14}  {'own':>9}"]
    for weight in weights:
        base = f"{_shown(weight.shared_bytes)} ({len(weight.shared)})" if weight.shared else "-"
        total = _shown(weight.shared_bytes + weight.own_bytes)
        lines.append(f"{weight.image:{width}}  {total:>9}  {base:>14}  {_shown(weight.own_bytes):>9}")
        lines += [
            f"  {_shown(layer.size_bytes):>9}  {layer.made_by[:SHOWN_CHARACTERS]}".rstrip() for layer in weight.own
        ]
    return "\n".join(lines)


def _layers(engine: Engine, image: str) -> Sequence[Layer]:
    with saved(engine, image) as found:
        return found.layers


def _weight(image: str, layers: Sequence[Layer], below: Sequence[Layer]) -> Weight:
    pairs = zip(layers, below, strict=False)
    count = sum(1 for _ in takewhile(lambda pair: pair[0].diff_id == pair[1].diff_id, pairs))
    return Weight(image, layers[:count], layers[count:])


def _shown(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e5 else f"{size_bytes / 1e3:.1f} kB"
