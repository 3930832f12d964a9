"""Does a gift shop have seasons, and does popularity of the season find more than that of all time?

    python benchmarks/seasons.py

Reads online_retail/ in the folder that $SIE_JAX_DATA names by `configs/online_retail.py`, and
writes benchmarks/results/seasons.json. Popularity is counted over all of the training time, over
its last days alone, and over the days of the year of the test, one year before. Nothing is trained
by steps. The window is not chosen on the test: all are told.
"""

import argparse
import os
import runpy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from interleaved import machine
from same_results import commit_of

from sie_jax.data.histories.histories import TEST, TRAIN, cases, make
from sie_jax.evaluation import claims, retrieval
from sie_jax.evaluation.retrieval import Wanted
from sie_jax.files import write_json
from sie_jax.models.recommenders import Popularity
from sie_jax.stages.recommenders import listed

ROOT = Path(__file__).parent.parent
DAY = 86_400_000_000
WINDOWS = (30, 60, 120, 365)
METRICS = ("ndcg@10", "recall@10", "recall@20")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/seasons.json")
    given = parser.parse_args()
    config = runpy.run_path(str(ROOT / "configs" / "online_retail.py"))["get_config"]()
    file = "online_retail/online_retail_ii.parquet"
    config.data.path = str(Path(os.environ["SIE_JAX_DATA"]) / file)
    splitting = config.data.splitting
    own, _ = make(config.data.read(), splitting, timed=True)
    asked = cases(own, TEST)
    wanted = Wanted(asked.case, asked.item)
    training = own.wanted & (own.split == TRAIN)
    last, first = splitting.validation_from, splitting.test_from
    end = int(own.time.max())
    chosen = {"all of the training time": training}
    for days in WINDOWS:
        chosen[f"its last {days} days"] = training & (own.time >= last - days * DAY)
    chosen["the same days a year before"] = (
        training & (own.time >= first - 365 * DAY) & (own.time <= end - 365 * DAY)
    )
    values = {}
    for name, rows in chosen.items():
        counts = np.bincount(own.item[rows], minlength=len(own.items) + 1).astype(np.float32)
        lists = listed(Popularity(counts), own, asked, depth=20, repeats=True)
        values[name] = retrieval.per_query(lists, wanted, depths=(10, 20))
    reference = values["all of the training time"]
    found: dict[str, Any] = {
        name: {
            **{metric: claims.fixed(one[metric]) for metric in METRICS},
            "difference": claims.fixed(one["ndcg@10"] - reference["ndcg@10"]),
        }
        for name, one in values.items()
    }
    write_json(
        given.out,
        {
            **machine(),
            "commit": commit_of("HEAD"),
            "users": len(asked),
            "found": found,
            "months": _months(own),
        },
    )


def _months(own: Any) -> list[dict[str, Any]]:
    """Of each month its purchases, and the share of items that sell best there, of all months."""
    bought = own.wanted
    month = np.array(
        [datetime.fromtimestamp(time / 1e6, UTC).strftime("%Y-%m") for time in own.time[bought]]
    )
    names, place = np.unique(month, return_inverse=True)
    counts = np.zeros((len(own.items) + 1, len(names)))
    np.add.at(counts, (own.item[bought], place), 1)
    often = counts.sum(1) >= 50
    best = counts[often].argmax(1)
    return [
        {
            "month": name,
            "purchases": int(counts[:, at].sum()),
            "best_sellers_share": float((best == at).mean()),
        }
        for at, name in enumerate(names.tolist())
    ]


if __name__ == "__main__":
    main()
