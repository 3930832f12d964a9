"""Small models of every kind that people train, each as the loss of one example."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox
import flax.linen
import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from transformers import BertConfig

from sie_jax.models import FlaxBert

B, T, WIDTH, LAYERS, VOCABULARY = 4, 5, 6, 3, 11


class Model(NamedTuple):
    loss_fn: Callable[..., Any]
    params: Any
    batch: tuple[Any, ...]
    in_axes: Any = 0


def normal(seed: int, *shape: int) -> Array:
    """float64 where x64 is enabled, float32 otherwise."""
    return jax.random.normal(jax.random.key(seed), shape, jnp.result_type(float)) / 2


def tokens(seed: int, *shape: int) -> Array:
    return jax.random.randint(jax.random.key(seed), shape, 0, VOCABULARY)


def to_default_float(tree: Any) -> Any:
    """Libraries initialise in float32; under x64 the models are to run in float64."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.result_type(float)), tree)


def bert() -> Model:
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=T,
        initializer_range=0.5,
    )
    model = FlaxBert(config, dtype=jnp.result_type(float), rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model)

    def loss_fn(params: Any, ids: Array, mask: Array) -> Array:
        merged = nnx.merge(graphdef, params)
        return jnp.sum(merged.pool(merged(ids, attention_mask=mask)) ** 2)

    mask = jnp.arange(T) < jnp.array([[5], [4], [2], [1]])
    return Model(loss_fn, to_default_float(params), (tokens(0, B, T), mask))


def linen_transformer() -> Model:
    class Block(flax.linen.Module):
        @flax.linen.compact
        def __call__(self, ids: Array) -> Array:
            x = flax.linen.Embed(VOCABULARY, 8)(ids)
            x = x + flax.linen.MultiHeadDotProductAttention(num_heads=2)(flax.linen.LayerNorm()(x))
            x = x + flax.linen.Dense(8)(flax.linen.gelu(flax.linen.Dense(12)(x)))
            return flax.linen.Dense(1)(x).mean()

    block, ids = Block(), tokens(0, B, T)
    params = to_default_float(block.init(jax.random.key(1), ids[0])["params"])
    return Model(lambda params, ids: block.apply({"params": params}, ids), params, (ids,))


def equinox_mlp() -> Model:
    mlp = equinox.nn.MLP(4, 3, WIDTH, depth=2, key=jax.random.key(0))
    params, rest = equinox.partition(mlp, equinox.is_array)

    def loss_fn(params: Any, x: Array) -> Array:
        return jax.nn.logsumexp(equinox.combine(params, rest)(x))

    return Model(loss_fn, to_default_float(params), (normal(1, B, 4),))


def equinox_convolution() -> Model:
    class Net(equinox.Module):
        convolution: equinox.nn.Conv2d
        linear: equinox.nn.Linear

        def __call__(self, image: Array) -> Array:
            return self.linear(jnp.tanh(self.convolution(image)).reshape(-1))

    keys = jax.random.split(jax.random.key(0))
    net = Net(equinox.nn.Conv2d(1, 2, 3, key=keys[0]), equinox.nn.Linear(18, 3, key=keys[1]))
    params, rest = equinox.partition(net, equinox.is_array)

    def loss_fn(params: Any, image: Array) -> Array:
        return jax.nn.logsumexp(equinox.combine(params, rest)(image))

    return Model(loss_fn, to_default_float(params), (normal(1, B, 1, 5, 5),))


def gru() -> Model:
    """Weights that stay the same over the steps of the scan; a masked step changes nothing."""

    def loss_fn(params: Any, sequence: Array, mask: Array) -> Array:
        def step(hidden: Array, inputs: Any) -> tuple[Array, None]:
            x, present = inputs
            of_input = x @ params["input"] + params["bias"]
            of_hidden = hidden @ params["hidden"]
            reset, update, _ = jnp.split(jax.nn.sigmoid(of_input + of_hidden), 3)
            candidate = jnp.tanh(of_input[-WIDTH:] + reset * of_hidden[-WIDTH:])
            new = update * hidden + (1 - update) * candidate
            return jnp.where(present > 0, new, hidden), None

        hidden, _ = lax.scan(step, jnp.zeros(WIDTH, sequence.dtype), (sequence, mask))
        return jnp.sum(jnp.tanh(hidden @ params["readout"]) ** 2)

    params = {
        "input": normal(0, 4, 3 * WIDTH),
        "hidden": normal(1, WIDTH, 3 * WIDTH),
        "bias": normal(2, 3 * WIDTH),
        "readout": normal(3, WIDTH, 3),
    }
    return Model(loss_fn, params, (normal(4, B, T, 4), jnp.ones((B, T), params["input"].dtype)))


def block(layer: Any, x: Array, mask: Array) -> Array:
    """A transformer layer with one head; masked positions are not attended to."""
    query, key, value = (x @ layer[name] for name in ("query", "key", "value"))
    logits = jnp.where(mask > 0, query @ key.T / math.sqrt(WIDTH), -1e9)
    x = x + (jax.nn.softmax(logits) @ value) @ layer["merge"]
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred * lax.rsqrt(x.var(-1, keepdims=True) + 1e-3) * layer["scale"]
    return x + jnp.tanh(scaled @ layer["up"] + layer["bias"]) @ layer["down"]


def layers_of(*leading: int) -> dict[str, Array]:
    square = ("query", "key", "value", "merge")
    return {
        **{name: normal(10 + seed, *leading, WIDTH, WIDTH) for seed, name in enumerate(square)},
        "scale": 1 + normal(14, *leading, WIDTH),
        "up": normal(15, *leading, WIDTH, 8),
        "bias": normal(16, *leading, 8),
        "down": normal(17, *leading, 8, WIDTH),
    }


def transformer(apply: Callable[[Any, Array, Array], Array], layers: Any) -> Model:
    """Embedding, `apply(layers, x, mask)`, and a readout summed over the positions of the mask."""

    def loss_fn(params: Any, ids: Array, mask: Array) -> Array:
        x = jnp.take(params["table"], ids, axis=0)
        x = apply(params["layers"], x, mask)
        return jnp.sum(jnp.tanh(x @ params["readout"]) ** 2 * mask[:, None])

    params = {
        "table": normal(0, VOCABULARY, WIDTH),
        "layers": layers,
        "readout": normal(1, WIDTH, 2),
    }
    return Model(loss_fn, params, (tokens(2, B, T), jnp.ones((B, T), params["table"].dtype)))


def scanned_transformer() -> Model:
    def apply(layers: Any, x: Array, mask: Array) -> Array:
        return lax.scan(lambda x, layer: (block(layer, x, mask), None), x, layers)[0]

    return transformer(apply, layers_of(LAYERS))


def remat_transformer() -> Model:
    def apply(layers: Any, x: Array, mask: Array) -> Array:
        for layer in layers:
            x = jax.checkpoint(block)(layer, x, mask)
        return x

    stacked = layers_of(2)
    return transformer(apply, [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(2)])


def scan_remat_transformer() -> Model:
    def apply(layers: Any, x: Array, mask: Array) -> Array:
        @functools.partial(jax.checkpoint, prevent_cse=False)
        def step(x: Array, layer: Any) -> tuple[Array, None]:
            return block(layer, x, mask), None

        return lax.scan(step, x, layers)[0]

    return transformer(apply, layers_of(LAYERS))


def nested_scan() -> Model:
    """A stack of recurrent layers: the outer scan goes over layers, the inner over time."""

    def loss_fn(params: Any, sequence: Array) -> Array:
        def layer(sequence: Array, weights: Any) -> tuple[Array, None]:
            def step(hidden: Array, x: Array) -> tuple[Array, Array]:
                hidden = x @ weights["input"] + hidden @ weights["hidden"] + weights["bias"]
                return jnp.tanh(hidden), jnp.tanh(hidden)

            return lax.scan(step, jnp.zeros(WIDTH, sequence.dtype), sequence)[1], None

        sequence, _ = lax.scan(layer, sequence, params["layers"])
        return jnp.sum((sequence @ params["readout"]) ** 2)

    layers = {
        "input": normal(0, LAYERS, WIDTH, WIDTH),
        "hidden": normal(1, LAYERS, WIDTH, WIDTH),
        "bias": normal(2, LAYERS, WIDTH),
    }
    params = {"layers": layers, "readout": normal(3, WIDTH, 2)}
    return Model(loss_fn, params, (normal(4, B, T, WIDTH),))


def tied_language_model() -> Model:
    """The table that embeds tokens is the output layer too."""

    def loss_fn(params: Any, ids: Array, mask: Array) -> Array:
        x = jnp.tanh(jnp.take(params["table"], ids, axis=0) @ params["kernel"])
        causal = jnp.tri(len(ids), dtype=x.dtype)
        x = causal @ x / causal.sum(1, keepdims=True)
        log_p = jax.nn.log_softmax(x @ params["table"].T)
        targets = jnp.roll(ids, -1)
        of_targets = jnp.take_along_axis(log_p, targets[:, None], axis=1)[:, 0]
        # The last position has nothing after it; a position counts if the next one is present.
        return -jnp.sum(of_targets[:-1] * mask[1:]) - 0.1 * jnp.sum(log_p[0]) * mask[0]

    params = {"table": normal(0, VOCABULARY, WIDTH), "kernel": normal(1, WIDTH, WIDTH)}
    return Model(loss_fn, params, (tokens(2, B, T), jnp.ones((B, T), params["table"].dtype)))


def adapted(adapter: Any, base: Array, x: Array) -> Array:
    for kernel in base:
        x = jnp.tanh(x @ kernel + (x @ adapter["down"]) @ adapter["up"])
    return jnp.sum(x**2)


def lora_closed_over() -> Model:
    """Adapters beside a frozen base that the loss closes over."""
    base = normal(0, 2, WIDTH, WIDTH)
    params = {"down": normal(1, WIDTH, 2), "up": normal(2, 2, WIDTH)}
    return Model(lambda params, x: adapted(params, base, x), params, (normal(3, B, T, WIDTH),))


def lora_passed_whole() -> Model:
    """The same with the base as an argument that every example gets whole."""
    params = {"down": normal(1, WIDTH, 2), "up": normal(2, 2, WIDTH)}
    batch = (normal(0, 2, WIDTH, WIDTH), normal(3, B, T, WIDTH))
    return Model(adapted, params, batch, (None, 0))


def conditional() -> Model:
    def loss_fn(params: Any, x: Array) -> Array:
        hidden = jnp.tanh(x @ params["kernel"])
        gated = lax.cond(
            x[0, 0] > 0, lambda w: hidden @ w, lambda w: hidden @ (w @ w), params["gate"]
        )
        return jnp.sum(gated**2)

    params = {"kernel": normal(0, WIDTH, WIDTH), "gate": normal(1, WIDTH, WIDTH)}
    return Model(loss_fn, params, (normal(2, B, T, WIDTH),))


def three_places() -> Model:
    """One weight in three products, one of them of another length."""

    def loss_fn(params: Any, x: Array) -> Array:
        hidden = jnp.tanh(x @ params["kernel"])
        hidden = jnp.tanh(hidden @ params["kernel"])
        return jnp.sum((hidden.mean(0) @ params["kernel"]) ** 2)

    return Model(loss_fn, {"kernel": normal(0, WIDTH, WIDTH)}, (normal(1, B, T, WIDTH),))


def straight_and_transposed() -> Model:
    """An autoencoder of one weight."""

    def loss_fn(params: Any, x: Array) -> Array:
        hidden = jnp.tanh(x @ params["kernel"] + params["bias"])
        return jnp.sum((hidden @ params["kernel"].T - x) ** 2)

    params = {"kernel": normal(0, WIDTH, 3), "bias": normal(1, 3)}
    return Model(loss_fn, params, (normal(2, B, T, WIDTH),))


def custom_derivative() -> Model:
    """The product's stated derivative is not its own, so only plain AD can know it."""

    @jax.custom_vjp
    def product(x: Array, kernel: Array) -> Array:
        return x @ kernel

    def forward(x: Array, kernel: Array) -> Any:
        return x @ kernel, (x, kernel)

    def backward(saved: Any, cotangent: Array) -> Any:
        x, kernel = saved
        return cotangent @ kernel.T, jnp.clip(2 * (x.T @ cotangent), -1, 1)

    product.defvjp(forward, backward)

    def loss_fn(params: Any, x: Array) -> Array:
        return jnp.sum(jnp.tanh(product(x @ params["kernel"], params["custom"])) ** 2)

    params = {"kernel": normal(0, WIDTH, WIDTH), "custom": normal(1, WIDTH, 3)}
    return Model(loss_fn, params, (normal(2, B, T, WIDTH),))


MODELS: dict[str, Callable[[], Model]] = {
    model.__name__: model
    for model in (
        bert,
        linen_transformer,
        equinox_mlp,
        equinox_convolution,
        gru,
        scanned_transformer,
        remat_transformer,
        scan_remat_transformer,
        nested_scan,
        tied_language_model,
        lora_closed_over,
        lora_passed_whole,
        conditional,
        three_places,
        straight_and_transposed,
        custom_derivative,
    )
}


def _one(loss_fn: Callable[..., Array], **params: Array) -> Model:
    return Model(loss_fn, params, (normal(90, B, T, WIDTH), tokens(91, B, T)))


def scan_backwards() -> Model:
    def loss_fn(params: Any, x: Array, ids: Array) -> Array:
        def step(hidden: Array, token: Array) -> tuple[Array, Array]:
            hidden = jnp.tanh(token @ params["input"] + hidden @ params["hidden"])
            return hidden, hidden

        _, forwards = lax.scan(step, jnp.zeros(WIDTH, x.dtype), x)
        _, backwards = lax.scan(step, jnp.zeros(WIDTH, x.dtype), x, reverse=True, unroll=2)
        return jnp.sum(forwards * backwards)

    return _one(loss_fn, input=normal(0, WIDTH, WIDTH), hidden=normal(1, WIDTH, WIDTH))


def weight_in_carry() -> Model:
    """The scan hands the weight on from step to step, or a changed one."""

    def loss_fn(params: Any, x: Array, ids: Array) -> Array:
        def step(carry: Any, token: Array) -> tuple[Any, Array]:
            same, changed = carry
            return (same, changed * 0.9), jnp.tanh(token @ same) @ changed

        carry = (params["same"], params["changed"])
        return jnp.sum(lax.scan(step, carry, x)[1] ** 2)

    return _one(loss_fn, same=normal(0, WIDTH, WIDTH), changed=normal(1, WIDTH, 2))


def inside_and_outside() -> Model:
    """One weight in a product outside, in a scan as a constant, and after it."""

    def loss_fn(params: Any, x: Array, ids: Array) -> Array:
        kernel = params["kernel"]
        x = jnp.tanh(x @ kernel)
        hidden, rest = lax.scan(lambda h, t: (jnp.tanh(t + h @ kernel), h), x[0], x)
        return jnp.sum((hidden @ kernel) ** 2) + jnp.sum(rest @ kernel.T)

    return _one(loss_fn, kernel=normal(0, WIDTH, WIDTH))


def constant_and_stacked() -> Model:
    """A stack whose layers a scan goes through, and that a product uses whole besides."""

    def loss_fn(params: Any, x: Array, ids: Array) -> Array:
        stack = params["stack"]
        x, _ = lax.scan(lambda x, kernel: (jnp.tanh(x @ kernel), None), x, stack)
        return jnp.sum(jnp.einsum("td,lde->tle", x, stack) ** 2)

    return _one(loss_fn, stack=normal(0, LAYERS, WIDTH, WIDTH))


def stack_scanned_twice() -> Model:
    """Once upwards with the kernels and once downwards with their transposes."""

    def loss_fn(params: Any, x: Array, ids: Array) -> Array:
        x, _ = lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params["stack"])
        x, _ = lax.scan(lambda x, w: (jnp.tanh(x @ w.T), None), x, params["stack"], reverse=True)
        x, _ = lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params["stack"], reverse=True)
        return jnp.sum(x**2)

    return _one(loss_fn, stack=normal(0, LAYERS, WIDTH, WIDTH))


def stack_sliced() -> Model:
    """Layers taken from a stack by a number known when tracing, and by one that is not."""

    def loss_fn(params: Any, x: Array, ids: Array) -> Array:
        for layer in range(LAYERS):
            x = jnp.tanh(x @ params["sliced"][layer])

        def step(layer: Array, x: Array) -> Array:
            return jnp.tanh(x @ lax.dynamic_index_in_dim(params["indexed"], layer, 0, False))

        return jnp.sum(lax.fori_loop(0, LAYERS, step, x) ** 2)

    return _one(loss_fn, sliced=normal(0, LAYERS, 6, 6), indexed=normal(1, LAYERS, 6, 6))


def stack_transposed() -> Model:
    """The stack's axes are permuted on the way into the scan."""

    def loss_fn(params: Any, x: Array, ids: Array) -> Array:
        stack = jnp.transpose(params["stack"], (2, 1, 0))
        return jnp.sum(lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, stack)[0] ** 2)

    return _one(loss_fn, stack=normal(0, WIDTH, WIDTH, LAYERS))


def stack_of_stacks() -> Model:
    def loss_fn(params: Any, x: Array, ids: Array) -> Array:
        def inner(x: Array, kernel: Array) -> tuple[Array, None]:
            return jnp.tanh(x @ kernel), None

        def outer(x: Array, kernels: Array) -> tuple[Array, None]:
            return lax.scan(inner, x, kernels)[0], None

        return jnp.sum(lax.scan(outer, x, params["stack"])[0] ** 2)

    return _one(loss_fn, stack=normal(0, 2, LAYERS, WIDTH, WIDTH))


def scan_with_results() -> Model:
    """The loss reads every layer's result; some of what the scan returns is not read."""

    def loss_fn(params: Any, x: Array, ids: Array) -> Array:
        def layer(x: Array, given: Any) -> tuple[Array, Any]:
            kernel, dead, number = given
            x = jnp.tanh(x @ kernel) * number
            return x, (x.sum(), x @ dead)

        numbers = jnp.arange(1, 1 + LAYERS, dtype=x.dtype)
        _, (sums, _) = lax.scan(layer, x, (params["stack"], params["dead"], numbers))
        return jnp.sum(sums**2)

    stack = normal(0, LAYERS, WIDTH, WIDTH)
    return _one(loss_fn, stack=stack, dead=normal(1, LAYERS, WIDTH, 2))


def scan_with_penalty() -> Model:
    """Beside its product, each layer's kernel is squared."""

    def loss_fn(params: Any, x: Array, ids: Array) -> Array:
        def layer(x: Array, kernel: Array) -> tuple[Array, Array]:
            return jnp.tanh(x @ kernel), jnp.sum(kernel**2)

        x, penalties = lax.scan(layer, x, params["stack"])
        return jnp.sum(x**2) + jnp.sum(penalties)

    return _one(loss_fn, stack=normal(0, LAYERS, WIDTH, WIDTH))


def table_in_scan() -> Model:
    """Tokens are looked up step by step, also one that the last step chose."""

    def loss_fn(params: Any, x: Array, ids: Array) -> Array:
        def step(carry: Any, token: Array) -> tuple[Any, Array]:
            hidden, chosen = carry
            rows = params["table"][token] + jnp.take(params["table"], chosen, axis=0, mode="clip")
            hidden = jnp.tanh(rows + hidden @ params["kernel"])
            chosen = jnp.argmax(hidden) * 3  # may lie past the end
            return (hidden, chosen), hidden @ params["table"].T

        start = (jnp.zeros(WIDTH, x.dtype), jnp.zeros((), ids.dtype))
        logits = lax.scan(step, start, ids)[1]
        return jnp.sum(jax.nn.log_softmax(logits) ** 2)

    return _one(loss_fn, table=normal(0, VOCABULARY, WIDTH), kernel=normal(1, WIDTH, WIDTH))


def ids_out_of_range() -> Model:
    """In every mode, outside a scan; negative ids wrap."""

    def loss_fn(params: Any, x: Array, ids: Array) -> Array:
        ids = 3 * ids - VOCABULARY
        filled = jnp.take(params["filled"], ids, axis=0, mode="fill", fill_value=0)
        got = params["got"].at[ids].get(mode="fill", fill_value=0.5)
        clipped = params["clipped"].at[ids].get(mode="clip")
        wrapped = jnp.take(params["wrapped"], ids, axis=0, mode="wrap")
        return jnp.sum((filled + got + x) ** 2 * clipped * wrapped)

    names = ("filled", "got", "clipped", "wrapped")
    return _one(loss_fn, **{name: normal(i, VOCABULARY, 6) for i, name in enumerate(names)})


def tied_outside_and_inside() -> Model:
    """A table looked up outside a scan and multiplied inside it, under a checkpoint."""

    def loss_fn(params: Any, x: Array, ids: Array) -> Array:
        @jax.checkpoint
        def step(hidden: Array, row: Array) -> tuple[Array, Array]:
            hidden = jnp.tanh(row + hidden)
            return hidden, jax.nn.log_softmax(params["table"] @ hidden)[0]

        rows = params["table"][ids]
        return jnp.sum(lax.scan(step, jnp.zeros(WIDTH, x.dtype), rows)[1])

    return _one(loss_fn, table=normal(0, VOCABULARY, WIDTH))


def vmap_in_loss() -> Model:
    """The product is batched along time before the loss is; heads have a kernel each."""

    def loss_fn(params: Any, x: Array, ids: Array) -> Array:
        x = jax.vmap(lambda token: jnp.tanh(params["kernel"] @ token))(x)
        heads = x.reshape(T, 2, 3)
        return jnp.sum(jnp.einsum("thd,hde->the", heads, params["heads"]) ** 2)

    return _one(loss_fn, kernel=normal(0, WIDTH, WIDTH), heads=normal(1, 2, 3, 2))


def checkpoints() -> Model:
    """Nested, with a policy, over weights that are closed over; one weight in and outside."""

    def loss_fn(params: Any, x: Array, ids: Array) -> Array:
        @jax.checkpoint
        def outer(x: Array) -> Array:
            inner = jax.checkpoint(
                lambda w, x: jnp.tanh(x @ w), policy=jax.checkpoint_policies.dots_saveable
            )
            return jnp.sin(inner(params["kernel"], x) @ params["other"])

        return jnp.sum(outer(outer(x)) @ params["kernel"])

    return _one(loss_fn, kernel=normal(0, WIDTH, WIDTH), other=normal(1, WIDTH, WIDTH))


def cond_and_scan() -> Model:
    """A scan in a branch, and a branch in a scan; the kernel meets data beside them."""

    def loss_fn(params: Any, x: Array, ids: Array) -> Array:
        def scanned(x: Array) -> Array:
            return lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params["first"])[0]

        x = lax.cond(ids[0] > 4, scanned, jnp.sin, x)

        def layer(x: Array, kernel: Array) -> tuple[Array, None]:
            x = jnp.tanh(x @ params["kernel"])
            return lax.cond(x[0, 0] > 0, lambda x: x @ kernel, jnp.cos, x), None

        return jnp.sum(lax.scan(layer, x, params["second"])[0] ** 2)

    first, second = normal(0, 2, WIDTH, WIDTH), normal(1, 2, WIDTH, WIDTH)
    return _one(loss_fn, first=first, second=second, kernel=normal(2, WIDTH, WIDTH))


def gradient_in_loss() -> Model:
    """A penalty on the gradient by the data: the backward pass of a scan is in the loss."""

    def loss_fn(params: Any, x: Array, ids: Array) -> Array:
        def energy(x: Array) -> Array:
            x, _ = lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params["stack"])
            return jnp.sum(jnp.tanh(x @ params["readout"]))

        value, slope = jax.value_and_grad(energy)(x)
        return value + jnp.sum(slope**2)

    return _one(loss_fn, stack=normal(0, 2, WIDTH, WIDTH), readout=normal(1, WIDTH, 2))


def data_without_example() -> Model:
    """What meets the weights is the same for every example, or an integer, or another weight."""

    def loss_fn(params: Any, x: Array, ids: Array) -> Array:
        prompt = jnp.tanh(jnp.ones((T, WIDTH), x.dtype) @ params["kernel"])
        counts = jnp.sum(jax.nn.one_hot(ids, WIDTH, dtype=jnp.int32), 0)
        of_counts = counts @ params["counted"]
        product, _ = lax.scan(lambda h, w: (h @ w, None), params["start"], params["stack"])
        return jnp.sum(x * prompt) + jnp.sum(jnp.sin(of_counts)) + jnp.sum((x @ product) ** 2)

    square = {
        name: normal(i, WIDTH, WIDTH) for i, name in enumerate(("kernel", "counted", "start"))
    }
    return _one(loss_fn, **square, stack=normal(4, 2, WIDTH, WIDTH))


def calls_in_scan() -> Model:
    """Jitted and custom-derivative functions in the body; the same jitted function twice."""

    @jax.jit
    def dense(x: Array, kernel: Array) -> Array:
        return jax.nn.silu(x @ kernel)

    def loss_fn(params: Any, x: Array, ids: Array) -> Array:
        def layer(x: Array, kernel: Array) -> tuple[Array, None]:
            return jax.nn.relu(dense(dense(x, kernel), params["kernel"])), None

        x, _ = lax.scan(layer, x + dense(x, params["kernel"]), params["stack"])
        return jnp.sum(jax.nn.logsumexp(x, axis=-1))

    return _one(loss_fn, kernel=normal(0, WIDTH, WIDTH), stack=normal(1, LAYERS, WIDTH, WIDTH))


def short_scans() -> Model:
    """Of one step and of none."""

    def loss_fn(params: Any, x: Array, ids: Array) -> Array:
        def layer(x: Array, kernel: Array) -> tuple[Array, None]:
            return jnp.tanh(x @ kernel), None

        x, _ = lax.scan(layer, x, params["one"])
        x, _ = lax.scan(layer, x, params["none"])
        x, _ = lax.scan(lambda x, _: (jnp.tanh(x @ params["kernel"]), None), x, length=0)
        return jnp.sum(x)

    one, none = normal(0, 1, WIDTH, WIDTH), normal(1, 0, WIDTH, WIDTH)
    return _one(loss_fn, one=one, none=none, kernel=normal(2, WIDTH, WIDTH))


PROGRAMS: dict[str, Callable[[], Model]] = {
    program.__name__: program
    for program in (
        scan_backwards,
        weight_in_carry,
        inside_and_outside,
        constant_and_stacked,
        stack_scanned_twice,
        stack_sliced,
        stack_transposed,
        stack_of_stacks,
        scan_with_results,
        scan_with_penalty,
        table_in_scan,
        ids_out_of_range,
        tied_outside_and_inside,
        vmap_in_loss,
        checkpoints,
        cond_and_scan,
        gradient_in_loss,
        data_without_example,
        calls_in_scan,
        short_scans,
    )
}
