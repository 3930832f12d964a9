"""SIE-Bench on real pairs: ESCI's sample and Icecat under planted faults, nested by queries.

    pip install -e '.[benchmark]'
    python benchmarks/run_sie_bench_real.py --pretrained=BERT \\
        --workdir=runs/real  # benchmarks/results/sie_bench_real.json

The pairs are in the folder that $SIE_JAX_DATA names. Each of three seeds deals five folds of the
queries, draws the wrong labels of the training queries, and trains; `sie_bench/real.py` says how.
Differences are over queries and seeds, and p values are Holm's over all arms, faults and both data
sets. Where the judging lists have faulty labels (access a) the choice is `doubtful_groups` where
that finds any, else `uniform`; where they have right labels (access b) it is the arm that is best
on them, which is compared with `uniform` ended by them. Every set, fault and seed is a file in
WORKDIR: the same command resumes what was stopped. Leaves benchmarks/results/sie_bench_real.json.
"""

import argparse
import hashlib
import inspect
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nested
import numpy as np
from interleaved import machine
from rich.console import Console
from same_results import commit_of
from sie_bench import policies, real

from sie_jax.data import sentences
from sie_jax.evaluation import claims, intervals
from sie_jax.evaluation.slices import holm
from sie_jax.files import read_json, write_json
from sie_jax.importance import doubtful

RESULTS = Path(__file__).parent / "results" / "sie_bench_real.json"
SEEDS = (0, 1, 2)
ORACLES = ("clean", "oracle_drop")


def rows(cells: list[dict[str, Any]], name: str) -> np.ndarray:
    """nDCG@10 [S, Q] of an arm."""
    return np.array([one["ndcg@10"][name] for one in cells], np.float64)


def summary(cells: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> dict[str, Any]:
    """By set and fault each arm's value and difference from uniform."""
    result: dict[str, Any] = {}
    for name, of_faults in cells.items():
        result[name] = {fault: _fault(of) for fault, of in of_faults.items()}
    told = [
        (name, fault, arm)
        for name, of_faults in cells.items()
        for fault in of_faults
        for arm in result[name][fault]["less uniform"]
        if arm not in ORACLES
    ]
    p = [_p(cells[name][fault], arm) for name, fault, arm in told]
    for (name, fault, arm), adjusted in zip(told, holm(p), strict=True):
        result[name][fault]["less uniform"][arm]["holm"] = float(adjusted)
    return result


def _fault(cells: list[dict[str, Any]]) -> dict[str, Any]:
    arms = [one for one in cells[0]["ndcg@10"] if one != "uniform, b"]
    found = {
        "ndcg@10": {
            arm: intervals.of_mean(rows(cells, arm).mean(0), resamples=1000, seed=0)
            for arm in (*arms, "uniform, b")
        },
        "less uniform": {
            arm: claims.procedure(_less(cells, arm)) for arm in arms if arm != "uniform"
        },
        "less linear": claims.procedure(rows(cells, "uniform") - rows(cells, "linear")),
    }
    for name in ("wrong", "auroc", "doubted"):
        values = [one for cell in cells for one in cell[name] if one is not None]
        found[name] = float(np.mean(values)) if values else None
    found["chosen"] = {
        access: dict(Counter(one for cell in cells for one in cell[access])) for access in "ab"
    }
    return found


def _less(cells: list[dict[str, Any]], arm: str) -> np.ndarray:
    """An arm less uniform, which ends by right labels where the arm does."""
    return rows(cells, arm) - rows(cells, "uniform, b" if arm == "chosen, b" else "uniform")


def _p(cells: list[dict[str, Any]], arm: str) -> float:
    differences = _less(cells, arm)
    return claims.p_value(lambda level: claims.procedure(differences, level=level))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pretrained", type=Path, required=True)
    parser.add_argument("--workdir", type=Path, default=Path("runs/real"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    encoder, console = sentences.load(arguments.pretrained), Console()
    source = "".join(map(inspect.getsource, (real, policies, doubtful)))
    code = hashlib.sha256(source.encode()).hexdigest()[:12]
    cells: dict[str, dict[str, list[dict[str, Any]]]] = {}
    sets = nested.sources(Path(os.environ["SIE_JAX_DATA"]))
    for name, read in sets.items():
        judged = nested.judged(read(), lambda *texts: sentences.features(encoder, *texts))
        data = real.of_pairs(judged, encoder)
        cells[name] = {fault: [] for fault in real.FAULTS}
        for seed in SEEDS:
            for fault in real.FAULTS:
                file = arguments.workdir / code / f"{name}-{fault}-{seed}.json"
                if not file.exists():
                    file.parent.mkdir(parents=True, exist_ok=True)
                    write_json(file, real.cell(judged, data, fault, seed))
                    console.print(f"{name}, {fault}, seed {seed}")
                cells[name][fault].append(read_json(file))
    content = {
        **machine(),
        "commit": commit_of("HEAD"),
        "seeds": len(SEEDS),
        "folds": real.FOLDS,
        "faults": real.FAULTS,
        "sets": summary(cells),
    }
    write_json(arguments.out, content)


if __name__ == "__main__":
    main()
