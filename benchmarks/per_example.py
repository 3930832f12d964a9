"""What per-example gradients cost beside plain backprop, by every way there is in JAX.

    python benchmarks/per_example.py                          # about an hour on two cores
    python benchmarks/per_example.py --only='MiniLM, B = 8, T = 32' --rounds=7

Gradients alone: no optimizer, no dropout, random weights and tokens. Each variant gives the
gradient of a weighted loss, the weights being min(1, clip / ‖∇ℓ_i‖) / B, which all the rivals can
do; except for `plain` (equal weights), `fixed weights` (known beforehand: what keeping factors
costs without the norms) and `norms alone`. Ours are timed in turn with plain, and then the rivals
with plain: those that allocate a gigabyte slow down whatever runs after them. Every setting is
written as it ends, and those that the file has are not measured again.
"""

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import interleaved
import jax
import jax.numpy as jnp
import jax_privacy.clipping
import optax
from flax import nnx
from transformers import BertConfig

from sie_jax import per_example
from sie_jax.models import PairClassifier
from sie_jax.models.bert import BertLayer

NUM_LABELS = 4
VOCABULARY = 30522
CLIP = 1.0
MINILM = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}
BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
# name: (shape, scanned and rematerialised, batch size, length)
SETTINGS: dict[str, tuple[dict[str, int], bool, int, int]] = {
    **{
        f"MiniLM, B = {size}, T = {length}": (MINILM, False, size, length)
        for size in (8, 32)
        for length in (32, 64, 128)
    },
    "MiniLM, scan + remat, B = 8, T = 128": (MINILM, True, 8, 128),
    "BERT-base, B = 8, T = 128": (BASE, False, 8, 128),
}


def unrolled(config: BertConfig, dtype: Any) -> tuple[Any, Callable[..., Any]]:
    """Parameters, and logits [..., K] of tokens [..., T]."""
    model = PairClassifier(config, num_labels=NUM_LABELS, dtype=dtype, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model)
    return params, lambda params, ids: nnx.merge(graphdef, params)(ids)


def scanned(config: BertConfig, dtype: Any) -> tuple[Any, Callable[..., Any]]:
    """The same network, its layers stacked, scanned over and rematerialised."""
    config.num_hidden_layers, depth = 0, config.num_hidden_layers
    ends, params = nnx.split(
        PairClassifier(config, num_labels=NUM_LABELS, dtype=dtype, rngs=nnx.Rngs(0))
    )
    split = [nnx.split(BertLayer(config, dtype=dtype, rngs=nnx.Rngs(i))) for i in range(depth)]
    graphdef = split[0][0]
    layers = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(state for _, state in split))

    def logits(params: Any, ids: jax.Array) -> jax.Array:
        model = nnx.merge(ends, params["ends"])

        @jax.checkpoint
        def layer(hidden: jax.Array, state: Any) -> tuple[jax.Array, None]:
            return nnx.merge(graphdef, state)(hidden, None, None), None

        hidden, _ = jax.lax.scan(layer, model.encoder(ids), params["layers"])
        return model.classifier(model.encoder.pool(hidden).astype(jnp.float32))

    return {"ends": params, "layers": layers}, logits


def make_batch(size: int, length: int) -> tuple[jax.Array, jax.Array]:
    keys = jax.random.split(jax.random.key(1))
    ids = jax.random.randint(keys[0], (size, length), 0, VOCABULARY)
    return ids, jax.random.randint(keys[1], (size,), 0, NUM_LABELS)


Variants = dict[str, Callable[..., Any]]


def make_variants(logits: Callable[..., Any]) -> tuple[Variants, Variants]:
    """Plain backprop and ours; the rivals."""

    def losses_of(params, ids, labels):
        return optax.softmax_cross_entropy_with_integer_labels(logits(params, ids), labels)

    def clipped(norms):
        return jnp.minimum(1, CLIP / norms) / len(norms)

    def plain(params, ids, labels):
        # The batch goes through the model whole: what a trainer without weights would write.
        return jax.value_and_grad(lambda p: jnp.mean(losses_of(p, ids, labels)))(params)

    def weighted_backward(params, ids, labels, norms):
        weights = jax.lax.stop_gradient(clipped(norms))
        return jax.grad(lambda p: weights @ losses_of(p, ids, labels))(params)

    def one_pass(params, ids, labels):
        losses, grads = per_example.value_and_grad(losses_of)(params, ids, labels)
        return losses, grads.weighted_sum(clipped(grads.norms()))

    def fixed_weights(params, ids, labels):
        losses, grads = per_example.value_and_grad(losses_of)(params, ids, labels)
        return losses, grads.weighted_sum(jnp.linspace(0.5, 1.5, len(losses)) / len(losses))

    def two_calls(params, ids, labels):
        norms = per_example.grad_norms(losses_of)(params, ids, labels)
        return weighted_backward(params, ids, labels, norms)

    def ghost(params, ids, labels):
        _, grads = per_example.value_and_grad(losses_of)(params, ids, labels)
        return weighted_backward(params, ids, labels, grads.norms())

    def norms_alone(params, ids, labels):
        return per_example.grad_norms(losses_of)(params, ids, labels)

    def norm_of(grads):
        return optax.global_norm(grads)

    def materialised(params, ids, labels):
        grads = jax.vmap(jax.grad(losses_of), in_axes=(None, 0, 0))(params, ids, labels)
        weights = clipped(jax.vmap(norm_of)(grads))
        return jax.tree.map(lambda g: jnp.tensordot(weights, g, 1), grads)

    def privacy(microbatch_size):
        return jax_privacy.clipping.clipped_grad(
            losses_of,
            l2_clip_norm=CLIP,
            batch_argnums=(1, 2),
            keep_batch_dim=False,
            return_values=True,
            microbatch_size=microbatch_size,
        )

    def clip_one(grads):
        scale = jnp.minimum(1, CLIP / norm_of(grads))
        return jax.tree.map(lambda g: scale * g, grads)

    micro = functools.partial(
        optax.microbatching.micro_grad,
        losses_of,
        batch_argnums=(1, 2),
        keep_batch_dim=False,
        transform_fn=clip_one,
        metrics_fn=norm_of,
    )
    ours = {
        "plain": plain,
        "ours, one pass": one_pass,
        "ours, fixed weights": fixed_weights,
        "ours, two calls": two_calls,
        "ours, norms alone": norms_alone,
        "two-pass ghost": ghost,
    }
    rivals = {
        "vmap(grad)": materialised,
        "jax-privacy, microbatch 1": privacy(1),
        "jax-privacy, microbatch 4": privacy(4),
        "jax-privacy, no microbatch": privacy(None),
        "optax micro_grad, microbatch 1": micro(microbatch_size=1),
    }
    return ours, rivals


def largest_batch(variant: Callable[..., Any], params: Any, length: int, limit: int) -> int:
    """The largest batch whose arguments, results and temporaries XLA puts within `limit` bytes.

    Found by halving: memory grows with the batch.
    """

    def fits(size: int) -> bool:
        batch = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in make_batch(size, length)]
        memory: Any = jax.jit(variant).lower(params, *batch).compile().memory_analysis()
        total = memory.argument_size_in_bytes + memory.output_size_in_bytes
        return total + memory.temp_size_in_bytes <= limit

    low, high = 0, 4
    while high <= 4096 and fits(high):
        low, high = high, 2 * high
    while high - low > max(1, low // 16):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def markdown(report: dict[str, Any]) -> str:
    """The time and memory ratios as the table of docs/per_example.md."""
    settings = report["settings"]
    lines = [["", *settings], ["---"] * (1 + len(settings))]
    for variant in next(iter(settings.values())):
        cells = [settings[name][variant] for name in settings]
        ratios = [f"{cell['time_ratio']:.2f} / {cell['memory_ratio']:.2f}" for cell in cells]
        lines.append([variant, *ratios])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=list(SETTINGS), nargs="+", default=list(SETTINGS))
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--skip_largest", action="store_true", help="no search for batch sizes")
    default = Path(__file__).parent / "results" / "per_example.json"
    parser.add_argument("--out", type=Path, default=default)
    arguments = parser.parse_args()
    report: dict[str, Any] = {"settings": {}}
    if arguments.out.exists():
        report = json.loads(arguments.out.read_text())
    report |= {
        "machine": interleaved.machine(),
        "rounds": arguments.rounds,
        "dtype": arguments.dtype,
    }

    def save() -> None:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")

    for name in arguments.only:
        if name in report["settings"]:
            continue
        shape, is_scanned, size, length = SETTINGS[name]
        config = BertConfig(vocab_size=VOCABULARY, **shape)
        params, logits = (scanned if is_scanned else unrolled)(config, jnp.dtype(arguments.dtype))
        inputs = (params, *make_batch(size, length))
        compilations = 3 if shape is BASE else 1
        ours, rivals = make_variants(logits)
        results = interleaved.measure(ours, inputs, arguments.rounds, compilations)
        for rival, result in interleaved.measure(
            {"plain": ours["plain"], **rivals}, inputs, arguments.rounds, compilations
        ).items():
            results.setdefault(rival, result)
        interleaved.print_table(results, f"{name}, {arguments.dtype}")
        report["settings"][name] = results
        save()
    if not arguments.skip_largest and "largest_batch" not in report:
        params, logits = unrolled(BertConfig(vocab_size=VOCABULARY, **MINILM), arguments.dtype)
        ours, rivals = make_variants(logits)
        report["largest_batch"] = {
            "model": "MiniLM, T = 128",
            "limit_bytes": 4 << 30,
            "batch_sizes": {
                name: largest_batch(variant, params, 128, 4 << 30)
                for name, variant in {**ours, **rivals}.items()
            },
        }
        save()
    print(markdown(report))
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
