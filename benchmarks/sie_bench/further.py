"""The tracks that are not about wrong labels: attribution, in-batch negatives, shift and tail."""

import functools
from pathlib import Path
from typing import Any

from sie_bench import attribute, departments, negatives, shops, worlds

MODULES = {
    "attribute": (attribute,),
    "negatives": (negatives, worlds),
    "shift": (departments, attribute, worlds),
    "tail": (departments, attribute, worlds),
}
"""The code that each track depends on, beside that of shops and model."""
ARMS: dict[str, tuple[tuple[str, float], ...]] = {
    "attribute": tuple((name, 0.0) for name in attribute.ARMS),
    "negatives": negatives.ARMS,
    **departments.MEASURED,
}
"""The policies of each track with their strengths."""
REFERENCE = {
    "attribute": ("same_words", 0.0),
    "negatives": ("everything", 0.0),
    "shift": ("with_sample", 1.0),
    "tail": ("uniform", 0.0),
}
"""What every arm of the track is compared with: what a user has without a score."""
COMPARED = {
    "attribute": ("lds",),
    "negatives": ("recall@10", "recall@100"),
    "shift": ("ndcg@10",),
    "tail": ("tail",),
}
"""The metrics of that comparison."""


def measure(cell: Any, folder: Path) -> dict[str, Any]:
    """The values of a cell. folder: of the shops' files."""
    if cell.track == "attribute":
        return attribute.measure(cell, _attribution(cell.data, folder))
    known = _departments(cell.data, folder)
    if cell.track == "negatives":
        return negatives.measure(cell, known.shop, known.world)
    return departments.measure(cell, known)


# The last shop alone: its cells are measured one after the other, and share what they ask for.


@functools.lru_cache(maxsize=1)
def _attribution(shop: int, folder: Path) -> attribute.Attribution:
    attribute.Attribution.gradients.cache_clear()  # or all shops before would be held
    return attribute.Attribution(shops.load(shop, folder))


@functools.lru_cache(maxsize=1)
def _departments(shop: int, folder: Path) -> departments.Departments:
    return departments.Departments(shops.load(shop, folder), worlds.load(shop, folder))
