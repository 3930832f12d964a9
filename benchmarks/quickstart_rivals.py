"""Is the ranker that a run on the market exported above what LightGBM learns from the same labels?

    python train.py --config=configs/quickstart.py
    python benchmarks/quickstart_rivals.py --workdir=runs/quickstart

Needs the extra `benchmark`. LambdaMART on the features of market_rankers and the run's own
`feedback`, which compares the items of a list, and on these with word translation learnt from the
training pairs, both with the run's own labels, wrong ones included, and stopped on its validation
queries. Leaves benchmarks/results/quickstart_rivals.json: nDCG@10 on the test queries, whose labels
are right, and the exported ranker minus each rival, with a 95 % interval over queries (Student, t).
"""

import argparse
import json
from pathlib import Path

import jax
import lightgbm
import numpy as np
import pyarrow.parquet as pq
from market_ceilings import lambdamart
from market_rankers import Pairs, lexical, translation

from sie_jax import config as configs
from sie_jax.data import preparing
from sie_jax.data.features import FEEDBACK
from sie_jax.data.schema import ATTRIBUTE, SPLITS
from sie_jax.evaluation import claims, ranking
from sie_jax.files import read_json, write_json

ROOT = Path(__file__).parent.parent


def pairs_of(workdir: Path) -> tuple[Pairs, list[str]]:
    """The run's pairs with the labels that it was given, and their ids."""
    prepared = preparing.load(workdir)
    table = prepared.pairs.sort_by([("query_id", "ascending"), ("example_id", "ascending")])
    config = configs.from_json(read_json(workdir / "config.json"))
    catalogue = config.data.read().catalogue
    places = {name: place for place, name in enumerate(catalogue["item_id"].to_pylist())}
    label = table["label"].to_numpy()
    return Pairs(
        query=np.unique(table["query_id"].to_pylist(), return_inverse=True)[1],
        grade=label,
        gain=np.array(prepared.scale.gains)[label],
        split=np.array(table["split"].to_pylist()),
        queries=table["query"].to_pylist(),
        titles=table["title"].to_pylist(),
        texts=[text or "" for text in table["text"].to_pylist()],
        brands=table[ATTRIBUTE + "brand"].to_pylist(),
        item=np.array([places[name] for name in table["item_id"].to_pylist()]),
        catalogue_titles=catalogue["title"].to_pylist(),
        catalogue_texts=[text or "" for text in catalogue["text"].to_pylist()],
    ), table["example_id"].to_pylist()


def _feedback(workdir: Path, ids: list[str]) -> np.ndarray:
    """The run's feature of that name `[N, 1]`."""
    table = pq.read_table(workdir / "features.parquet", columns=["example_id", FEEDBACK])
    found = dict(zip(table["example_id"].to_pylist(), table[FEEDBACK].to_pylist(), strict=True))
    return np.array([[found[name]] for name in ids])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "quickstart_rivals.json"
    )
    arguments = parser.parse_args()
    exported = read_json(arguments.workdir / "metrics.json")["verdict"]["ranker"]
    pairs, ids = pairs_of(arguments.workdir)
    words = np.concatenate([lexical(pairs), _feedback(arguments.workdir, ids)], axis=1)
    translated = np.concatenate([words, translation(pairs)], axis=1)
    tested = pairs.split == "test"
    table = pq.read_table(arguments.workdir / "rankings.parquet")
    of_pair = dict(
        zip(table["example_id"].to_pylist(), table[f"{exported}-0"].to_pylist(), strict=True)
    )
    scores = {
        "exported": np.array([of_pair[name] for name in np.array(ids)[tested].tolist()]),
        "lambdamart": lambdamart(pairs, words)[tested],
        "lambdamart_translation": lambdamart(pairs, translated)[tested],
    }
    query = np.unique(pairs.query[tested], return_inverse=True)[1]
    ndcg = {
        name: ranking.per_query(
            values,
            pairs.grade[tested],
            gains=preparing.load(arguments.workdir).scale.gains,
            query_index=query,
            num_queries=int(query.max()) + 1,
            example_ids=np.flatnonzero(tested),
        )["ndcg@10"]
        for name, values in scores.items()
    }
    found = {
        "device": f"1 × {jax.devices()[0].device_kind}",
        "lightgbm": lightgbm.__version__,
        "ranker": exported,
        "queries": {split: len(np.unique(pairs.query[pairs.split == split])) for split in SPLITS},
        "ndcg@10": {name: round(float(np.nanmean(each)), 4) for name, each in ndcg.items()},
        "exported_minus": {
            name: claims.fixed(ndcg["exported"] - ndcg[name])
            for name in ("lambdamart", "lambdamart_translation")
        },
    }
    write_json(arguments.out, found)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
