"""What is a chain worth: find, rank, re-rank, diversify, against re-ranking everything?

    python benchmarks/chaining.py --set=shop --out=benchmarks/results/chaining_shop.json
    python benchmarks/chaining.py --set=esci --pretrained=BERT \\
        --out=benchmarks/results/chaining_esci.json

shop is `configs/chain.py`. esci is the products of the ESCI sample in the folder that $SIE_JAX_DATA
names, and BERT a sentence-transformers folder. Runs the recipe in WORKDIR/SET, one seed: what was
stopped resumes. Then a ranker of the same kind and features, fitted on the whole catalogue for the
same validation queries, ranks all of it for each of the first QUERIES test queries: what finding
first loses, and what it saves. No cross-encoder reads a whole catalogue.
"""

import argparse
import dataclasses
import os
import runpy
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from interleaved import machine
from same_results import commit_of

from sie_jax.config import ChainConfig
from sie_jax.data import preparing
from sie_jax.data.folds import assign
from sie_jax.data.preparing import Prepared
from sie_jax.evaluation import claims, retrieval
from sie_jax.files import read_json, write_json
from sie_jax.recipes import chain as recipe
from sie_jax.retrieval.candidates import ListRanker, fitted
from sie_jax.serving.finding import FOUND, Chain, Plan
from sie_jax.stages.asked import asked_of
from sie_jax.stages.assemble import FOLDS

ROOT = Path(__file__).parent.parent
DEPTH, METRIC = 10, "ndcg@10"


def config_of(name: str, pretrained: str) -> ChainConfig:
    """The recipe's config for a set."""
    made: ChainConfig = runpy.run_path(str(ROOT / "configs" / "chain.py"))["get_config"]()
    made.name = name
    if name == "esci":
        made.data.source = "esci"
        made.data.path = str(Path(os.environ["SIE_JAX_DATA"]) / "esci")
        made.data.max_length, made.data.validation = 48, 0.3
        made.model.pretrained, made.model.dropout = pretrained, 0.1
        made.train.epochs, made.train.learning_rate = 1, 1e-5
        made.cross.task, made.cross.epochs, made.cross.learning_rate = "regression", 1, 3e-5
        made.cross.batch_size = 16
    return made


def of_everything(chain: Chain, pairs: Prepared) -> ListRanker:
    """The chain's ranker, fitted on whole catalogues."""
    assert chain.ranker is not None
    asked = asked_of(pairs, "validation", list(chain.ids))
    found = chain.find(asked.queries, len(chain.ids))
    described = chain.describe(asked.queries, found)
    labels = asked.labels(found.lists, other=0)[described.row, described.place]
    gains = np.array(pairs.scale.gains)[labels]
    folds = assign(asked.queries, folds=FOLDS, seed=0)[described.row]
    return fitted(chain.ranker.kind, described, gains, folds)


def everything(workdir: Path, queries: int) -> dict[str, Any]:
    """The chain, and a ranker of the whole catalogue, for the first test queries."""
    chain, pairs = Chain.load(workdir / "model"), preparing.load(workdir)
    whole_chain = dataclasses.replace(
        chain, ranker=of_everything(chain, pairs), cross=None, reranker=None
    )
    asked = asked_of(pairs, "test", list(chain.ids))
    wanted = asked.gained(pairs.scale.gains)
    chosen = np.flatnonzero(asked.counted)[:queries]
    texts = [asked.queries[row] for row in chosen]
    inside = np.isin(wanted.query, chosen)
    place = {row: number for number, row in enumerate(chosen.tolist())}
    own = wanted._replace(
        query=np.array([place[row] for row in wanted.query[inside].tolist()]),
        item=wanted.item[inside],
        gain=None if wanted.gain is None else wanted.gain[inside],
    )
    plain = Plan(found=chain.plan.found, kept=chain.plan.kept)
    whole = Plan(found=len(chain.ids))
    values, milliseconds = {}, {}
    for name, engine, plan in (("chain", chain, plain), ("everything", whole_chain, whole)):
        lists, seconds = [], []
        engine.search(texts[:1], plan=plan)  # compiled once
        for text in texts:
            found = engine.search([text], plan=plan)
            last = list(found.steps)[-1]
            assert last != FOUND
            lists.append(found.items[0, :DEPTH])
            seconds.append(sum(found.seconds.values()))
        values[name] = retrieval.per_query(np.array(lists), own, depths=(DEPTH,))[METRIC]
        milliseconds[name] = 1000 * statistics.median(seconds)
    return {
        "queries": len(texts),
        "milliseconds": milliseconds,
        METRIC: {name: claims.fixed(one) for name, one in values.items()},
        "chain_less_everything": claims.fixed(values["chain"] - values["everything"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--set", choices=("shop", "esci"), required=True)
    parser.add_argument("--pretrained", default="")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--workdir", type=Path, default=Path("runs/chaining"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    workdir = given.workdir / given.set
    recipe.run(config_of(given.set, given.pretrained), workdir)
    metrics = read_json(workdir / "metrics.json")
    kept = (
        *("queries", "complete", "catalogue", "test", "difference", "ceiling", "within"),
        *("unjudged", "milliseconds", "plan", "trials", "verdict", "cost"),
    )
    found = {name: metrics[name] for name in kept}
    found["everything"] = everything(workdir, given.queries)
    write_json(given.out, {**machine(), "commit": commit_of("HEAD"), "set": given.set, **found})


if __name__ == "__main__":
    main()
