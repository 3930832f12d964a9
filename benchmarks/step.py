"""What the weighted step costs beside a plain step: time, memory and compilation.

    python benchmarks/step.py                 # a few minutes on two cores
    python benchmarks/step.py --rounds=21 --batch_size=16 --out=benchmarks/results/step.json

Model: the cross-encoder in the shape of MiniLM-L6 (6 layers, hidden 384, 12 heads, intermediate
1536, vocabulary 30522), random weights and tokens, float32, dropout on, AdamW.

The variants run in turn in one process, round after round; a ratio is the median over rounds of the
ratio to the plain step of the same round, so that a machine whose speed drifts does not matter.
"""

import argparse
import functools
import importlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import interleaved
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from transformers import BertConfig

from sie_jax import per_example
from sie_jax.importance import policies
from sie_jax.models import PairClassifier

NUM_LABELS = 4


def build(key: jax.Array) -> tuple[nnx.GraphDef, nnx.State]:
    config = BertConfig(
        vocab_size=30522,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=512,
    )
    seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
    return nnx.split(PairClassifier(config, num_labels=NUM_LABELS, rngs=nnx.Rngs(seed)))


def make_batch(key: jax.Array, batch_size: int, length: int) -> dict[str, jax.Array]:
    """Random tokens; every example has all its tokens, as in a batch of one length."""
    key_ids, key_labels = jax.random.split(key)
    return {
        "input_ids": jax.random.randint(key_ids, (batch_size, length), 0, 30522),
        "token_type_ids": jnp.tile(jnp.arange(length) >= length // 4, (batch_size, 1)).astype(int),
        "attention_mask": jnp.ones((batch_size, length), jnp.int32),
        "labels": jax.random.randint(key_labels, (batch_size,), 0, NUM_LABELS),
    }


def make_variants(graphdef: nnx.GraphDef, optimizer: Any) -> dict[str, Callable[..., Any]]:
    """Each takes (params, opt_state, batch, key); a step returns both and the loss."""

    def losses_of(params, batch, key):
        logits = nnx.merge(graphdef, params)(
            batch["input_ids"],
            batch["token_type_ids"],
            batch["attention_mask"],
            deterministic=False,
            key=key,
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])

    def keys_of(key, batch):
        return jax.random.split(key, batch["labels"].shape[0])

    def update(params, opt_state, grads, loss):
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    def plain(params, opt_state, batch, key):
        # The batch goes through the model whole: what a trainer without weights would write.
        loss, grads = jax.value_and_grad(lambda p: jnp.mean(losses_of(p, batch, key)))(params)
        return update(params, opt_state, grads, loss)

    def weighted(params, opt_state, batch, key):
        keys = keys_of(key, batch)
        losses, grads = per_example.value_and_grad(losses_of)(params, batch, keys)
        weights = policies.Proportional()(grads.norms())
        return update(params, opt_state, grads.weighted_sum(weights), weights @ losses)

    def offline(params, opt_state, batch, key):
        weights = jnp.linspace(0.5, 1.5, batch["labels"].shape[0]) / batch["labels"].shape[0]

        def loss_of(params):
            return weights @ losses_of(params, batch, key)

        loss, grads = jax.value_and_grad(loss_of)(params)
        return update(params, opt_state, grads, loss)

    def norms(params, opt_state, batch, key):
        return per_example.grad_norms(losses_of)(params, batch, keys_of(key, batch))

    def materialised(params, opt_state, batch, key):
        mapped = jax.vmap(jax.value_and_grad(losses_of), in_axes=(None, 0, 0))
        losses, grads = mapped(params, batch, keys_of(key, batch))
        squares = [jnp.sum(g**2, axis=tuple(range(1, g.ndim))) for g in jax.tree.leaves(grads)]
        weights = policies.Proportional()(jnp.sqrt(functools.reduce(jnp.add, squares)))
        total = jax.tree.map(lambda g: jnp.tensordot(weights, g, 1), grads)
        return update(params, opt_state, total, weights @ losses)

    variants = {
        "plain step": plain,
        "weighted step, online": weighted,
        "weighted step, offline weights": offline,
        "norms only": norms,
        "vmap(grad), weighted": materialised,
    }
    rival = make_rival(losses_of, keys_of, update)
    return variants if rival is None else {**variants, "jax-privacy, microbatch 1": rival}


def make_rival(losses_of, keys_of, update) -> Callable[..., Any] | None:
    """Clipping to norm 1 with jax-privacy 2, one example at a time; None if not installed."""
    try:
        clipping = importlib.import_module("jax_privacy.clipping")
    except ImportError:
        return None

    clipped_grad = clipping.clipped_grad(
        losses_of,
        l2_clip_norm=1.0,
        batch_argnums=(1, 2),
        keep_batch_dim=False,
        return_values=True,
        microbatch_size=1,
    )

    def step(params, opt_state, batch, key):
        grads, aux = clipped_grad(params, batch, keys_of(key, batch))
        return update(params, opt_state, grads, jnp.mean(aux.values))

    return step


def measure(length: int, arguments: argparse.Namespace) -> dict[str, Any]:
    graphdef, params = build(jax.random.key(0))
    optimizer = optax.adamw(1e-4)
    batch = make_batch(jax.random.key(1), arguments.batch_size, length)
    inputs = (params, optimizer.init(params), batch, jax.random.key(2))
    variants = make_variants(graphdef, optimizer)
    kept = {name: variants[name] for name in variants if name not in arguments.skip}
    return interleaved.measure(kept, inputs, arguments.rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--skip", nargs="*", default=[], help="variants to leave out, by name")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "step.json")
    arguments = parser.parse_args()
    if importlib.util.find_spec("jax_privacy") is None:
        print("jax-privacy is not installed: no rival is measured (pip install jax-privacy)")
    report: dict[str, Any] = {
        "machine": interleaved.machine(),
        "batch_size": arguments.batch_size,
        "rounds": arguments.rounds,
        "dtype": "float32",
        "lengths": {},
    }
    for length in arguments.lengths:
        results = measure(length, arguments)
        title = f"batch {arguments.batch_size}, {length} tokens, {report['machine']['device']}"
        interleaved.print_table(results, title)
        report["lengths"][str(length)] = results
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
