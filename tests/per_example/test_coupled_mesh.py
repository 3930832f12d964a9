"""Contributions on 8 devices and on two processes: the results of one device.

Simulated devices need processes of their own: this file, run as a program, leaves what each case
gives with its units, list after list, over all devices.
"""

import functools
import json
import math
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow

CASES = ("softmax", "towers")
# processes and devices of each
LAYOUTS = {"one": (1, 1), "eight": (1, 8), "two processes": (2, 4)}


def numbers_moved(text: str) -> list[int]:
    """How many numbers each array has that a compiled program sends between devices."""
    kinds = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
    moved = re.findall(rf"= (\S+|\([^)]*\)) (?:{kinds})(?:-start)?\(", text)
    shapes = [shape for each in moved for shape in re.findall(r"\w+\[([\d,]*)\]", each)]
    return [math.prod(int(size) for size in shape.split(",") if size) for shape in shapes]


def compute(folder: Path) -> None:
    import coupled
    import jax
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    from sie_jax import per_example

    lists = coupled.LISTS
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    whole, over_lists = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    found: dict[str, Any] = {"devices": [jax.device_count(), jax.process_count()]}

    def place(sharding: NamedSharding, tree: Any) -> Any:
        def one(leaf: Any) -> jax.Array:
            values = np.asarray(leaf)
            return jax.make_array_from_callback(values.shape, sharding, values.__getitem__)

        return jax.tree.map(one, tree)

    def is_key(leaf: Any) -> bool:
        return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)

    for name in CASES:
        case = coupled.ALL[name]()
        keys = jax.tree.map(is_key, case.units)
        units = jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, case.units)

        def one_pass(params, units, rest, arguments, keys=keys, case=case):
            units = jax.tree.map(lambda x, k: jax.random.wrap_key_data(x) if k else x, units, keys)
            transform = per_example.coupled_value_and_grad(case.functions, case.coupling)
            value, found = transform(params, units, rest, *arguments)
            of_lists = found.lists(lists)
            return value, found.norms(), of_lists.norms(), found.agreement(lists), found

        def everything(params, units, rest, arguments, keys=keys, case=case, one_pass=one_pass):
            value, norms, of_lists, agreement, found = one_pass(params, units, rest, arguments)
            units = jax.tree.map(lambda x, k: jax.random.wrap_key_data(x) if k else x, units, keys)
            alone = per_example.coupled_grad_norms(case.functions, case.coupling, lists=lists)
            _, again = alone(params, units, rest, *arguments)
            return {
                "value": value,
                "norms": norms,
                "lists": of_lists,
                "agreement": agreement,
                "gram": found.gram(),
                "total": found.total(),
                "by list": found.lists(lists).weighted_sum(of_lists),
                "rest": found.rest,
                "norms alone": again.units,
                "lists alone": again.lists,
            }

        inputs = (
            place(whole, case.params),
            place(over_lists, units),
            place(whole, case.rest),
            place(over_lists, case.arguments),
        )
        results = jax.jit(everything, out_shardings=whole)(*inputs)
        for path, leaf in jax.tree_util.tree_leaves_with_path(results):
            found[f"{name}{jax.tree_util.keystr(path)}"] = np.asarray(leaf)
        if name == "softmax":

            def each(*inputs, one_pass=one_pass):
                return one_pass(*inputs)[1:4]

            def total(*inputs, one_pass=one_pass):
                return one_pass(*inputs)[4].total()

            for ask, sharding in ((each, over_lists), (total, whole)):
                compiled = jax.jit(ask, out_shardings=sharding).lower(*inputs).compile()
                found[f"{ask.__name__} moves"] = numbers_moved(compiled.as_text())
    if jax.process_index() == 0:
        np.savez(folder / "found.npz", **found)


def run(folder: Path, processes: int, devices: int) -> dict[str, np.ndarray]:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    flags = os.environ.get("XLA_FLAGS", "")
    environment["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}"
    if processes > 1:
        with socket.socket() as opened:
            opened.bind(("localhost", 0))
            environment["JAX_COORDINATOR_ADDRESS"] = f"localhost:{opened.getsockname()[1]}"
    started = [
        subprocess.Popen(
            [sys.executable, __file__, json.dumps([str(folder), processes])],
            env={**environment, "JAX_PROCESS_ID": str(process)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(processes)
    ]
    errors = [process.communicate(timeout=600)[1] for process in started]
    assert [process.returncode for process in started] == [0] * processes, errors
    with np.load(folder / "found.npz") as arrays:
        found = dict(arrays)
    assert found.pop("devices").tolist() == [processes * devices, processes]
    return found


@functools.cache
def found(layout: str, folder: Path) -> dict[str, np.ndarray]:
    mine = folder / layout.replace(" ", "_")
    mine.mkdir()
    return run(mine, *LAYOUTS[layout])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("coupled")


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "one"])
def test_many_devices_give_the_results_of_one(folder, layout):
    expected, of_mesh = found("one", folder), found(layout, folder)
    assert expected.keys() == of_mesh.keys()
    assert len(expected) > 20
    for key in expected.keys() - {"each moves", "total moves"}:
        scale = max(1, float(np.abs(expected[key]).max()))
        # float32 sums over units in another order
        np.testing.assert_allclose(of_mesh[key], expected[key], atol=1e-6 * scale, err_msg=key)


def test_norms_and_agreement_of_lists_move_numbers_of_units_only(folder):
    """Lists do not straddle devices: nothing of a gradient's size goes between them."""
    moved = found("eight", folder)
    assert max(moved["total moves"]) >= 8 * 8, "the gradient is summed over devices: none is read"
    assert all(number <= 24 for number in moved["each moves"]), moved["each moves"]


if __name__ == "__main__":
    folder, processes = json.loads(sys.argv[1])
    if processes > 1:
        import jax

        process = int(os.environ["JAX_PROCESS_ID"])
        jax.distributed.initialize(num_processes=processes, process_id=process)
    compute(Path(folder))
