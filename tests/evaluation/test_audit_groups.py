import numpy as np
import pyarrow as pa
import pytest

from sie_jax.data.schema import ATTRIBUTE
from sie_jax.evaluation import audit_groups

NAMES = ("bad", "fair", "good")


@pytest.fixture
def labelled() -> tuple[pa.Table, np.ndarray, np.ndarray, np.ndarray]:
    """100 queries of 20 pairs: 20 labelled blindly; brand b3 is good whatever it sells."""
    rng = np.random.default_rng(4)
    query = np.repeat(np.arange(100), 20)
    p = rng.dirichlet(np.full(3, 0.2), size=2000)
    labels = (p.cumsum(-1) > rng.random((2000, 1))).argmax(-1)
    labels = np.where(query < 20, rng.integers(3, size=2000), labels)
    brand = rng.integers(10, size=2000)
    labels = np.where(brand == 3, 2, labels)
    brands = [f"b{one}" if place % 10 else "" for place, one in enumerate(brand.tolist())]
    table = pa.table({"query_id": query, ATTRIBUTE + "brand": brands})
    return table, p, labels, query


def test_blind_queries(labelled) -> None:
    _, p, labels, query = labelled
    found = audit_groups.blind_queries(p, labels, query)
    # some of its pairs agree by chance, and one in ten of the others is of the brand
    assert (found == (query < 20)).mean() > 0.95
    right = p.argmax(1)
    assert not audit_groups.blind_queries(p, right, query).any()


def test_values_unlike_all_others(labelled) -> None:
    table, _, labels, query = labelled
    (found,) = audit_groups.outlying_values(table, labels, query, NAMES)["brand"]
    brand = np.array(table[ATTRIBUTE + "brand"].to_pylist())
    inside = brand == "b3"
    assert found == {
        "value": "b3",
        "rows": int(inside.sum()),
        "label": "good",
        "share": 1.0,
        "others": pytest.approx((labels[~inside] == 2).mean()),
    }
    assert audit_groups.outlying_values(table.select(["query_id"]), labels, query, NAMES) == {}
    honest = np.where(inside, np.arange(2000) % 3, labels)
    assert audit_groups.outlying_values(table, honest, query, NAMES) == {}


def test_what_is_said() -> None:
    assert audit_groups.notes(0, 100, {}) == []
    far = {"value": "X", "rows": 200, "label": "good", "share": 1.0, "others": 0.25}
    blind, one = audit_groups.notes(2, 1000, {"brand": [far]})
    assert blind.startswith("the labels of 2 of 1,000 queries look as if")
    assert one == (
        "1 value of brand has labels unlike all others, most of all “X”: 100 % of its 200 rows are "
        "good, of other rows 25 %"
    )
    (two,) = audit_groups.notes(0, 1000, {"brand": [far, far]})
    assert two.startswith("2 values of brand have labels")
