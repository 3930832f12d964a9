"""Are the influence scores any good, and do dattri's metrics say the same as ours?

    pip install dattri torch && python benchmarks/attribution_metrics.py

A two-layer network on 300 points with 20 % planted wrong labels. The linear datamodeling score of
each estimator over 64 random halves of them (5 networks trained on each), and the AUROC of each
self-influence for the planted errors: by sie_jax.evaluation and by dattri.metric, on the same
arrays. Writes benchmarks/results/attribution_metrics.json. One data set and one seed, to check the
arithmetic: no ranking of the estimators. Under a minute on two CPU cores.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sie_jax import per_example
from sie_jax.evaluation.attribution import linear_datamodeling_score
from sie_jax.evaluation.detection import auroc
from sie_jax.files import write_json
from sie_jax.importance import ekfac, gradients, influence, outputs

RESULTS = Path(__file__).parent / "results" / "attribution_metrics.json"
N, M, SUBSETS, SEEDS, FEATURES, HIDDEN, CLASSES = 300, 30, 64, 5, 10, 16, 3
STEPS, RATE, DECAY, PROJECTION = 400, 0.5, 1e-3, 256
Params = dict[str, jax.Array]


def logits_of(params: Params, x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ params["first"] + params["bias"]) @ params["second"]


def loss_of(params: Params, x: jax.Array, label: jax.Array) -> jax.Array:
    return outputs.loss(logits_of(params, x), label)


def odds_of(params: Params, x: jax.Array, label: jax.Array) -> jax.Array:
    return influence.log_odds(logits_of(params, x), label)


def trained(key: jax.Array, weights: jax.Array, x: jax.Array, labels: jax.Array) -> list[Params]:
    """Gradient descent on the weighted mean loss; the params halfway and at the end."""
    keys = jax.random.split(key)
    params = {
        "first": jax.random.normal(keys[0], (FEATURES, HIDDEN)) / FEATURES**0.5,
        "bias": jnp.zeros(HIDDEN),
        "second": jax.random.normal(keys[1], (HIDDEN, CLASSES)) / HIDDEN**0.5,
    }

    def objective(params: Params) -> jax.Array:
        losses = outputs.loss(logits_of(params, x), labels)
        decay = DECAY * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
        return jnp.sum(weights * losses) / jnp.sum(weights) + decay

    def step(_: Any, params: Params) -> Params:
        return jax.tree.map(lambda p, g: p - RATE * g, params, jax.grad(objective)(params))

    halfway = jax.lax.fori_loop(0, STEPS // 2, step, params)
    return [halfway, jax.lax.fori_loop(0, STEPS // 2, step, halfway)]


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    import torch
    from dattri.metric import (
        lds,
        mislabel_detection_auc,
    )

    generator = np.random.default_rng(0)
    points = generator.normal(size=(N + M, FEATURES)).astype(np.float32)
    truth = np.argmax(points @ generator.normal(size=(FEATURES, CLASSES)), 1)
    wrong = np.arange(N) < N // 5
    labels = np.where(wrong, (truth[:N] + generator.integers(1, CLASSES, N)) % CLASSES, truth[:N])
    x, z, goals = jnp.asarray(points[:N]), jnp.asarray(points[N:]), jnp.asarray(truth[N:])
    given = jnp.asarray(labels)
    subsets = np.stack([generator.permutation(N) < N // 2 for _ in range(SUBSETS)])

    def output_after(key: jax.Array, subset: jax.Array) -> jax.Array:
        return odds_of(trained(key, subset * 1.0, x, given)[1], z, goals)

    keys = jax.random.split(jax.random.key(1), SEEDS)
    of_seeds = jax.vmap(output_after, in_axes=(0, None))
    retrained = jax.jit(lambda all_: jax.lax.map(lambda s: of_seeds(keys, s).mean(0), all_))
    found = np.asarray(retrained(subsets))
    checkpoints = jax.jit(trained)(jax.random.key(0), jnp.ones(N), x, given)

    key = jax.random.key(2)
    norms, pairs, projections, residuals, aims = [], [], [], [], []
    for params in checkpoints:
        _, of_losses = per_example.value_and_grad(loss_of)(params, x, given)
        _, of_targets = per_example.value_and_grad(loss_of)(params, z, goals)
        norms.append(of_losses.norms())
        pairs.append(of_targets.gram(of_losses))
        odds, of_odds = per_example.value_and_grad(odds_of)(params, x, given)
        residuals.append(jax.nn.sigmoid(-odds))
        projections.append(of_odds.project(key, PROJECTION))
        target_odds = per_example.value_and_grad(odds_of)(params, z, goals)[1]
        aims.append(target_odds.project(key, PROJECTION))
    drawn = jax.random.categorical(key, logits_of(checkpoints[-1], x))
    fisher = per_example.value_and_grad(loss_of)(checkpoints[-1], x, drawn)[1]
    bases = ekfac.eigenbases(ekfac.covariance_sums(fisher))
    eigenvalues = [total / N for total in ekfac.eigenvalue_sums(fisher, bases)]
    curvature = ekfac.EKFAC(bases, eigenvalues, damping=0.1)
    each = of_targets.materialize()
    solved = [
        curvature.precondition(jax.tree.map(lambda leaf, m=m: leaf[m], each)) for m in range(M)
    ]
    rates = [RATE] * len(checkpoints)
    dots = jnp.stack(pairs).reshape(len(checkpoints), M * N)
    stacked = jnp.stack(projections), jnp.stack(residuals)
    scores = {
        "tracin": influence.tracin(dots, rates).reshape(M, N),
        "trak": influence.trak(stacked[0], jnp.stack(aims), stacked[1], damping=0.1),
        "ekfac": jnp.stack([of_losses.dot(direction) for direction in solved]),
    }
    own = {
        "grand": gradients.grand(jnp.stack(norms)),
        "tracin_self": influence.tracin_self(jnp.stack(norms), rates),
        "trak_self": influence.trak_self(*stacked, damping=0.1),
        "ekfac_self": curvature.self_influence(of_losses),
    }
    members = torch.tensor(np.stack([np.flatnonzero(subset) for subset in subsets]))
    result: dict[str, Any] = {"linear_datamodeling_score": {}, "mislabelled_auroc": {}}
    for name, score in scores.items():
        ours = linear_datamodeling_score(np.asarray(score), found, subsets)
        of_torch = torch.tensor(np.asarray(score, np.float64).T)
        theirs = lds(of_torch, (torch.tensor(found), members))[0].numpy()
        result["linear_datamodeling_score"][name] = {
            "sie_jax": float(ours.mean()),
            "dattri": float(theirs.mean()),
            "largest_difference": float(np.abs(ours - theirs).max()),
        }
    for name, score in own.items():
        values = np.asarray(score)
        area = float(mislabel_detection_auc(torch.tensor(values), torch.tensor(wrong))[0])
        result["mislabelled_auroc"][name] = {"sie_jax": auroc(values, wrong), "dattri": area}
    result |= {"device": jax.devices()[0].platform, "jax": jax.__version__}
    write_json(RESULTS, result)
    print(RESULTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
