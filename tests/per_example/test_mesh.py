"""On eight devices: the results of one, and no collective beyond the plain step's but O(B) numbers.

The eight simulated devices need their own process: this file, run as a program, prints for every
way of sharding the difference to one device, and the collectives that the compiled step has and
the plain step lacks.
"""

import collections
import json
import math
import os
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

B = 16
WAYS = ("data", "fsdp", "tensor")


def compare() -> None:
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

    from sie_jax import per_example

    T, WIDTH, VOCABULARY = 8, 16, 64

    def normal(seed: int, *shape: int) -> jax.Array:
        return jax.random.normal(jax.random.key(seed), shape) / 4

    def make_layer(seed: int) -> dict[str, jax.Array]:
        return {
            "qkv": normal(seed, 3, WIDTH, 2, WIDTH // 2),
            "out": normal(seed + 1, 2, WIDTH // 2, WIDTH),
            "up": normal(seed + 2, WIDTH, 4 * WIDTH),
            "bias": normal(seed + 3, 4 * WIDTH),
            "down": normal(seed + 4, 4 * WIDTH, WIDTH),
        }

    params = {
        "table": normal(0, VOCABULARY, WIDTH),
        "layers": [make_layer(10), make_layer(20)],
        "head": normal(1, WIDTH, 8),
    }
    ids = jax.random.randint(jax.random.key(2), (B, T), 0, VOCABULARY)
    labels = jax.random.randint(jax.random.key(3), (B,), 0, 8)

    def loss_fn(params, ids, label):
        x = params["table"][ids]
        for layer in params["layers"]:
            query, key, value = jnp.einsum("td,kdhe->khte", x, layer["qkv"])
            attention = jax.nn.softmax(jnp.einsum("hte,hse->hts", query, key))
            x = x + jnp.einsum("hts,hse,hed->td", attention, value, layer["out"])
            x = x + jax.nn.gelu(x @ layer["up"] + layer["bias"]) @ layer["down"]
        return -jax.nn.log_softmax(x.mean(0) @ params["head"])[label]

    def plain(params, ids, labels):
        def mean_loss(params):
            return jnp.mean(jax.vmap(loss_fn, in_axes=(None, 0, 0))(params, ids, labels))

        return jax.grad(mean_loss)(params)

    def weights_of(norms):
        return norms / jnp.sum(norms)

    def one_pass(params, ids, labels):
        _, grads = per_example.value_and_grad(loss_fn)(params, ids, labels)
        norms = grads.norms()
        return grads.weighted_sum(weights_of(norms)), norms

    def two_calls(params, ids, labels):
        norms = per_example.grad_norms(loss_fn)(params, ids, labels)
        weights = jax.lax.stop_gradient(weights_of(norms))

        def weighted_loss(params):
            return weights @ jax.vmap(loss_fn, in_axes=(None, 0, 0))(params, ids, labels)

        return jax.grad(weighted_loss)(params), norms

    def by_tensor(path, leaf):
        """As Megatron splits it: heads and the hidden layer over `tensor`."""
        axes = {"qkv": (None, None, "tensor"), "out": ("tensor",), "up": (None, "tensor")}
        axes |= {"bias": ("tensor",), "down": ("tensor",), "table": (), "head": ()}
        return PartitionSpec(*axes[path[-1].key])

    def by_data(path, leaf):
        """Each leaf over `data`, along its longest axis that eight devices divide."""
        sizes = [n if n % 8 == 0 else 0 for n in leaf.shape]
        longest = sizes.index(max(sizes))
        return PartitionSpec(*(None,) * longest, "data")

    def collectives(text: str) -> collections.Counter[str]:
        """How often each collective of each size occurs: 'all-reduce of 128 numbers': 2."""
        found: collections.Counter[str] = collections.Counter()
        for shapes, kind in re.findall(
            r"= (\S+|\([^)]*\)) (all-reduce|all-gather|reduce-scatter|all-to-all|"
            r"collective-permute)(?:-start)?\(",
            text,
        ):
            for sizes in re.findall(r"\w+\[([\d,]*)\]", shapes):
                numbers = math.prod(int(size) for size in sizes.split(",") if size)
                found[f"{kind} of {numbers} numbers"] += 1
        return found

    def run(function, mesh: Mesh, spec_of):
        shardings = jax.tree_util.tree_map_with_path(
            lambda path, leaf: NamedSharding(mesh, spec_of(path, leaf)), params
        )
        over_batch = NamedSharding(mesh, PartitionSpec("data"))
        # What makes sharded parameters "fully sharded data parallel": whole where they are used.
        gathers = spec_of is by_data

        def step(params, ids, labels):
            if gathers:
                params = jax.lax.with_sharding_constraint(
                    params, NamedSharding(mesh, PartitionSpec())
                )
            return function(params, ids, labels)

        inputs = (
            jax.device_put(params, shardings),
            *jax.device_put((ids, labels), over_batch),
        )
        out = shardings if function is plain else (shardings, over_batch)
        compiled = jax.jit(step, out_shardings=out).lower(*inputs).compile()
        return jax.device_get(compiled(*inputs)), collectives(compiled.as_text())

    def mesh_of(**axes: int) -> Mesh:
        kinds = (AxisType.Auto,) * len(axes)
        devices = jax.devices()[: math.prod(axes.values())]
        return jax.make_mesh(tuple(axes.values()), tuple(axes), kinds, devices=devices)

    ways = {
        "data": (mesh_of(data=8), lambda path, leaf: PartitionSpec()),
        "fsdp": (mesh_of(data=8), by_data),
        "tensor": (mesh_of(data=4, tensor=2), by_tensor),
    }
    assert set(ways) == set(WAYS)
    single = mesh_of(data=1)
    report: dict[str, object] = {"devices": jax.device_count()}
    for name, function in (("one pass", one_pass), ("two calls", two_calls)):
        expected, none = run(function, single, lambda path, leaf: PartitionSpec())
        assert not none
        for way, (mesh, spec_of) in ways.items():
            _, of_plain = run(plain, mesh, spec_of)
            found, ours = run(function, mesh, spec_of)
            pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
            report[f"{name}, {way}"] = {
                "error": max(float(np.max(np.abs(x - y)) / np.max(np.abs(y))) for x, y in pairs),
                "plain": of_plain,
                "added": ours - of_plain,
            }
    print(json.dumps(report, indent=2))


def numbers(collective: str) -> int:
    return int(re.findall(r"\d+", collective)[0])


@pytest.fixture(scope="module")
def report():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = {
        **os.environ,
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # the collectives are the same
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags,
    }
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["devices"] == 8
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("route", ["one pass", "two calls"])
def test_eight_devices_give_the_results_of_one(report, route, way):
    # float32 sums over the batch, of order 10 roundings, in another order
    assert report[f"{route}, {way}"]["error"] < 1e-5


@pytest.mark.parametrize("way", ["data", "fsdp"])
@pytest.mark.parametrize("route", ["one pass", "two calls"])
def test_collectives_beyond_the_plain_step_move_order_of_batch_size_numbers(report, route, way):
    found = report[f"{route}, {way}"]
    assert found["plain"], "the plain step moves gradients: nothing found means nothing parsed"
    moved = {name: numbers(name) * count for name, count in found["added"].items()}
    assert all(numbers(name) <= B for name in moved), moved
    assert sum(moved.values()) <= 4 * B, moved


if __name__ == "__main__":
    compare()
