"""Does a model of histories beat what costs nothing, and does weighting help it?

    python benchmarks/recommending.py --set=beauty --weightings truncated clipped \\
        --out=benchmarks/results/recommending_beauty.json
    python benchmarks/recommending.py --set=toys --out=benchmarks/results/recommending_toys.json
    python benchmarks/recommending.py --set=online_retail \\
        --out=benchmarks/results/recommending_online_retail.json

Runs the recipe with `configs/reviews.py` or `configs/online_retail.py` on the files in the folder
that $SIE_JAX_DATA names, three seeds. beauty and toys follow the protocol of S3-Rec and ICLRec
(Chen et al. 2022): the last item of each user is the test, the one before it validation, neither is
trained on, all items are ranked, those of the history left out. Their figures stand beside ours as
published. Every run is a stage in WORKDIR/SET: what was stopped resumes, and more weightings add
runs to those that stand.
"""

import argparse
import os
import runpy
from pathlib import Path
from typing import Any

from interleaved import machine
from same_results import commit_of

from sie_jax.config import RecommendationConfig
from sie_jax.files import read_json, write_json
from sie_jax.recipes import recommendation

ROOT = Path(__file__).parent.parent
FILES = {
    "beauty": ("reviews", "reviews/Beauty.txt"),
    "toys": ("reviews", "reviews/Toys_and_Games.txt"),
    "online_retail": ("online_retail", "online_retail/online_retail_ii.parquet"),
}
PUBLISHED = {
    "beauty": {"hit@5": 0.0500, "ndcg@5": 0.0326, "ndcg@10": 0.0403},
    "toys": {"hit@5": 0.0598, "ndcg@5": 0.0404},
}
"""ICLRec (Chen et al. 2022, table 2)."""
KEPT = ("ndcg@5", "ndcg@10", "recall@5", "recall@10", "recall@20", "hit@5", "mrr@10")


def config_of(name: str, weightings: list[str], seeds: int) -> RecommendationConfig:
    """The recipe's config for a set."""
    recipe, file = FILES[name]
    made: RecommendationConfig = runpy.run_path(str(ROOT / "configs" / f"{recipe}.py"))[
        "get_config"
    ]()
    made.name, made.data.path = name, str(Path(os.environ["SIE_JAX_DATA"]) / file)
    made.train.seeds, made.weightings = seeds, tuple(weightings)
    return made


def shortened(metrics: dict[str, Any]) -> dict[str, Any]:
    """What is kept of metrics.json."""

    def few(found: dict[str, Any]) -> dict[str, Any]:
        return {
            run: {name: values[name] for name in KEPT if name in values}
            for run, values in found.items()
        }

    return {
        **{name: few(metrics[name]) for name in ("test", "difference", "seeds")},
        **{
            name: metrics[name] for name in ("rows", "users", "groups", "beyond", "verdict", "cost")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--set", choices=list(FILES), required=True)
    parser.add_argument("--weightings", nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workdir", type=Path, default=Path("runs/recommending"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    workdir = given.workdir / given.set
    recommendation.run(config_of(given.set, given.weightings, given.seeds), workdir)
    found = {
        **machine(),
        "commit": commit_of("HEAD"),
        "set": given.set,
        "published": PUBLISHED.get(given.set, {}),
        **shortened(read_json(workdir / "metrics.json")),
    }
    write_json(given.out, found)


if __name__ == "__main__":
    main()
