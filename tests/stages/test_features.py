"""Features: the user's own columns of numbers among them, standardised within the query."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from tiny_runs import opened, tiny

from sie_jax.config import Config
from sie_jax.data.features import FEEDBACK, LEXICAL
from sie_jax.data.schema import SPLITS
from sie_jax.stages.features import features

OWN = ("price", "same", "none")
WORDS = (*LEXICAL, FEEDBACK)


def table(path: Path) -> Config:
    """Thirty queries of six items; every fifth price is missing, and the prices of one query."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = [
        {"query": f"lamp {n // 6}", "title": f"lamp no {n}", "label": n % 2, "same": 3}
        | {"price": "" if n % 5 == 0 or n < 6 else f"{rng.lognormal(3, 2):.3f}", "none": ""}
        for n in range(180)
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    config = tiny()
    config.data.source, config.data.path, config.data.features = "table", str(path), OWN
    return config


def test_own_columns_are_the_last_features_by_their_names(tmp_path: Path) -> None:
    config = table(tmp_path / "pairs.csv")
    with opened(config, tmp_path / "run") as (workdir, start):
        found = features(workdir, start.prepared, checkpoint="").value
        prepared = start.prepared.value
    assert found.names == (*WORDS, *OWN)
    with (tmp_path / "pairs.csv").open(newline="") as file:
        prices = {row["title"]: row["price"] for row in csv.DictReader(file)}
    missing = 0
    for split in SPLITS:
        pairs = prepared.split(split)
        x = np.array([float(prices[title] or "nan") for title in pairs["title"].to_pylist()])
        of = np.array(pairs["query_id"].to_pylist())
        expected = np.zeros(len(x))
        for query in set(of):
            known = (of == query) & ~np.isnan(x)
            if known.any():
                expected[known] = (x[known] - x[known].mean()) / x[known].std()
        np.testing.assert_allclose(found.column("price", split), expected, rtol=1e-5, atol=1e-6)
        for name in ("same", "none"):
            assert not found.column(name, split).any()
        missing += int(np.isnan(x).sum())
    assert prepared.counts["missing"] == {
        "numeric:price": missing,
        "numeric:same": 0,
        "numeric:none": 180,
    }


def test_own_columns_change_no_other_feature(tmp_path: Path) -> None:
    made = []
    columns: tuple[str, ...]
    for name, columns in (("plain", ()), ("own", OWN)):
        config = table(tmp_path / "pairs.csv")
        config.data.features = columns
        with opened(config, tmp_path / name) as (workdir, start):
            made.append(features(workdir, start.prepared, checkpoint="").value)
    plain, theirs = made
    assert plain.names == WORDS
    for split in SPLITS:
        np.testing.assert_array_equal(theirs.values[split][:, : len(WORDS)], plain.values[split])
