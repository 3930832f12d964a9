"""Small tables of one's own: is what is exported worse than `linear`, and what do verdicts say?

    python benchmarks/tables.py

Twenty tables, each of another generated market, with 80 queries to learn from (four grades, 10 % of
the labels wrong, 5 % of the rows broken), as a user would bring them: a CSV file with the columns
query, title, text and label, and the settings of configs/table.py. So that one table says
something, it has 100 further queries to test on, with clean labels, in a column `split`. Each
table goes through the whole of train.py's recipe. No setting was chosen on these markets. The same
command resumes what was stopped. Leaves benchmarks/results/tables.json.
"""

import argparse
import csv
import importlib.util
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from sie_jax.config import Config
from sie_jax.data import preparing
from sie_jax.data.sources.market import MarketConfig, generate
from sie_jax.evaluation import Predictions, claims
from sie_jax.evaluation.verdict import by_query
from sie_jax.files import read_json, write_json
from sie_jax.recipes import relevance
from sie_jax.stages.evaluate import RANKINGS
from sie_jax.stages.pair_runs import judged

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "tables.json"
TABLES, LEARNED, TESTED, FIRST_SEED = 20, 80, 100, 1000
COLUMNS = ("query", "title", "text", "label", "split")
BELOW = 0.01  # what counts as a table that is below


def write_table(path: Path, seed: int) -> None:
    """Leaves a generated market as a user's table; the test rows have no wrong labels."""
    market = generate(
        MarketConfig(
            queries=LEARNED + TESTED,
            items=2000,
            noise=0.1,
            noise_kind="uniform",
            dirt=0.05,
            seed=seed,
        ),
        validation=LEARNED / (LEARNED + TESTED) / 8,
        test=TESTED / (LEARNED + TESTED),
    )
    grades = {name: str(place) for place, name in enumerate(market.source.scale.names)}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in market.source.table.select(list(COLUMNS)).to_pylist():
            cells = [row[name] or "" for name in COLUMNS]
            cells[3] = grades.get(cells[3], cells[3])
            writer.writerow(cells)


def config_of(path: Path) -> Config:
    """What `train.py --config=configs/table.py` takes with the columns that the table has."""
    spec = importlib.util.spec_from_file_location("table", ROOT / "configs" / "table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config: Config = module.get_config()
    config.data.path = str(path)
    config.data.columns.text, config.data.columns.split = "text", "split"
    config.data.table.labels = tuple("0123")
    config.evaluation.explained_queries = 0
    return config


def cell(seed: int, folder: Path) -> dict[str, Any]:
    """What a table's run gave: the means of all rankers, exported minus linear, the verdict."""
    path, workdir = folder / f"{seed}.csv", folder / str(seed)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, seed)
    metrics = relevance.run(config_of(path), workdir, console=Console(quiet=True))
    rankings, prepared = pq.read_table(workdir / RANKINGS), preparing.load(workdir)
    runs = [name.removesuffix("-0") for name in rankings.column_names if name.endswith("-0")]
    ndcg = by_query(
        judged(prepared, "test"),
        {run: [Predictions(None, rankings[f"{run}-0"].to_numpy())] for run in runs},
    )
    verdict, counts = metrics["verdict"], read_json(workdir / "cleaning.json")
    exported = verdict["ranker"]
    return {
        "seed": seed,
        "rows": metrics["rows"],
        "queries": counts["queries"],
        "exported": exported,
        "ndcg@10": {run: round(float(np.nanmean(values)), 5) for run, values in ndcg.items()},
        "exported_minus_linear": claims.fixed((ndcg[exported] - ndcg["linear"])[0]),
        "verdict": verdict,
    }


def summary(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Over tables: the mean difference with its interval, how many are below, what verdicts say."""
    differences = np.array([one["exported_minus_linear"]["value"] for one in cells])
    said = Counter(str(one["verdict"]["beats_baseline"]) for one in cells)
    runs = cells[0]["ndcg@10"]
    return {
        "exported_minus_linear": claims.fixed(differences),  # the tables are the sample
        "share_below": float((differences < -BELOW).mean()),
        "exported": dict(Counter(one["exported"] for one in cells)),
        "beats_baseline": dict(said),
        "ndcg@10": {
            run: round(float(np.mean([one["ndcg@10"][run] for one in cells])), 4) for run in runs
        }
        | {
            "exported": round(float(np.mean([one["ndcg@10"][one["exported"]] for one in cells])), 4)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs/tables"))
    parser.add_argument("--tables", type=int, default=TABLES)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    cells = []
    for seed in range(FIRST_SEED, FIRST_SEED + arguments.tables):
        cells.append(cell(seed, arguments.workdir))
        print(seed, cells[-1]["exported"], cells[-1]["exported_minus_linear"]["value"], flush=True)
        jax.clear_caches()  # the programs of twenty tables are more than one process can map
    found = summary(cells)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    write_json(
        arguments.out,
        {
            "device": f"1 × {jax.devices()[0].device_kind}",
            "commit": commit.stdout.strip(),
            "learned_queries": LEARNED,
            "test_queries": TESTED,
            "below": BELOW,
            **found,
            "tables": cells,
        },
    )
    shown = Table(title=f"{len(cells)} tables of {LEARNED} queries, nDCG@10 on {TESTED} others")
    shown.add_column("ranker")
    shown.add_column("mean over tables")
    for run, value in found["ndcg@10"].items():
        shown.add_row(run, f"{value:.4f}")
    Console().print(shown)
    Console().print({name: value for name, value in found.items() if name != "ndcg@10"})


if __name__ == "__main__":
    main()
