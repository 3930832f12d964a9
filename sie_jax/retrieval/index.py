"""An index of vectors: exact or approximate, kept with what it was made of.

The search itself is faiss's (Johnson, Douze and Jégou 2019, "Billion-scale similarity search with
GPUs"): `exact` compares all vectors, `hnsw` walks a graph of neighbours (Malkov and Yashunin 2018),
`ivf` looks into the nearest of some cells alone (Sivic and Zisserman 2003).
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int

from sie_jax import sections
from sie_jax.errors import UserError
from sie_jax.files import read_json, whole, write_json

EXACT, HNSW, IVF = KINDS = ("exact", "hnsw", "ivf")
ABOUT, VECTORS = "index.json", "index.faiss"
_MOST_CELLS = 65_536
_BUILD = 200  # neighbours that are looked at while an hnsw graph is built


@dataclasses.dataclass(slots=True, kw_only=True)
class IndexConfig:
    """How items are found by their vectors."""

    kind: str = EXACT  # exact, hnsw or ivf
    # hnsw: neighbours of each vector; ivf: vectors in a cell, on average
    size: int = 32
    # hnsw: how many candidates a search keeps; ivf: how many cells it looks into
    effort: int = 64

    def check(self) -> None:
        """Raises UserError for the first value that cannot work."""
        sections.one_of("index.kind", self.kind, KINDS)
        sections.at_least("index.size", self.size, 2)
        sections.at_least("index.effort", self.effort, 1)


class VectorIndex:
    """The vectors of N items, found by their inner product with a query's.

    made_of: what tells the model and the catalogue: an index is refused where they are others.
    """

    def __init__(self, index: Any, config: IndexConfig, made_of: dict[str, str]) -> None:
        self._index, self.config, self.made_of = index, config, made_of

    @classmethod
    def build(
        cls, vectors: Float32[np.ndarray, "N H"], config: IndexConfig, made_of: dict[str, str]
    ) -> "VectorIndex":
        """The index of vectors; place n in it is row n.

        Raises UserError where there are no vectors, one of them is not finite, or faiss is missing.
        """
        faiss = library()
        if not len(vectors):
            raise UserError("the catalogue is empty: give one with items")
        if not np.isfinite(vectors).all():
            broken = int((~np.isfinite(vectors)).any(1).argmax())
            raise UserError(f"the vector of item {broken} is not finite: the model is damaged")
        width, inner = vectors.shape[1], faiss.METRIC_INNER_PRODUCT
        if config.kind == HNSW:
            index = faiss.IndexHNSWFlat(width, config.size, inner)
            index.hnsw.efConstruction = _BUILD
        elif config.kind == IVF:
            cells = min(max(len(vectors) // config.size, 1), _MOST_CELLS)
            index = faiss.index_factory(width, f"IVF{cells},Flat", inner)
            index.train(vectors)
        else:
            index = faiss.IndexFlatIP(width)
        index.add(np.ascontiguousarray(vectors, np.float32))
        made = cls(index, config, made_of)
        made._set_effort()
        return made

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(
        self, queries: Float[np.ndarray, "Q H"], depth: int
    ) -> tuple[Int[np.ndarray, "Q depth"], Float32[np.ndarray, "Q depth"]]:
        """The places of the items with the highest inner products, and these; −1 behind the last.

        Raises UserError where the depth is beyond the catalogue.
        """
        if not 1 <= depth <= len(self):
            raise UserError(
                f"{depth} items are asked for, and the catalogue has {len(self):,}: give a depth "
                f"from 1 to {len(self):,}"
            )
        scores, places = self._index.search(np.ascontiguousarray(queries, np.float32), depth)
        return places, scores

    def save(self, folder: Path) -> None:
        """Leaves VECTORS and ABOUT, which says what it was made of."""
        with whole(folder / VECTORS) as temporary:
            library().write_index(self._index, str(temporary))
        about = {"kind": dataclasses.asdict(self.config), "items": len(self), **self.made_of}
        write_json(folder / ABOUT, about)

    @classmethod
    def load(cls, folder: Path, made_of: dict[str, str]) -> "VectorIndex":
        """What `save` left.

        Raises UserError where it cannot be read, or was made of another model or catalogue.
        """
        try:
            about = read_json(folder / ABOUT)
            config = IndexConfig(**about["kind"])
            index = library().read_index(str(folder / VECTORS))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{folder}: the index cannot be read ({reason}): build it again"
            ) from None
        for name, ours in made_of.items():
            if about.get(name) != ours:
                raise UserError(
                    f"{folder}: the index was made of another {name} ({about.get(name)}, not "
                    f"{ours}): build it again"
                )
        made = cls(index, config, made_of)
        made._set_effort()
        return made

    def _set_effort(self) -> None:
        if self.config.kind == HNSW:
            self._index.hnsw.efSearch = self.config.effort
        elif self.config.kind == IVF:
            self._index.nprobe = min(self.config.effort, self._index.nlist)


def found_share(found: Int[np.ndarray, "Q k"], exact: Int[np.ndarray, "Q k"]) -> float:
    """The share of the exact search's items that another search found: its recall against exact."""
    both = [len(set(a) & set(b)) for a, b in zip(found.tolist(), exact.tolist(), strict=True)]
    return float(sum(both) / exact.size)


def library() -> Any:
    """faiss; UserError where it is not installed."""
    try:
        import faiss
    except ImportError:
        raise UserError(
            "faiss is not installed, which searches vectors: pip install 'sie_jax[retrieval]'"
        ) from None
    return faiss
