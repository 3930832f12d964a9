from pathlib import Path

import numpy as np
import pytest

from sie_jax.errors import UserError
from sie_jax.retrieval.index import EXACT, HNSW, IVF, IndexConfig, VectorIndex, found_share

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(500, 16)).astype(np.float32)
QUERIES = RNG.normal(size=(20, 16)).astype(np.float32)
BEST = np.argsort(-(QUERIES @ VECTORS.T), axis=1)[:, :10]
MADE_OF = {"model": "m1", "catalogue": "c1"}


@pytest.mark.parametrize("kind", [EXACT, HNSW, IVF])
def test_finds_the_highest_inner_products(kind: str, tmp_path: Path) -> None:
    built = VectorIndex.build(VECTORS, IndexConfig(kind=kind, size=16, effort=32), MADE_OF)
    places, scores = built.search(QUERIES, 10)
    # an approximate search that looks at so much of 500 vectors finds nearly all
    assert found_share(places, BEST) >= (1.0 if kind == EXACT else 0.9)
    rows = np.arange(20)[:, None]
    assert np.allclose(scores, (QUERIES @ VECTORS.T)[rows, places], atol=1e-4)
    built.save(tmp_path)
    again = VectorIndex.load(tmp_path, MADE_OF)
    assert np.array_equal(again.search(QUERIES, 10)[0], places)


def test_little_effort_finds_less() -> None:
    little = VectorIndex.build(VECTORS, IndexConfig(kind=IVF, size=16, effort=1), MADE_OF)
    assert found_share(little.search(QUERIES, 10)[0], BEST) < 0.9


def test_an_index_of_another_model_or_catalogue_is_refused(tmp_path: Path) -> None:
    VectorIndex.build(VECTORS, IndexConfig(), MADE_OF).save(tmp_path)
    with pytest.raises(UserError, match="made of another model"):
        VectorIndex.load(tmp_path, {**MADE_OF, "model": "m2"})
    with pytest.raises(UserError, match="made of another catalogue"):
        VectorIndex.load(tmp_path, {**MADE_OF, "catalogue": "c2"})
    (tmp_path / "index.faiss").write_bytes(b"torn")
    with pytest.raises(UserError, match="the index cannot be read"):
        VectorIndex.load(tmp_path, MADE_OF)


def test_what_cannot_be_searched_is_told() -> None:
    with pytest.raises(UserError, match="the catalogue is empty"):
        VectorIndex.build(VECTORS[:0], IndexConfig(), MADE_OF)
    broken = VECTORS.copy()
    broken[3, 2] = np.nan
    with pytest.raises(UserError, match="vector of item 3 is not finite"):
        VectorIndex.build(broken, IndexConfig(), MADE_OF)
    with pytest.raises(UserError, match="501 items are asked for, and the catalogue has 500"):
        VectorIndex.build(VECTORS, IndexConfig(), MADE_OF).search(QUERIES, 501)
    with pytest.raises(UserError, match=r"index.kind is 'tree'"):
        IndexConfig(kind="tree").check()
