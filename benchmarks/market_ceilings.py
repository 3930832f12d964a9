"""What can be learnt on the generated market: nDCG@10 from chance to the perfect matcher.

    python benchmarks/market_ceilings.py

For each seed a market with clean labels: 1,500 training, 200 validation and 1,000 test queries. No
setting of a ranker is chosen on the test queries. Leaves benchmarks/results/market_ceilings.json.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from market_rankers import LEXICAL, Pairs, embedding, lexical, linear, translation
from rich.console import Console
from rich.table import Table

from sie_jax.data.sources.market import Market, MarketConfig, generate
from sie_jax.evaluation import baselines, ranking
from sie_jax.files import write_json

ROOT = Path(__file__).parent.parent
TRAINING, VALIDATION, TEST = 1500, 200, 1000
SEEDS = (101, 102)


def pairs_of(market: Market) -> Pairs:
    """The market as arrays."""
    table = market.source.table
    return Pairs(
        query=market.truth.query,
        grade=market.truth.grade,
        gain=np.array(market.source.scale.gains)[market.truth.grade],
        split=np.array(table["split"].to_pylist()),
        queries=table["query"].to_pylist(),
        titles=table["title"].to_pylist(),
        texts=table["text"].to_pylist(),
        brands=table["attribute:brand"].to_pylist(),
        item=market.truth.item,
        catalogue_titles=list(market.titles),
        catalogue_texts=market.source.catalogue["text"].to_pylist(),
    )


def lambdamart(pairs: Pairs, features: np.ndarray) -> np.ndarray:
    """LightGBM's LambdaMART with the gains of the scale, stopped on the validation queries."""

    def part(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = np.flatnonzero(pairs.split == name)
        return (
            features[rows],
            pairs.grade[rows],
            np.unique(pairs.query[rows], return_counts=True)[1],
        )

    x, y, groups = part("train")
    vx, vy, validation_groups = part("validation")
    model = lightgbm.LGBMRanker(
        n_estimators=400,
        learning_rate=0.05,
        num_leaves=15,
        min_child_samples=40,
        label_gain=[0, 0.01, 0.1, 1],
        random_state=0,
        n_jobs=1,
        deterministic=True,
        verbose=-1,
    )
    model.fit(
        x,
        y,
        group=groups,
        eval_X=(vx,),
        eval_y=(vy,),
        eval_group=[validation_groups],
        eval_at=[10],
        callbacks=[lightgbm.early_stopping(40, verbose=False)],
    )
    return np.asarray(model.predict(features))


def ceilings(seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """nDCG@10 on the test queries of each ranker: mean, standard error, and minus `linear`."""
    total = TRAINING + VALIDATION + TEST
    market = generate(
        MarketConfig(queries=total, seed=seed, **settings),
        validation=VALIDATION / total,
        test=TEST / total,
    )
    pairs = pairs_of(market)
    words = lexical(pairs)
    translated = np.concatenate([words, translation(pairs)], axis=1)
    rankers: dict[str, Callable[[], np.ndarray]] = {
        "random": lambda: (
            baselines.random(
                [str(row) for row in range(len(words))],
                training_labels=pairs.grade[pairs.split == "train"],
                num_classes=4,
                seed=seed,
            ).scores
        ),
        "token_overlap": lambda: words[:, LEXICAL.index("overlap")],
        "bm25": lambda: words[:, LEXICAL.index("bm25_title")],
        "linear": lambda: linear(pairs, words),
        "lambdamart": lambda: lambdamart(pairs, words),
        "linear_translation": lambda: linear(pairs, translated),
        "lambdamart_translation": lambda: lambdamart(pairs, translated),
        "embedding": lambda: embedding(pairs, words),
        "embedding_translation": lambda: embedding(pairs, translated),
        "perfect": lambda: market.truth.score,
    }
    tested = pairs.split == "test"
    query = np.unique(pairs.query[tested], return_inverse=True)[1]
    values, seconds = {}, {}
    for name, rank in rankers.items():
        started = time.process_time()
        scores = rank()[tested]
        seconds[name] = round(time.process_time() - started, 1)
        values[name] = ranking.per_query(
            scores,
            pairs.grade[tested],
            gains=market.source.scale.gains,
            query_index=query,
            num_queries=TEST,
            example_ids=np.flatnonzero(tested),
        )["ndcg@10"]
    found: dict[str, Any] = {"seed": seed, "rankers": {}}
    for name, each in values.items():
        above = each - values["linear"]
        found["rankers"][name] = {
            "ndcg@10": round(float(each.mean()), 4),
            "standard_error": round(float(each.std(ddof=1) / np.sqrt(TEST)), 4),
            "minus_linear": round(float(above.mean()), 4),
            "minus_linear_standard_error": round(float(above.std(ddof=1) / np.sqrt(TEST)), 4),
            "cpu_seconds": seconds[name],
        }
    shares = np.bincount(pairs.grade, minlength=4) / len(pairs.grade)
    names = market.source.scale.names
    found["shares"] = dict(zip(names, shares.round(4).tolist(), strict=True))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--settings", type=json.loads, default={}, help="MarketConfig, as JSON")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "market_ceilings.json"
    )
    arguments = parser.parse_args()
    found = [ceilings(seed, arguments.settings) for seed in arguments.seeds]
    write_json(
        arguments.out,
        {
            "device": "1 × cpu",
            "queries": {"training": TRAINING, "validation": VALIDATION, "test": TEST},
            "settings": arguments.settings,
            "seeds": found,
        },
    )
    shown = Table(title=f"nDCG@10 on {TEST} test queries, ± standard error over queries")
    for column in ("ranker", *(f"seed {one['seed']}" for one in found), "minus linear"):
        shown.add_column(column)
    for name in found[0]["rankers"]:
        results = [one["rankers"][name] for one in found]
        cells = [f"{one['ndcg@10']:.3f} ± {one['standard_error']:.3f}" for one in results]
        shown.add_row(name, *cells, ", ".join(f"{one['minus_linear']:+.3f}" for one in results))
    Console().print(shown)


if __name__ == "__main__":
    main()
