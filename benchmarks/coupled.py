"""What contributions under a coupled loss cost beside the plain step of that loss.

    python benchmarks/coupled.py                 # some minutes on two cores
    python benchmarks/coupled.py --rounds=21 --out=benchmarks/results/coupled.json

Model: the cross-encoder in the shape of MiniLM-L6 with one output (6 layers, hidden 384), random
weights and tokens, float32, dropout on, no optimizer. Loss: the mean softmax over lists of 16 pairs
of 32 tokens. The plain step is `value_and_grad` of it; every other variant gives the value and what
its name says, and those "and gradient" give the gradient too, as the plain step does.

The variants run in turn in one process, as in benchmarks/step.py.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import interleaved
import jax
import jax.numpy as jnp
import rax
from flax import nnx
from same_results import commit_of
from transformers import BertConfig

from sie_jax import per_example
from sie_jax.importance import policies
from sie_jax.models import PairClassifier


def build(arguments: argparse.Namespace) -> tuple[nnx.GraphDef, nnx.State]:
    config = BertConfig(
        vocab_size=30522,
        hidden_size=arguments.hidden,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.hidden // 32,
        intermediate_size=4 * arguments.hidden,
        max_position_embeddings=512,
    )
    return nnx.split(PairClassifier(config, num_labels=1, rngs=nnx.Rngs(0)))


def make_inputs(params: nnx.State, arguments: argparse.Namespace) -> tuple[Any, ...]:
    """Random tokens and gains; every pair has all its tokens, as in a batch of one length."""
    lists, size, length = arguments.lists, arguments.size, arguments.length
    ids, gains, dropout = jax.random.split(jax.random.key(1), 3)
    number = lists * size
    units = (
        jax.random.randint(ids, (number, length), 0, 30522),
        jnp.tile(jnp.arange(length) >= length // 4, (number, 1)).astype(jnp.int32),
        jax.random.split(dropout, number),
    )
    return params, units, jax.random.randint(gains, (lists, size), 0, 4).astype(jnp.float32)


def make_variants(graphdef: nnx.GraphDef, lists: int) -> dict[str, Callable[..., Any]]:
    """Each takes (params, units, gains)."""

    def score(params, ids, types, key):
        model = nnx.merge(graphdef, params)
        return model(ids, types, deterministic=False, key=key)[0]

    def coupling(scores, rest, gains):
        return rax.softmax_loss(scores.reshape(gains.shape), gains)

    def plain(params, units, gains):
        # the units go through the model by vmap, each with its own key: the loss itself is the same
        def loss(params):
            return coupling(jax.vmap(score, in_axes=(None, 0, 0, 0))(params, *units), None, gains)

        return jax.value_and_grad(loss)(params)

    transform = per_example.coupled_value_and_grad(score, coupling)

    def variant(ask: Callable[[per_example.Contributions], Any]) -> Callable[..., Any]:
        def run(params, units, gains):
            value, found = transform(params, units, None, gains)
            return value, ask(found)

        return run

    def by_units(found):
        norms = found.norms()
        return found.weighted_sum(policies.Proportional()(norms))

    def by_units_and_list_norms(found):
        norms = found.norms()
        return found.weighted_sum(policies.Proportional()(norms)), found.lists(lists).norms()

    def by_lists(found):
        of_lists = found.lists(lists)
        norms = of_lists.norms()
        return found.norms(), norms, of_lists.weighted_sum(policies.Proportional()(norms))

    def agreement(found):
        return found.norms(), found.lists(lists).norms(), found.agreement(lists)

    def agreement_by_lists(found):
        return by_lists(found), found.agreement(lists)

    def alone(params, units, gains):
        find = per_example.coupled_grad_norms(score, coupling, lists=lists)
        value, found = find(params, units, None, gains)
        return value, found.units, found.lists

    return {
        "plain coupled step": plain,
        "norms of units": variant(lambda found: found.norms()),
        "norms of units, gradient weighted by unit": variant(by_units),
        "norms of units and lists": variant(
            lambda found: (found.norms(), found.lists(lists).norms())
        ),
        "norms of units and lists, gradient weighted by list": variant(by_lists),
        "norms of units and lists, gradient weighted by unit": variant(by_units_and_list_norms),
        "norms, and agreement of pairs with their list": variant(agreement),
        "norms, agreement, gradient weighted by list": variant(agreement_by_lists),
        "full Gram matrix": variant(lambda found: found.gram()),
        "norms of units and lists, no factors": alone,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--lists", type=int, default=4)
    parser.add_argument("--size", type=int, default=16, help="pairs of a list")
    parser.add_argument("--length", type=int, default=32, help="tokens of a pair")
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--skip", nargs="*", default=[], help="variants to leave out, by name")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "coupled.json"
    )
    arguments = parser.parse_args()
    graphdef, params = build(arguments)
    variants = make_variants(graphdef, arguments.lists)
    kept = {name: variants[name] for name in variants if name not in arguments.skip}
    results = interleaved.measure(kept, make_inputs(params, arguments), arguments.rounds)
    settings = {
        name: getattr(arguments, name)
        for name in ("rounds", "lists", "size", "length", "hidden", "layers")
    }
    report = {
        "machine": interleaved.machine(),
        "commit": commit_of("HEAD"),
        **settings,
        "dtype": "float32",
        "results": results,
    }
    title = "{lists} lists of {size} pairs of {length} tokens, {layers} layers, hidden {hidden}"
    interleaved.print_table(results, title.format(**settings))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
