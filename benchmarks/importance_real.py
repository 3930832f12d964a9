"""Every estimator of outputs, gradients and trajectories on real pairs with a pretrained BERT.

    pip install -e '.[benchmark]'
    python benchmarks/importance_real.py --esci=FOLDER --icecat=FILE --pretrained=BERT

Two data sets. The ESCI sample with 20 % of its training labels replaced by others at random: which
score finds them. The Icecat pairs as they are, three raters each: which score goes with the raters'
disagreement (Spearman's ρ). One seed, three epochs, three folds; `cleanlab` beside, from the same
out-of-fold probabilities. Intervals by bootstrap over queries. The same command goes on where it
was stopped. Leaves benchmarks/results/importance_real.json.
"""

import argparse
import importlib.metadata
import runpy
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
from importance import scored

from sie_jax import importance
from sie_jax.config import Config
from sie_jax.data.schema import ESCI_SCALE, RATER
from sie_jax.data.sources import esci
from sie_jax.evaluation import agreement, detection, intervals
from sie_jax.files import read_json, write_json
from sie_jax.tables.spool import write_parquet

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "importance_real.json"
NOISE, FOLDS, RESAMPLES, SEED = 0.2, 3, 1000, 0
NEEDS = ("outputs", "gradients", "optimizer", "history", "reference", "embeddings")
ESTIMATORS = (
    *importance.needing(importance.ESTIMATORS, *NEEDS),
    "grand",
    "gradient_variance",
)


def with_noise(folder: str, path: Path) -> None:
    """The ESCI sample as a table of one's own, a share of its training labels replaced."""
    source = esci.read(folder, locale="us", version="large")
    table = source.table
    generator = np.random.default_rng(SEED)
    names = np.array(ESCI_SCALE.names)
    truth = np.array([ESCI_SCALE.names.index(label) for label in table["label"].to_pylist()])
    flips = generator.random(len(truth)) < NOISE
    flips &= np.array(table["split"].to_pylist()) != "test"
    other = (truth + generator.integers(1, len(names), size=len(truth))) % len(names)
    columns = ["example_id", "query_id", "query", "item_id", "title", "text", "split"]
    noisy = table.select(columns)
    noisy = noisy.append_column("label", pa.array(names[np.where(flips, other, truth)]))
    write_parquet(path, noisy.append_column("truth", pa.array(names[truth])))


def config_for(data: str, path: str, pretrained: str) -> Config:
    """The data set's own config, with folds and every estimator."""
    name = "icecat" if data == "icecat" else "esci"
    config: Config = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"]()
    config.name = f"importance-{data}"
    config.data.path = path
    if data == "esci":
        config.data.source = "table"
        config.data.table.labels = ESCI_SCALE.names
        for column in ("example_id", "query_id", "item_id", "text", "split", "truth"):
            setattr(config.data.columns, column, column)
    config.model.pretrained = pretrained
    config.train.folds = FOLDS
    config.train.checkpoint_every = 50
    config.importance.warmup_epochs = config.train.epochs
    config.importance.estimators = tuple(ESTIMATORS)
    return config


def finding(pairs: pa.Table, hardness: dict[str, np.ndarray]) -> dict[str, Any]:
    """How well each score finds the planted errors."""
    wrong = pairs["truth"].to_numpy() != pairs["label"].to_numpy()
    _, query = np.unique(pairs["query_id"].to_pylist(), return_inverse=True)
    members = [np.flatnonzero(query == i) for i in range(query.max() + 1)]
    draws = [
        np.concatenate([np.tile(members[i], counts[i]) for i in np.flatnonzero(counts)])
        for block in intervals.resampling(len(members), resamples=RESAMPLES, seed=SEED)
        for counts in block
    ]
    count = int(wrong.sum())
    return {
        "pairs": len(wrong),
        "wrong": count,
        "scores": {
            name: {
                "auroc": intervals.interval(
                    detection.auroc(values, wrong),
                    np.array([detection.auroc(values[rows], wrong[rows]) for rows in draws]),
                ),
                "average_precision": detection.average_precision(values, wrong),
                "precision": detection.precision_at(values, wrong, count),
            }
            for name, values in hardness.items()
        },
    }


def disagreeing(pairs: pa.Table, hardness: dict[str, np.ndarray]) -> dict[str, Any]:
    """How each score goes with the standard deviation of the raters' grades."""
    raters = [name for name in pairs.column_names if name.startswith(RATER)]
    spread = agreement.disagreement(np.stack([pairs[name].to_numpy() for name in raters], 1))
    return {
        "pairs": pairs.num_rows,
        "disagreed": int((spread > 0).sum()),
        "scores": agreement.correlations(
            hardness, spread, pairs["query_id"].to_pylist(), resamples=RESAMPLES, seed=SEED
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--esci", default="")
    parser.add_argument("--icecat", default="")
    parser.add_argument("--pretrained", required=True)
    parser.add_argument("--workdir", type=Path, default=Path("runs/importance_real"))
    arguments = parser.parse_args()
    result = read_json(RESULTS) if RESULTS.exists() else {}
    result |= {
        "device": jax.devices()[0].device_kind,
        "checkpoint": Path(arguments.pretrained).parent.name,
        "cleanlab": importlib.metadata.version("cleanlab"),
        "noise": NOISE,
        "folds": FOLDS,
        "resamples": RESAMPLES,
    }
    if arguments.icecat:
        config = config_for("icecat", arguments.icecat, arguments.pretrained)
        result["icecat"] = disagreeing(*scored(config, arguments.workdir / "icecat"))
        write_json(RESULTS, result)
    if arguments.esci:
        path = arguments.workdir / "esci.parquet"
        if not path.exists():
            with_noise(arguments.esci, path)
        config = config_for("esci", str(path), arguments.pretrained)
        result["esci"] = finding(*scored(config, arguments.workdir / "esci"))
        write_json(RESULTS, result)


if __name__ == "__main__":
    main()
