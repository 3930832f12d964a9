"""What finds more in a whole catalogue: words, a checkpoint's vectors, tuned ones, or both?

    python benchmarks/retrieving.py --set=shop --out=benchmarks/results/retrieving_shop.json
    python benchmarks/retrieving.py --set=clicked --out=benchmarks/results/retrieving_clicked.json
    python benchmarks/retrieving.py --set=esci --pretrained=BERT \\
        --out=benchmarks/results/retrieving_esci.json

shop is `configs/retrieval.py`, towers from random weights, and towers trained further by items that
were found and not judged. clicked is the same shop of which training has only the items of the
highest grade, as a team has them that keeps what was clicked and nothing else: there the judged
lists teach no hard negatives. esci is the products of the ESCI sample in the folder that
$SIE_JAX_DATA names as the catalogue, its judged pairs as the truth, and BERT a
sentence-transformers folder, as it is and tuned on the training queries. Runs the recipe in
WORKDIR/SET, one seed: what was stopped resumes.

On the generated shop it is known what every item is to every query. The lists of clicked, whose
config cannot know it, are measured by that truth here.
"""

import argparse
import os
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from interleaved import machine
from same_results import commit_of

from sie_jax.config import RetrievalConfig
from sie_jax.data.sources.market import generate
from sie_jax.data.sources.market.needs import EXACT, SUBSTITUTE, judge
from sie_jax.evaluation import claims, retrieval
from sie_jax.evaluation.retrieval import NOTHING, Wanted
from sie_jax.files import read_json, write_json
from sie_jax.recipes import retrieval as recipe

ROOT = Path(__file__).parent.parent
KINDS = ("raw", "denoised", "weighted")
REFERENCES = ("words", "longer", "raw")


def config_of(name: str, pretrained: str, workdir: Path) -> RetrievalConfig:
    """The recipe's config for a set."""
    made: RetrievalConfig = runpy.run_path(str(ROOT / "configs" / "retrieval.py"))["get_config"]()
    made.name = name
    if name == "esci":
        made.data.source = "esci"
        made.data.path = str(Path(os.environ["SIE_JAX_DATA"]) / "esci")
        made.data.max_length = 48
        made.model.pretrained = pretrained
        made.model.dropout = 0.1
        made.train.batch_size, made.train.epochs = 64, 1
        made.train.learning_rate = 1e-5
        return made
    made.negatives.kinds, made.negatives.depth, made.negatives.epochs = KINDS, 10, 3
    if name == "clicked":
        data = made.data
        data.path, data.items.path = _clicked(made, workdir)
        data.source, data.columns.split = "table", "split"
        data.columns.query_id, data.columns.item_id = "query_id", "item_id"
        data.table.labels = ("I", "C", "S", "E")
        data.items.columns.item_id, data.items.columns.title = "item_id", "title"
    return made


def _clicked(config: RetrievalConfig, workdir: Path) -> tuple[str, str]:
    """The shop's pairs without the training pairs below the highest grade, and its catalogue."""
    workdir.mkdir(parents=True, exist_ok=True)
    pairs, items = workdir / "pairs.parquet", workdir / "items.parquet"
    source = generate(config.data.market).source
    table = source.table
    kept = pc.or_(pc.not_equal(table["split"], "train"), pc.equal(table["label"], "E"))
    names = ["query_id", "query", "item_id", "title", "label", "split"]
    for path, one in ((pairs, table.filter(kept).select(names)), (items, source.catalogue)):
        if not path.exists():
            pq.write_table(one, path)
    return str(pairs), str(items)


def measured(workdir: Path, config: RetrievalConfig) -> dict[str, Any]:
    """The lists of a run by what is known of the shop: `test`, and `difference` of REFERENCES."""
    market = generate(config.data.market)
    table = market.source.table
    number = dict(zip(table["query"].to_pylist(), table["query_id"].to_pylist(), strict=True))
    lists = pq.read_table(workdir / "retrieved.parquet").to_pydict()
    assert market.source.complete is not None
    truth: dict[str, list[int]] = {}
    for row in market.source.complete().to_pylist():
        if row["label"] == "E":
            truth.setdefault(row["query_id"], []).append(int(row["item_id"][1:]))
    queries = lists.pop("query")
    wants = [truth.get(number[query], []) for query in queries]
    wanted = Wanted(
        np.repeat(np.arange(len(wants)), [len(one) for one in wants]),
        np.array([item for one in wants for item in one], np.int64),
    )
    values = {}
    for way, found in lists.items():
        own = np.full((len(queries), max(config.depths)), NOTHING)
        for row, ids in enumerate(found):
            own[row, : len(ids)] = [int(one[1:]) for one in ids]
        values[way] = retrieval.per_query(own, wanted, depths=config.depths)
    return {
        "complete": True,
        "test": {
            way: {metric: claims.fixed(one) for metric, one in metrics.items()}
            for way, metrics in values.items()
        },
        "further": against(values),
    }


def mined(workdir: Path, config: RetrievalConfig) -> dict[str, Any]:
    """Of each kind how many items were mined in its first round, and what they truly are."""
    market = generate(config.data.market)
    found = {}
    for kind in config.negatives.kinds:
        folder = workdir / "mined" / f"{kind}_1" / "data"
        rows = pq.read_table(folder / "pairs.parquet", columns=["example_id", "query", "item_id"])
        own = rows.filter(pc.starts_with(rows["example_id"], "mined:")).to_pylist()
        number = {query: place for place, query in enumerate(market.texts)}
        grades = [
            int(
                judge(
                    market.catalogue,
                    market.truth.needs[number[row["query"]]],
                    np.array([int(row["item_id"][1:])]),
                )[0][0]
            )
            for row in own
        ]
        found[kind] = {
            "items": len(own),
            "wanted": float(np.mean(np.array(grades) == EXACT)),
            "substitutes": float(np.mean(np.array(grades) == SUBSTITUTE)),
        }
    return found


def against(values: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    """Every way less each of REFERENCES, over queries: fixed rankers."""
    return {
        reference: {
            way: {
                metric: claims.fixed(one - values[reference][metric])
                for metric, one in metrics.items()
            }
            for way, metrics in values.items()
            if way != reference
        }
        for reference in REFERENCES
        if reference in values
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--set", choices=("shop", "clicked", "esci"), required=True)
    parser.add_argument("--pretrained", default="")
    parser.add_argument("--workdir", type=Path, default=Path("runs/retrieving"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    workdir = given.workdir / given.set
    config = config_of(given.set, given.pretrained, given.workdir / f"{given.set}_data")
    recipe.run(config, workdir)
    metrics = read_json(workdir / "metrics.json")
    kept = ("queries", "catalogue", "test", "difference", "unjudged", "weights", "index", "verdict")
    found = {name: metrics[name] for name in (*kept, "complete", "cost")}
    if given.set != "esci":
        found |= measured(workdir, config) | {"mined": mined(workdir, config)}
    write_json(given.out, {**machine(), "commit": commit_of("HEAD"), "set": given.set, **found})


if __name__ == "__main__":
    main()
