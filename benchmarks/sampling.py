"""The corrected sampler on a trained model's gradients: is it unbiased, and how noisy are draws?

    python benchmarks/sampling.py

configs/shop.py after one epoch on a shop of 200 queries with 20 % wrong labels; the exact
gradients of 512 of its training pairs, over all parameters. For each way of drawing, 10,000 draws
with the correction 1/(N p), four thousand times: the squared distance of their mean from the full
gradient against what independent draws without bias would leave, tr Cov / 10,000, and that of the
mean of all forty million; and tr Cov of one draw, observed, against that of uniform draws. Leaves
benchmarks/results/sampling.json.
"""

import dataclasses
import runpy
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from sie_jax import per_example
from sie_jax.devices import mesh as meshes
from sie_jax.files import write_json
from sie_jax.importance import modifiers, policies, sampling
from sie_jax.recipes import relevance
from sie_jax.stages.pair_runs import PairRuns
from sie_jax.tasks.task import SeparateTask
from sie_jax.training.run import Run
from sie_jax.workdir import Job

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "sampling.json"
PAIRS, DRAWS, TIMES, UNIFORM = 512, 10_000, 4_000, 0.1
POWERS = {"uniform": 0.0, "norm^0.5": 0.5, "norm": 1.0}


def gradients(workdir: Path) -> np.ndarray:
    """∇ℓ_i of PAIRS training pairs, float32 `[PAIRS, parameters]`."""
    config = runpy.run_path(str(ROOT / "configs" / "shop.py"))["get_config"]()
    config.data.synthetic.queries = 200
    config.pretrain.steps = 0
    with relevance.opened(
        config, workdir, console=Console(quiet=True), mesh=meshes.make(1)
    ) as opened:
        start = relevance.started(config, opened)
        runs = PairRuns(Job(opened, "sampling", runs=("warmup",)), start)
        state = runs.fit(Run("warmup", 0, dataclasses.replace(start.train, epochs=1)))
    batches = runs.planner.in_order("train", np.arange(PAIRS))
    assert isinstance(runs.task, SeparateTask)
    loss = runs.task.loss()

    @jax.jit
    def materialised(params: Any, batch: Any) -> Any:
        _, grads = per_example.value_and_grad(loss, has_aux=True)(params, batch)
        return grads.materialize()

    found = []
    for number in range(len(batches)):
        batch = batches[number]
        leaves = jax.tree.leaves(materialised(state.params, batch))
        rows = [np.asarray(leaf).reshape(len(leaf), -1)[batch["mask"]] for leaf in leaves]
        found.append(np.concatenate(rows, 1))
    return np.concatenate(found)


def measured(power: float, gram: np.ndarray) -> dict[str, Any]:
    """What draws with p ∝ ‖g‖^power, a tenth of them uniform, are like.

    gram: ⟨∇ℓ_i, ∇ℓ_j⟩, float64 `[N, N]`: the distance of any two means of gradients is in it.
    """
    norms = np.sqrt(np.diag(gram))
    policy = modifiers.Mixed(policy=policies.Tempered(power=power), uniform=UNIFORM)
    p = sampling.probabilities(np.asarray(policy(jnp.asarray(norms))))
    correction, squared_full = sampling.correction(p), float(gram.mean())
    formula = sampling.gradient_variance(norms**2, p, squared_norm_of_mean=squared_full)
    generator = np.random.default_rng(0)
    distances, seconds, total = [], [], np.zeros(PAIRS)
    for _ in range(TIMES):
        counts = np.bincount(generator.choice(PAIRS, DRAWS, p=p), minlength=PAIRS)
        mean = counts * correction / DRAWS
        total += mean
        away = mean - 1 / PAIRS
        distances.append(float(away @ gram @ away))
        # the squared norms of single draws give their observed variance about the full gradient
        second = float((counts * (correction * norms) ** 2).sum() / DRAWS)
        seconds.append(second - 2 * float(mean @ gram.mean(1)) + squared_full)
    ratios = np.array(distances) * DRAWS / formula
    away = total / TIMES - 1 / PAIRS
    return {
        "variance": formula,
        "variance_observed": float(np.mean(seconds)),
        # each 1 for draws that are independent and without bias; a bias would add to the second
        # TIMES times what it adds to the first
        "squared_distance_ratio": float(ratios.mean()),
        "squared_distance_ratio_error": float(ratios.std() / TIMES**0.5),
        "squared_distance_ratio_of_all_draws": float(away @ gram @ away) * DRAWS * TIMES / formula,
        "effective_sample_size": sampling.effective_sample_size(
            correction[generator.choice(PAIRS, DRAWS, p=p)]
        )
        / DRAWS,
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        matrix = gradients(Path(folder))
    wide = matrix.astype(np.float64)
    gram = wide @ wide.T
    found = {name: measured(power, gram) for name, power in POWERS.items()}
    result = {
        "device": jax.devices()[0].device_kind,
        "pairs": PAIRS,
        "parameters": matrix.shape[1],
        "draws": DRAWS,
        "times": TIMES,
        "uniform_share": UNIFORM,
        "drawing": found,
    }
    write_json(RESULTS, result)
    base = found["uniform"]
    for name, one in found.items():
        share = one["variance_observed"] / base["variance_observed"]
        ratio, error = one["squared_distance_ratio"], one["squared_distance_ratio_error"]
        of_all = one["squared_distance_ratio_of_all_draws"]
        print(
            f"{name}: variance {share:.3f} of uniform's; squared distance {ratio:.3f} ± {error:.3f}"
            f" of what is expected, {of_all:.2f} for all draws together"
        )


if __name__ == "__main__":
    main()
