"""Do the per-example gradient norms equal jax.vmap(jax.grad) on the batches of a real run?

    python benchmarks/norms.py --workdir=runs/quickstart

Takes the training pairs and the trained model of a finished workdir, batches as training pads them,
and prints the largest relative difference of both routes to the oracle. Appends the figures, under
the name of the run, to benchmarks/results/norms.json.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sie_jax import per_example
from sie_jax.data import batches, preparing
from sie_jax.data.loading import PlannedBatches
from sie_jax.files import read_json, write_json
from sie_jax.models import PairClassifier
from sie_jax.tasks.graded import Graded

RESULTS = Path(__file__).parent / "results" / "norms.json"
BATCH_SIZE = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--batches", type=int, default=8)
    arguments = parser.parse_args()
    prepared = preparing.load(arguments.workdir)
    model, _ = PairClassifier.from_pretrained(arguments.workdir / "model")
    graphdef, params = nnx.split(model)
    loss_fn = Graded(graphdef, prepared.scale.gains).loss()
    plan = batches.epoch(
        prepared.lengths["train"],
        seed=0,
        epoch=0,
        batch_size=BATCH_SIZE,
        boundaries=prepared.boundaries,
        rows=np.arange(len(prepared.lengths["train"])),
    )[: arguments.batches]
    planned = PlannedBatches(
        prepared.tokens("train"),
        [plan],
        batch_size=BATCH_SIZE,
        pad_token_id=prepared.tokenizer.pad_token_id,
    )

    def oracle(params: Any, batch: Any) -> jax.Array:
        gradients, _ = jax.vmap(jax.grad(loss_fn, has_aux=True), in_axes=(None, 0))(params, batch)
        squares = [jnp.sum(leaf**2, range(1, leaf.ndim)) for leaf in jax.tree.leaves(gradients)]
        return jnp.sqrt(sum(squares))

    def kept_factors(params: Any, batch: Any) -> jax.Array:
        return per_example.value_and_grad(loss_fn, has_aux=True)(params, batch)[1].norms()

    def norms_only(params: Any, batch: Any) -> jax.Array:
        return per_example.grad_norms(loss_fn, has_aux=True)(params, batch)[0]

    routes = {"kept factors": jax.jit(kept_factors), "norms only": jax.jit(norms_only)}
    worst = dict.fromkeys(routes, 0.0)
    compiled_oracle = jax.jit(oracle)
    for i in range(len(planned)):
        batch = planned[i]
        expected = compiled_oracle(params, batch)
        for name, route in routes.items():
            relative = jnp.abs(route(params, batch) - expected) / expected
            worst[name] = max(worst[name], float(relative[batch["mask"]].max()))
    run = read_json(arguments.workdir / "config.json")["name"]
    results = read_json(RESULTS) if RESULTS.exists() else {}
    results[run] = {
        "examples": int(sum(len(batch.rows) for batch in plan)),
        "largest_relative_difference": worst,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }
    write_json(RESULTS, results)
    print(f"{run}: {results[run]}")


if __name__ == "__main__":
    main()
