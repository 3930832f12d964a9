"""What a ranker must beat: baselines and rankers on features alone, by nested cross-validation.

    pip install -e '.[benchmark]'
    python benchmarks/nested.py --pretrained=BERT

nDCG@10 over all queries of the ESCI sample and of the Icecat pairs, which are in the folder that
$SIE_JAX_DATA names. A ranker that learns is fitted five times on four fifths of the queries and
tested on the fifth, so that every query is tested once; its settings are chosen by a further cross-
validation inside the four fifths, and features are standardised within the query. Each seed draws
the folds again. An interval is the percentile bootstrap over queries of the mean over seeds; the
spread of the seeds stands beside it. The same command resumes what was stopped. Leaves
benchmarks/results/nested.json.
"""

import argparse
import hashlib
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import lightgbm
import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from sie_jax.data import cleaning, features, folds, lexical, sentences
from sie_jax.data.features import Features, Pairs
from sie_jax.data.repairs import repair_catalogue
from sie_jax.data.schema import ATTRIBUTE, Source, normalise_query
from sie_jax.data.sources import esci
from sie_jax.data.sources import table as own_table
from sie_jax.evaluation import baselines, intervals, ranking
from sie_jax.files import read_json, whole, write_json
from sie_jax.models import linear

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "nested.json"
FOLDS, INNER, RESAMPLES = 5, 5, 2000
BASELINES = ("random", "token_overlap", "bm25", "checkpoint")
LEARNED = ("linear", "lambdamart")
# LambdaMART's settings to choose among inside; the number of trees is chosen beside them.
LEAVES, LEAST_PAIRS, TREES = (4, 8, 16), (20, 60), (25, 50, 100, 200)


@dataclass(frozen=True)
class Judged:
    """The pairs of a data set, with everything that ranking and testing them needs."""

    pairs: Pairs
    features: Features
    titles: lexical.FieldStatistics
    labels: np.ndarray
    gains: np.ndarray
    query: np.ndarray
    ties: np.ndarray

    def ndcg(self, scores: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """nDCG@10 of every query that has rows; NaN without a positive gain."""
        at = np.arange(len(self.labels)) if rows is None else np.flatnonzero(rows)
        distinct, query = np.unique(self.query[at], return_inverse=True)
        return ranking.per_query(
            scores,
            self.labels[at],
            self.gains,
            query,
            num_queries=len(distinct),
            example_ids=self.ties[at],
        )["ndcg@10"]

    def lists(self) -> linear.Lists:
        """What a listwise ranker learns from."""
        return linear.Lists(self.features.values, self.gains[self.labels], self.query)

    def digest(self) -> str:
        """Stands for the features, the labels and the queries."""
        arrays = (self.features.values, self.labels, self.query)
        content = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
        return hashlib.blake2b(content).hexdigest()[:12]


def sources(data: Path) -> dict[str, Callable[[], Source]]:
    """The data sets of the folder."""
    columns = {name: name for name in ("query", "title", "label")}
    columns |= {"item_id": "product_id", "text": "description"}
    return {
        "esci": lambda: esci.read(str(data / "esci")),
        "icecat": lambda: own_table.read(
            str(data / "icecat" / "pairs.csv"), columns=columns, attributes=("brand",)
        ),
    }


def judged(source: Source, cosine: Callable[[list[str], list[str]], np.ndarray]) -> Judged:
    """The cleaned pairs with their features; the corpus is the whole catalogue."""
    kept = cleaning.clean(
        source.table, source.scale, max_query_characters=1000, max_title_characters=10_000
    ).kept
    queries, titles, texts = (kept[name].to_pylist() for name in ("query", "title", "text"))
    catalogue = repair_catalogue(source.catalogue)
    if not catalogue.num_rows:
        items = dict(zip(kept["item_id"].to_pylist(), zip(titles, texts, strict=True), strict=True))
        columns = zip(*items.values(), strict=True)
        catalogue = pa.table(dict(zip(("title", "text"), map(list, columns), strict=True)))
    statistics = lexical.CorpusStatistics(
        title=lexical.count(catalogue["title"].to_pylist()),
        text=lexical.count(catalogue["text"].to_pylist()),
    )
    normal = [normalise_query(query) for query in queries]
    pairs = Pairs(
        queries,
        titles,
        texts,
        normal,
        attributes={
            name.removeprefix(ATTRIBUTE): kept[name].to_pylist()
            for name in kept.column_names
            if name.startswith(ATTRIBUTE)
        },
        numeric={"cosine": cosine(queries, titles)},
    )
    return Judged(
        pairs=pairs,
        features=features.standardised(pairs, statistics),
        titles=statistics.title,
        labels=kept["label"].to_numpy(),
        gains=np.array(source.scale.gains),
        query=np.unique(normal, return_inverse=True)[1],
        ties=ranking.tie_order(kept["example_id"].to_pylist()),
    )


def baseline(data: Judged, name: str, seed: int) -> np.ndarray:
    """The scores of a baseline; only chance depends on the seed."""
    pairs = data.pairs
    if name == "bm25":
        return baselines.bm25(pairs.queries, pairs.titles, data.titles)
    if name == "checkpoint":
        return baselines.current(pairs.numeric["cosine"])
    training: dict[str, Any] = {
        "training_labels": data.labels,  # they give classes, which nothing here reads
        "num_classes": len(data.gains),
    }
    if name == "random":
        ids = [str(place) for place in data.ties]
        return baselines.random(ids, seed=seed, **training).scores
    return baselines.token_overlap(
        pairs.queries,
        pairs.titles,
        training_queries=pairs.queries,
        training_titles=pairs.titles,
        **training,
    ).scores


def fit_linear(data: Judged, training: np.ndarray, inner: np.ndarray) -> tuple[np.ndarray, Any]:
    """The linear ranker's scores of all pairs, fitted on `training`, and what it chose."""
    lists = data.lists().rows(training)
    ridge, _ = linear.choose(lists, inner)
    weights = linear.fit(lists, ridge=ridge)
    return data.features.values @ weights, {"ridge": ridge, "weights": weights.round(4).tolist()}


def fit_lambdamart(data: Judged, training: np.ndarray, inner: np.ndarray) -> tuple[np.ndarray, Any]:
    """LightGBM's LambdaMART on the same features; size and number of trees chosen inside."""
    rows = np.flatnonzero(training)
    reached: dict[tuple[int, int, int], list[np.ndarray]] = {}
    for (leaves, least), fold in itertools.product(
        itertools.product(LEAVES, LEAST_PAIRS), range(INNER)
    ):
        held_out = rows[inner == fold]
        model = _boosted(data, rows[inner != fold], leaves, least, max(TREES))
        for trees in TREES:
            scores = model.predict(data.features.values[held_out], num_iteration=trees)
            mask = np.isin(np.arange(len(training)), held_out)
            reached.setdefault((leaves, least, trees), []).append(data.ndcg(scores, mask))
    means = {setting: np.nanmean(np.concatenate(each)) for setting, each in reached.items()}
    leaves, least, trees = max(means, key=lambda setting: means[setting])
    model = _boosted(data, rows, leaves, least, trees)
    chosen = {"leaves": leaves, "least_pairs": least, "trees": trees}
    return np.asarray(model.predict(data.features.values)), chosen


def _boosted(
    data: Judged, rows: np.ndarray, leaves: int, least: int, trees: int
) -> lightgbm.Booster:
    rows = rows[np.argsort(data.query[rows], kind="stable")]
    smallest = min(data.gains[data.gains > 0])
    training = lightgbm.Dataset(
        data.features.values[rows],
        data.labels[rows],
        group=np.unique(data.query[rows], return_counts=True)[1],
    )
    settings = {
        "objective": "lambdarank",
        "label_gain": (data.gains / smallest).tolist(),
        "lambdarank_truncation_level": 15,
        "learning_rate": 0.05,
        "num_leaves": leaves,
        "min_data_in_leaf": least,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "seed": 0,
        "verbose": -1,
    }
    return lightgbm.train(settings, training, num_boost_round=trees)


FITS = {"linear": fit_linear, "lambdamart": fit_lambdamart}


def out_of_fold(data: Judged, method: str, seed: int) -> tuple[np.ndarray, list[Any]]:
    """The score of every pair by a ranker that has not seen its query, and what each fold chose."""
    queries = np.asarray(data.pairs.query_ids)
    fold = folds.assign(queries.tolist(), folds=FOLDS, seed=seed)
    scores, chosen = np.empty(len(fold)), []
    for test in range(FOLDS):
        training = fold != test
        inner = folds.assign(queries[training].tolist(), folds=INNER, seed=seed)
        given, choice = FITS[method](data, training, inner)
        scores[~training] = given[~training]
        chosen.append(choice)
    return scores, chosen


def cell(data: Judged, method: str, seed: int, path: Path) -> dict[str, Any]:
    """nDCG@10 of every query for one method and seed, made once."""
    if not path.exists():
        chosen: list[Any] = []
        if method in BASELINES:
            scores = baseline(data, method, seed)
        else:
            scores, chosen = out_of_fold(data, method, seed)
        values = [None if np.isnan(value) else value for value in data.ndcg(scores).tolist()]
        write_json(path, {"ndcg@10": values, "chosen": chosen})
    return read_json(path)


def summary(data: Judged, cells: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Each method's value with its interval, and its difference to the best baseline."""
    values = {
        method: np.mean([np.array(one["ndcg@10"], np.float64) for one in seeds], axis=0)
        for method, seeds in cells.items()
    }
    there = [method for method in BASELINES if method in values]
    best = max(there, key=lambda method: np.nanmean(values[method]))
    result: dict[str, Any] = {
        "pairs": len(data.labels),
        "queries": int(np.isfinite(values[best]).sum()),
        "without_positive_gain": int(np.isnan(values[best]).sum()),
        "features": list(data.features.names),
        "best_baseline": best,
        "ndcg@10": {},
        "minus_best_baseline": {},
        "seeds": {},
        "chosen": {},
    }
    for method, each in values.items():
        options = {"resamples": RESAMPLES, "seed": 0}
        result["ndcg@10"][method] = intervals.of_mean(each, **options)
        if method != best:
            difference = intervals.of_mean(each - values[best], **options)
            result["minus_best_baseline"][method] = difference
        seeds = [np.nanmean(np.array(one["ndcg@10"], np.float64)) for one in cells[method]]
        if len(seeds) > 1:
            result["seeds"][method] = [round(float(value), 5) for value in seeds]
        if cells[method][0]["chosen"]:
            result["chosen"][method] = [one["chosen"] for one in cells[method]]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pretrained", type=Path, required=True)
    parser.add_argument("--workdir", type=Path, default=Path("runs/nested"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    encoder = sentences.load(arguments.pretrained)
    results: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "lightgbm": lightgbm.__version__,
        "pooling": encoder.pooling,
        "folds": FOLDS,
        "seeds": arguments.seeds,
        "resamples": RESAMPLES,
        "sets": {},
    }
    sets: dict[str, Judged] = {}
    cells: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name, read in sources(Path(os.environ["SIE_JAX_DATA"])).items():
        sets[name] = judged(read(), _cached(encoder, arguments.workdir / f"{name}-cosine.npy"))
        cells[name] = {}
    for method, (name, data) in itertools.product((*BASELINES, *LEARNED), sets.items()):
        seeds = arguments.seeds if method in ("random", *LEARNED) else 1
        stem = f"{name}-{method}-{{}}-{data.digest()}.json"
        cells[name][method] = [
            cell(data, method, seed, arguments.workdir / stem.format(seed)) for seed in range(seeds)
        ]
        print(name, method, flush=True)
        results["sets"][name] = summary(data, cells[name])
        write_json(arguments.out, results)
    for name, result in results["sets"].items():
        show(name, result)


def _cached(encoder: sentences.SentenceEncoder, path: Path) -> Callable[..., np.ndarray]:
    def cosine(queries: list[str], titles: list[str]) -> np.ndarray:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            values = sentences.cosine(encoder, queries, titles)
            with whole(path) as temporary, temporary.open("wb") as file:
                np.save(file, values)
        return np.load(path)

    return cosine


def show(name: str, result: dict[str, Any]) -> None:
    """Prints the table of one data set."""
    shown = Table(title=f"{name}: {result['queries']} queries, 95 % intervals over queries")
    for column in ("ranker", "nDCG@10", f"minus {result['best_baseline']}"):
        shown.add_column(column)
    for method, value in result["ndcg@10"].items():
        difference = result["minus_best_baseline"].get(method)
        shown.add_row(method, _text(value), _text(difference) if difference else "")
    Console().print(shown)


def _text(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


if __name__ == "__main__":
    main()
