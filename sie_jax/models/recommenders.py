"""Recommenders without a network: what is popular, bought again, bought together, factorised."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from sie_jax.errors import UserError
from sie_jax.files import read_json, whole, write_json

NEIGHBOURS = 200
"""Of each item that has a say: those most often met by the same users."""
_RECENCY = 1e-3  # moves what was met later before what was met as often
_POPULAR = 1e-6  # moves what is popular before all else that ties


class Recommender(Protocol):
    """Scores all items for users that are known by their histories."""

    kind: ClassVar[str]

    def scores(
        self, users: Int[np.ndarray, "B"], histories: Sequence[Int[np.ndarray, "n"]]
    ) -> Float[np.ndarray, "B I+1"]:
        """The scores of items 1 to I; item 0 is none. users: −1 where unknown in training."""

    def arrays(self) -> dict[str, np.ndarray]:
        """What it is made of, to be saved."""


@dataclasses.dataclass(frozen=True)
class Popularity:
    """How often each item was met in training, the same for all users."""

    counts: np.ndarray
    kind: ClassVar[str] = "popularity"

    @classmethod
    def fit(cls, matrix: sparse.csr_matrix, *, option: float = 0.0, seed: int = 0) -> Self:
        """matrix: `[U, I + 1]`, how often each user met each item."""
        return cls(np.asarray(matrix.sum(0))[0].astype(np.float32))

    def scores(self, users: np.ndarray, histories: Sequence[np.ndarray]) -> np.ndarray:
        """See `Recommender`."""
        return np.tile(self.counts, (len(histories), 1))

    def arrays(self) -> dict[str, np.ndarray]:
        """See `Recommender`."""
        return {"counts": self.counts}


@dataclasses.dataclass(frozen=True)
class Repeat(Popularity):
    """What the user met most often himself, the latest first among equals; then what is popular."""

    kind: ClassVar[str] = "repeat"

    def scores(self, users: np.ndarray, histories: Sequence[np.ndarray]) -> np.ndarray:
        """See `Recommender`."""
        found = np.tile(_POPULAR * self.counts / max(self.counts.max(), 1), (len(histories), 1))
        for row, history in enumerate(histories):
            later = 1 + _RECENCY * np.arange(len(history)) / max(len(history), 1)
            np.add.at(found[row], history, later)
        return found


@dataclasses.dataclass(frozen=True)
class ItemNeighbours:
    """s(u, j) = Σ_i decay^(n − i) sim(h_i, j) over the user's history h_1 … h_n.

    sim is the cosine of two items' users, of each item its NEIGHBOURS highest (Sarwar et al. 2001,
    "Item-based collaborative filtering").
    """

    similarity: sparse.csr_matrix
    decay: float
    kind: ClassVar[str] = "item_neighbours"
    options: ClassVar[tuple[float, ...]] = (1.0, 0.8, 0.5)

    @classmethod
    def fit(cls, matrix: sparse.csr_matrix, *, option: float = 1.0, seed: int = 0) -> Self:
        """matrix: as of `Popularity`. option: the decay."""
        met = matrix.astype(bool).astype(np.float32)
        norms = np.sqrt(np.asarray(met.sum(0))[0])
        scaled = met @ sparse.diags((1 / np.where(norms > 0, norms, 1)).astype(np.float32))
        together = (scaled.T @ scaled).tocsr()
        together.setdiag(0)
        together.eliminate_zeros()
        return cls(_strongest(together, NEIGHBOURS), option)

    def scores(self, users: np.ndarray, histories: Sequence[np.ndarray]) -> np.ndarray:
        """See `Recommender`."""
        sizes = [len(history) for history in histories]
        rows = np.repeat(np.arange(len(histories)), sizes)
        weights = [self.decay ** np.arange(size - 1, -1, -1) for size in sizes]
        shape = (len(histories), self.similarity.shape[0])
        columns = np.concatenate([np.empty(0, np.int64), *histories])
        values = np.concatenate([np.empty(0), *weights]).astype(np.float32)
        read = sparse.csr_matrix((values, (rows, columns)), shape=shape)
        return np.asarray((read @ self.similarity).todense(), np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """See `Recommender`."""
        own = self.similarity
        return {
            "data": own.data,
            "indices": own.indices,
            "indptr": own.indptr,
            "decay": np.array(self.decay),
        }


@dataclasses.dataclass(frozen=True)
class Factors:
    """s(u, j) = ⟨x_u, y_j⟩ by implicit alternating least squares, x_u folded in of the history:

        x_u = (YᵀY + α Σ_{i ∈ h} y_i y_iᵀ + λ I)⁻¹ (1 + α) Σ_{i ∈ h} y_i

    so that a user who was not there in training is known too (Hu, Koren and Volinsky 2008,
    "Collaborative filtering for implicit feedback datasets"; the library `implicit`).
    """

    items: np.ndarray
    confidence: float
    ridge: float
    kind: ClassVar[str] = "als"
    options: ClassVar[tuple[float, ...]] = (1.0, 10.0)

    @classmethod
    def fit(cls, matrix: sparse.csr_matrix, *, option: float = 1.0, seed: int = 0) -> Self:
        """matrix: as of `Popularity`. option: α."""
        from implicit.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits

        met = matrix.astype(bool).astype(np.float32).tocsr()
        ridge = 0.05
        with threadpool_limits(1, "blas"):
            made = AlternatingLeastSquares(
                factors=64,
                regularization=ridge,
                alpha=1.0 + option,
                iterations=15,
                random_state=seed,
                use_gpu=False,
            )
            made.fit(met, show_progress=False)
        return cls(np.asarray(made.item_factors, np.float32), option, ridge)

    def scores(self, users: np.ndarray, histories: Sequence[np.ndarray]) -> np.ndarray:
        """See `Recommender`."""
        gram = self.items.T @ self.items + self.ridge * np.eye(
            self.items.shape[1], dtype=np.float32
        )
        found = np.zeros((len(histories), self.items.shape[1]), np.float32)
        for row, history in enumerate(histories):
            own = self.items[np.unique(history)]
            left = gram + self.confidence * own.T @ own
            found[row] = np.linalg.solve(left, (1 + self.confidence) * own.sum(0))
        return found @ self.items.T

    def arrays(self) -> dict[str, np.ndarray]:
        """See `Recommender`."""
        return {
            "items": self.items,
            "confidence": np.array(self.confidence),
            "ridge": np.array(self.ridge),
        }


@dataclasses.dataclass(frozen=True)
class PairwiseFactors:
    """s(u, j) = ⟨x_u, y_j⟩ by Bayesian personalised ranking (Rendle et al. 2009; `implicit`).

    A user who was not there in training has the mean vector of the items of his history.
    """

    users: np.ndarray
    items: np.ndarray
    kind: ClassVar[str] = "bpr"
    options: ClassVar[tuple[float, ...]] = (0.01, 0.05)

    @classmethod
    def fit(cls, matrix: sparse.csr_matrix, *, option: float = 0.01, seed: int = 0) -> Self:
        """matrix: as of `Popularity`. option: the learning rate."""
        from implicit.bpr import BayesianPersonalizedRanking
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, "blas"):
            made = BayesianPersonalizedRanking(
                factors=63,  # and a bias
                learning_rate=option,
                regularization=0.01,
                iterations=100,
                random_state=seed,
                num_threads=1,  # with more, threads write into each other's vectors
                use_gpu=False,
            )
            made.fit(matrix.astype(bool).astype(np.float32).tocsr(), show_progress=False)
        return cls(
            np.asarray(made.user_factors, np.float32), np.asarray(made.item_factors, np.float32)
        )

    def scores(self, users: np.ndarray, histories: Sequence[np.ndarray]) -> np.ndarray:
        """See `Recommender`."""
        means = np.stack([self.items[history].mean(0) for history in histories])
        known = (users >= 0)[:, None]
        return np.where(known, self.users[np.maximum(users, 0)], means) @ self.items.T

    def arrays(self) -> dict[str, np.ndarray]:
        """See `Recommender`."""
        return {"users": self.users, "items": self.items}


KINDS = {one.kind: one for one in (Popularity, Repeat, ItemNeighbours, Factors, PairwiseFactors)}
"""All of them by name."""


def _strongest(matrix: sparse.csr_matrix, most: int) -> sparse.csr_matrix:
    """Of each row the `most` greatest entries, the first of equals."""
    keep = np.ones(matrix.nnz, bool)
    for row in np.flatnonzero(np.diff(matrix.indptr) > most):
        own = slice(matrix.indptr[row], matrix.indptr[row + 1])
        order = np.argsort(-matrix.data[own], kind="stable")
        keep[own][order[most:]] = False
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    entries = (matrix.data[keep], (rows[keep], matrix.indices[keep]))
    return sparse.csr_matrix(entries, shape=matrix.shape)


def save(recommender: Recommender, folder: Path) -> None:
    """Leaves KIND.npz and recommender.json in a folder."""
    with whole(folder / f"{recommender.kind}.npz") as temporary, temporary.open("wb") as file:
        arrays: dict[str, Any] = recommender.arrays()
        np.savez(file, **arrays)
    write_json(folder / "recommender.json", {"kind": recommender.kind})


def load(folder: Path) -> Recommender:
    """What `save` left; UserError where it cannot be read."""
    try:
        kind = read_json(folder / "recommender.json")["kind"]
        with np.load(folder / f"{kind}.npz") as stored:
            arrays = dict(stored)
        if kind == ItemNeighbours.kind:
            size = len(arrays["indptr"]) - 1
            entries = (arrays["data"], arrays["indices"], arrays["indptr"])
            matrix = sparse.csr_matrix(entries, shape=(size, size))
            return ItemNeighbours(matrix, float(arrays["decay"]))
        if kind == Factors.kind:
            return Factors(arrays["items"], float(arrays["confidence"]), float(arrays["ridge"]))
        made: Recommender = KINDS[kind](**arrays)
        return made
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{folder}: the recommender cannot be read ({reason}): copy the folder again"
        ) from None
