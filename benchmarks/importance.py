"""How well every estimator finds wrong labels, planted in five ways in the synthetic shop.

    pip install -e '.[benchmark]'
    python benchmarks/importance.py --workdir=runs/importance [--seeds=0,1,2]

For each kind of noise, rate and seed: a shop, the model of configs/shop.py pretrained on the shop's
texts, one uniform training, and every estimator's scores (those of influence at 20 % alone). AUROC,
area under the precision-recall curve, and precision among as many pairs as there are wrong labels;
with the scores of one estimator shuffled, and with the scores of the shop without noise for the
labels that would have been wrong. Every cell is a file in WORKDIR/cells: a stop costs the cell it
was in, and several processes may work on different seeds. Leaves
benchmarks/results/importance.json; benchmarks/pages.py makes the tables and the picture of
docs/wrong_labels.md from it.
"""

import argparse
import importlib.metadata
import runpy
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from cleanlab.rank import get_label_quality_scores
from rich.console import Console

from sie_jax import importance
from sie_jax.config import Config
from sie_jax.data.sources import synthetic
from sie_jax.data.sources.market import noise as mislabelling
from sie_jax.devices import mesh as meshes
from sie_jax.evaluation import detection
from sie_jax.files import read_json, write_json
from sie_jax.recipes import relevance
from sie_jax.stages.cross_fit import cross_fit
from sie_jax.stages.score import score

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "importance.json"
KINDS, RATES, SEEDS = mislabelling.KINDS, (0.05, 0.2, 0.4), (0, 1, 2)
INFLUENCE = importance.needing(importance.ESTIMATORS, "checkpoints", "targets", "curvature")
INFLUENCE = [name for name in INFLUENCE if name not in ("grand", "gradient_variance")]
QUERIES, EPOCHS, FOLDS = 300, 4, 3
CLEANLAB = ("normalized_margin", "confidence_weighted_entropy")
PERMUTED = "loss, shuffled"
MEASURES = ("auroc", "average_precision", "precision")


def config_for(kind: str, rate: float, seed: int, pretrained: str) -> Config:
    """configs/shop.py on a smaller shop, with folds, and scored after all epochs."""
    config: Config = runpy.run_path(str(ROOT / "configs" / "shop.py"))["get_config"]()
    config.name = f"importance-{kind}-{rate:g}-{seed}"
    config.data.synthetic.queries = QUERIES
    config.data.synthetic.noise = rate
    config.data.synthetic.noise_kind = kind
    config.data.synthetic.seed = config.train.seed = seed
    config.train.epochs = config.importance.warmup_epochs = EPOCHS
    config.train.folds = FOLDS
    config.importance.estimators = tuple(
        name for name in importance.ESTIMATORS if rate in (0.0, 0.2) or name not in INFLUENCE
    )
    config.model.pretrained = pretrained
    config.pretrain.steps = 0
    return config


def pretrained_on(seed: int, workdir: Path) -> str:
    """A checkpoint pretrained on the texts of a shop, which do not depend on its noise."""
    config = config_for("uniform", 0.0, seed, "")
    config.pretrain.steps = 1000
    with relevance.opened(
        config, workdir, console=Console(quiet=True), mesh=meshes.make(1)
    ) as opened:
        pretrained = relevance.started(config, opened).pretrained
    assert pretrained is not None
    return pretrained.value


def scored(config: Config, workdir: Path) -> tuple[pa.Table, dict[str, np.ndarray]]:
    """The training pairs of a cell with their truth, and every estimator's hardness `[N]`."""
    with relevance.opened(
        config, workdir, console=Console(quiet=True), mesh=meshes.make(1)
    ) as opened:
        start = relevance.started(config, opened)
        held_out = cross_fit(
            opened, start, folds=config.train.folds, split_seed=config.data.split_seed
        )
        scores = score(
            opened,
            start,
            held_out,
            estimators=config.importance.further_scores,
            warmup_epochs=config.importance.warmup_epochs,
        ).value
        training, columns = start.prepared.value.split("train"), held_out.value.training()
    hardness = {
        name: np.asarray(importance.hardness(name, scores.column(name)))
        for name in (*importance.SCORES, *config.importance.further_scores)
    }
    names = sorted(name for name in columns if name.startswith("probability_"))
    exact = np.stack([columns[name] for name in names], 1).astype(np.float64)
    exact /= exact.sum(1, keepdims=True)
    for method in CLEANLAB:
        quality = get_label_quality_scores(training["label"].to_numpy(), exact, method=method)
        hardness[f"cleanlab, {method}"] = -quality
    hardness[PERMUTED] = np.random.default_rng(config.train.seed).permutation(hardness["loss"])
    return training, hardness


def measured(wrong: np.ndarray, hardness: dict[str, np.ndarray]) -> dict[str, Any]:
    """How well each score finds the wrong labels."""
    count = int(wrong.sum())
    return {
        "pairs": len(wrong),
        "wrong": count,
        "scores": {
            name: {
                "auroc": detection.auroc(values, wrong),
                "average_precision": detection.average_precision(values, wrong),
                "precision": detection.precision_at(values, wrong, count),
            }
            for name, values in hardness.items()
        },
    }


def would_be_wrong(config: Config, kind: str, rate: float, ids: list[str]) -> np.ndarray:
    """Which pairs noise of a kind and rate would have relabelled."""
    shop = config.data.synthetic
    noisy = synthetic.read(
        queries=shop.queries,
        items_per_query=shop.items_per_query,
        noise=rate,
        noise_kind=kind,
        dirt=shop.dirt,
        validation=config.data.validation,
        test=config.data.test,
        seed=shop.seed,
    ).table
    wrong = pc.not_equal(noisy["label"], noisy["truth"]).to_pylist()
    of_id = dict(zip(noisy["example_id"].to_pylist(), wrong, strict=True))
    return np.array([bool(of_id[one]) for one in ids])


def run_seed(seed: int, workdir: Path, console: Console) -> None:
    """Every cell of a seed that is not there yet."""
    texts = workdir / f"texts-{seed}"
    cells = [("none", 0.0)] + [(kind, rate) for rate in (0.2, 0.05, 0.4) for kind in KINDS]
    for kind, rate in cells:
        file = workdir / "cells" / f"{kind}-{rate:g}-{seed}.json"
        if file.exists():
            continue
        folder = workdir / "runs" / file.stem
        noise = "uniform" if kind == "none" else kind
        config = config_for(noise, rate, seed, pretrained_on(seed, texts))
        training, hardness = scored(config, folder)
        if kind == "none":
            ids = training["example_id"].to_pylist()
            result = {
                one: measured(would_be_wrong(config, one, 0.2, ids), hardness) for one in KINDS
            }
        else:
            wrong = training["truth"].to_numpy() != training["label"].to_numpy()
            result = measured(wrong, hardness)
        write_json(file, result)
        shutil.rmtree(folder)
        console.print(f"{file.stem} is done")


def summary(workdir: Path) -> dict[str, Any]:
    """All cells as means over seeds, with each seed's number."""
    found: dict[str, Any] = {}
    for kind in KINDS:
        for rate in (0.0, *RATES):
            name = "none-0" if rate == 0 else f"{kind}-{rate:g}"
            files = [workdir / "cells" / f"{name}-{seed}.json" for seed in SEEDS]
            cells = [read_json(file) for file in files if file.exists()]
            if not cells:
                continue
            cells = [cell[kind] for cell in cells] if rate == 0 else cells
            found.setdefault(kind, {})[f"{rate:g}"] = {
                "pairs": [cell["pairs"] for cell in cells],
                "wrong": [cell["wrong"] for cell in cells],
                "scores": {
                    score: {
                        measure: {
                            "mean": float(np.mean([c["scores"][score][measure] for c in cells])),
                            "seeds": [c["scores"][score][measure] for c in cells],
                        }
                        for measure in MEASURES
                    }
                    for score in cells[0]["scores"]
                },
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs/importance"))
    parser.add_argument("--seeds", default=",".join(str(seed) for seed in SEEDS))
    arguments = parser.parse_args()
    console = Console()
    for seed in arguments.seeds.split(","):
        run_seed(int(seed), arguments.workdir, console)
    result = {
        "device": jax.devices()[0].device_kind,
        "queries": QUERIES,
        "epochs": EPOCHS,
        "cleanlab": importlib.metadata.version("cleanlab"),
        "noise": summary(arguments.workdir),
    }
    write_json(RESULTS, result)


if __name__ == "__main__":
    main()
