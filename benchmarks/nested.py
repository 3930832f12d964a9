"""What a ranker must beat: baselines, rankers on features and a cross-encoder, nested by queries.

    pip install -e '.[benchmark]'
    python benchmarks/nested.py --pretrained=BERT
    python benchmarks/nested.py --pretrained=BERT --recipes \\
        --out=benchmarks/results/nested_features.json
    python benchmarks/nested.py --pretrained=BERT --recipes towers_of_text --sets icecat \\
        --encoder_seeds 3 --rankers random token_overlap bm25 checkpoint checkpoint_text linear \\
        lambdamart trees blend towers_of_text 'sum with towers_of_text' \\
        --out=benchmarks/results/nested_encoders.json
    python benchmarks/nested.py --pretrained=BERT --recipes regression_with_features --sets esci \\
        --rankers random token_overlap bm25 checkpoint checkpoint_text linear lambdamart trees \\
        blend regression_with_features 'sum with regression_with_features' \\
        --out=benchmarks/results/nested_head.json

nDCG@10 over all queries of the ESCI sample and of the Icecat pairs, which are in the folder that
$SIE_JAX_DATA names. A ranker that learns is fitted five times on four fifths of the queries and
tested on the fifth, so that every query is tested once; its settings are chosen by a further cross-
validation inside the four fifths, and features are standardised within the query. What a stack
knows of a cross-encoder are scores by models that never saw the pair's query (nested_encoder.py).
`unseen` are the queries of the official test split, where there is one: what is in the features was
not chosen on them.
Rankers `of_pairs` have the features of a pair's words and its titles' cosine alone: not `feedback`,
which compares the items of a list, nor the cosine of further text.
Whether a ranker differs from the best baseline is tested for all rankers that learn and all LOOKS
together (Holm). Each seed draws the folds again; encoders have one, or as many as --encoder_seeds
says. --recipes names how encoders are trained, each tested alone and in a stack; none leaves
encoders out. Their scores are in results/nested_scores, with the commit that trained them. The
interval of a value is the percentile bootstrap over queries of the mean over seeds. That of a
difference is one of `evaluation.claims`: over queries and seeds where there are several seeds, and
over queries where there is one: it then says nothing of the chance of training and of the folds.
`sum with` a recipe adds the encoder's scores to those of `linear` and `trees`, standardised within
the query: it needs one model for each fold where a stack needs three. So with --rankers, which
names what is measured, several seeds of it are as dear as one of a stack.
The same command resumes what was stopped. Leaves benchmarks/results/nested.json.
"""

import argparse
import functools
import hashlib
import inspect
import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import lightgbm
import nested_rankers
import numpy as np
import pyarrow as pa
from interleaved import machine
from nested_encoder import Models, models_of
from nested_rankers import (
    BASELINES,
    FIRST,
    INNER,
    Judged,
    Ranker,
    baseline,
    out_of_fold,
    rankers_of,
)
from rich.console import Console
from rich.table import Table
from same_results import commit_of

from sie_jax.data import cleaning, features, lexical, sentences
from sie_jax.data.features import Pairs
from sie_jax.data.repairs import repair_catalogue
from sie_jax.data.schema import ATTRIBUTE, Source, normalise_query
from sie_jax.data.sources import esci
from sie_jax.data.sources import table as own_table
from sie_jax.evaluation import baselines, claims, intervals
from sie_jax.evaluation.slices import holm
from sie_jax.files import read_json, whole, write_json
from sie_jax.models import linear, trees
from sie_jax.training.section import TrainConfig

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "nested.json"
FOLDS, RESAMPLES = 5, 2000
MAX_LENGTH = 64
TRAIN = TrainConfig(batch_size=16, learning_rate=3e-5, epochs=2, checkpoint_every=250)


class Recipe(NamedTuple):
    """How encoders are trained.

    item_text: whether they read an item's further text too. features: whether the head takes the
    features of the pair.
    """

    train: TrainConfig
    item_text: bool = False
    features: bool = False


TOWERS = replace(
    TRAIN,
    task="contrastive",
    batch_size=32,
    learning_rate=2e-5,
    select=("epochs", "averages", "interpolations"),
)
RECIPES = {
    FIRST: Recipe(TRAIN),
    "listwise": Recipe(replace(TRAIN, task="listwise")),
    "towers": Recipe(TOWERS),
    "towers_of_text": Recipe(replace(TOWERS, epochs=1), item_text=True),
    "regression_with_features": Recipe(
        replace(TRAIN, task="regression", learning_rate=5e-5, select=TOWERS.select), features=True
    ),
}
"""By name; the first is the cross-entropy of grades."""
SEEDLESS = tuple(name for name in BASELINES if name != "random")
LOOKS = {"esci": 17}
"""How many versions of the rankers were tried on all queries of a data set, those among them that
were to confirm the choice: on the ESCI sample five that result files had, eleven sets of features,
and features in the head of a cross-encoder."""
REFERENCES = ("linear", "lambdamart", "linear_of_pairs")
"""What every ranker is compared with beside the best baseline."""


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


Cosines = Callable[[list[str], list[str], list[str]], Mapping[str, np.ndarray]]
"""Of the queries, titles and texts of pairs the features that a checkpoint gives, by name."""


def judged(source: Source, cosines: Cosines) -> Judged:
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
        numeric=cosines(queries, titles, texts),
    )
    return Judged(
        table=kept,
        scale=source.scale,
        pairs=pairs,
        features=features.standardised(pairs, statistics),
        titles=statistics.title,
        query=np.unique(normal, return_inverse=True)[1],
    )


class Place(NamedTuple):
    """Where a cell is: the folder of all cells, the name of the data set, the seed."""

    folder: Path
    name: str
    seed: int


def cell(
    data: Judged, method: str, ranker: Ranker | None, models: Mapping[str, Models], place: Place
) -> dict[str, Any]:
    """nDCG@10 of every query for one method and seed, made once.

    ranker: None for a baseline. models: by recipe, those that the ranker needs.
    """
    digest = "-".join((data.digest(), _code(), *(each.digest() for each in models.values())))
    slug = method.replace(" ", "_")
    path = place.folder / f"{place.name}-{slug}-{place.seed}-{digest}.json"
    if not path.exists():
        chosen: list[Any] = []
        if ranker is None:
            scores = baseline(data, method, place.seed)
        else:
            scores, chosen = out_of_fold(data, ranker, models, number=FOLDS, seed=place.seed)
        values = [None if np.isnan(value) else value for value in data.ndcg(scores).tolist()]
        write_json(path, {"ndcg@10": values, "chosen": chosen})
    return read_json(path)


@functools.cache
def _code() -> str:
    """Stands for the code of the rankers: a cell of other code is made again."""
    modules = (nested_rankers, linear, trees, baselines, lexical)
    return hashlib.blake2b("".join(map(inspect.getsource, modules)).encode()).hexdigest()[:8]


def summary(data: Judged, cells: dict[str, list[dict[str, Any]]], *, looks: int) -> dict[str, Any]:
    """Each method's value with its interval, and its differences to what it must beat.

    looks: how many families of the same size the p values are corrected for.
    """
    rows = {
        method: np.array([one["ndcg@10"] for one in seeds], np.float64)
        for method, seeds in cells.items()
    }
    best = max((one for one in BASELINES if one in rows), key=lambda one: np.nanmean(rows[one]))
    result: dict[str, Any] = {
        "pairs": len(data.labels),
        "queries": int(np.isfinite(rows[best][0]).sum()),
        "without_positive_gain": int(np.isnan(rows[best][0]).sum()),
        "features": list(data.features.names),
        "best_baseline": best,
        "ndcg@10": {
            method: intervals.of_mean(each.mean(0), resamples=RESAMPLES, seed=0)
            for method, each in rows.items()
        },
        "minus_best_baseline": _differences(rows, best),
        "holm_of_minus_best_baseline": _holm(rows, best, looks),
        "looks": looks,
        **{f"minus_{one}": _differences(rows, one) for one in REFERENCES if one in rows},
        "unseen_minus_linear_of_pairs": _differences(
            {method: each[:, data.unseen] for method, each in rows.items()}, "linear_of_pairs"
        )
        if data.unseen.any() and "linear_of_pairs" in rows
        else {},
        "unseen": int(data.unseen.sum()),
        "seeds": {
            method: [round(float(value), 5) for value in np.nanmean(each, axis=1)]
            for method, each in rows.items()
        },
        "chosen": {
            method: [one["chosen"] for one in seeds]
            for method, seeds in cells.items()
            if seeds[0]["chosen"]
        },
    }
    return result


def _differences(rows: dict[str, np.ndarray], reference: str) -> dict[str, dict[str, Any]]:
    """Each method less the reference: the claim on procedures, or on fixed rankers of one seed.

    Methods are compared on the seeds that both have, except that a baseline has all of them.
    """
    found = {}
    for method in rows:
        if method != reference:
            differences = _paired(rows, method, reference)
            found[method] = {**_claim(differences, claims.LEVEL), "seeds": len(differences)}
    return found


def _holm(rows: dict[str, np.ndarray], reference: str, looks: int) -> dict[str, float]:
    """The adjusted p value of each ranker that learns less the reference."""
    learnt = [method for method in rows if method not in BASELINES]
    p = [
        claims.p_value(functools.partial(_claim, _paired(rows, method, reference)))
        for method in learnt
    ]
    adjusted = holm(p * looks)[: len(p)]
    return dict(zip(learnt, map(float, adjusted), strict=True))


def _paired(rows: dict[str, np.ndarray], method: str, reference: str) -> np.ndarray:
    drawn = [len(rows[one]) for one in (method, reference) if one not in SEEDLESS]
    seeds = min(drawn, default=1)
    run, other = (
        np.broadcast_to(rows[one][:seeds], (seeds, rows[one].shape[1]))
        for one in (method, reference)
    )
    return run - other


def _claim(differences: np.ndarray, level: float) -> dict[str, float | None]:
    if len(differences) > 1:
        return claims.procedure(differences, level=level)
    return claims.fixed(differences[0], level=level)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pretrained", type=Path, required=True)
    parser.add_argument("--workdir", type=Path, default=Path("runs/nested"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--encoder_seeds", type=int, default=1)
    parser.add_argument("--recipes", nargs="*", default=[FIRST], choices=RECIPES)
    parser.add_argument("--rankers", nargs="*", help="names, baselines too; all by default")
    parser.add_argument("--sets", nargs="*", default=["esci", "icecat"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    encoder = sentences.load(arguments.pretrained)
    results: dict[str, Any] = {
        **machine(),
        "commit": commit_of("HEAD"),
        "lightgbm": lightgbm.__version__,
        "pooling": encoder.towers.pooling,
        "folds": FOLDS,
        "inner_folds": INNER,
        "resamples": RESAMPLES,
        "recipes": {
            name: {
                **asdict(RECIPES[name].train.schedule()),
                "max_length": MAX_LENGTH,
                "item_text": RECIPES[name].item_text,
                "features": RECIPES[name].features,
            }
            for name in arguments.recipes
        },
        "sets": {},
    }
    sets: dict[str, Judged] = {}
    cells: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name, read in sources(Path(os.environ["SIE_JAX_DATA"])).items():
        if name not in arguments.sets:
            continue
        sets[name] = judged(read(), _cached(encoder, arguments.workdir / f"{name}-cosines.npz"))
        cells[name] = {}
    rankers: dict[str, tuple[Ranker | None, tuple[str, ...]]] = dict.fromkeys(BASELINES, (None, ()))
    rankers |= rankers_of(arguments.recipes)
    rankers = {name: rankers[name] for name in arguments.rankers or rankers}
    for (method, (ranker, recipes)), (name, data) in itertools.product(
        rankers.items(), sets.items()
    ):
        seeds = 1 if method in SEEDLESS else arguments.seeds
        cells[name][method] = [
            cell(
                data,
                method,
                ranker,
                {recipe: models(name, data, arguments, recipe, seed) for recipe in recipes},
                Place(arguments.workdir, name, seed),
            )
            for seed in range(arguments.encoder_seeds if recipes else seeds)
        ]
        print(name, method, flush=True)
        results["sets"][name] = summary(data, cells[name], looks=LOOKS.get(name, 1))
        write_json(arguments.out, results)
    for name, result in results["sets"].items():
        show(name, result)


def models(
    name: str, data: Judged, arguments: argparse.Namespace, recipe: str, seed: int
) -> Models:
    """The models of a recipe and a data set for the folds of a seed."""
    folder = "encoder" if recipe == FIRST else recipe
    return models_of(
        data.table,
        data.scale,
        arguments.workdir / f"{name}-{folder}",
        pretrained=arguments.pretrained,
        item_text=RECIPES[recipe].item_text,
        features=data.features if RECIPES[recipe].features else None,
        max_length=MAX_LENGTH,
        train=replace(RECIPES[recipe].train, seed=seed),
        number=FOLDS,
        kept=RESULTS.parent / "nested_scores" / f"{name}-{recipe}-{seed}.npz",
    )


def _cached(encoder: sentences.SentenceEncoder, path: Path) -> Cosines:
    def cosines(
        queries: list[str], titles: list[str], texts: list[str]
    ) -> Mapping[str, np.ndarray]:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            values: Any = sentences.features(encoder, queries, titles, texts)
            with whole(path) as temporary, temporary.open("wb") as file:
                np.savez(file, **values)
        with np.load(path) as arrays:
            return dict(arrays)

    return cosines


def show(name: str, result: dict[str, Any]) -> None:
    """Prints the table of one data set."""
    shown = Table(title=f"{name}: {result['queries']} queries, 95 % intervals")
    others = {"best_baseline": result["best_baseline"]}
    others |= {one: one for one in REFERENCES if f"minus_{one}" in result}
    for column in ("ranker", "nDCG@10", *(f"minus {one}" for one in others.values())):
        shown.add_column(column)
    for method, value in result["ndcg@10"].items():
        differences = [result[f"minus_{one}"].get(method) for one in others]
        shown.add_row(method, _text(value), *(_text(one) if one else "" for one in differences))
    Console().print(shown)


def _text(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


if __name__ == "__main__":
    main()
