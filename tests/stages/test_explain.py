"""Explain: what pushed the worst test predictions."""

from pathlib import Path

import pyarrow.parquet as pq
from tiny_runs import tiny

from sie_jax.data import preparing
from sie_jax.passes import explain


def test_the_worst_queries_are_explained(finished: Path) -> None:
    table, prepared = pq.read_table(finished / "explanations.parquet"), preparing.load(finished)
    assert table.schema.equals(explain.SCHEMA)
    test = prepared.split("test")
    query = dict(zip(test["example_id"].to_pylist(), test["query_id"].to_pylist(), strict=True))
    explained = set(table["example_id"].to_pylist())
    assert 0 < len(explained) <= tiny().evaluation.explained_queries
    assert len({query[one] for one in explained}) == len(explained), "a pair of each query"
    for push in table.to_pylist():
        assert push["direction"] == ("for" if push["influence"] > 0 else "against")
        assert 0 <= push["row"] < prepared.split("train").num_rows
    assert '<section id="explanations">' in (finished / "report.html").read_text(encoding="utf-8")


def test_where_no_query_is_to_be_explained_nothing_is(folded: Path) -> None:
    assert not (folded / "explanations.parquet").exists()
    assert not (folded / "stages" / "explain.json").exists()
    page = (folded / "report.html").read_text(encoding="utf-8")
    assert '<section id="explanations">' not in page
