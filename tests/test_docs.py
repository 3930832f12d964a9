"""What the page for JAX users shows is what runs, and gives what it says."""

import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sie_jax.importance import ESTIMATORS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "per_example.md"


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """The names that all examples of the page leave behind, run one after the other."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    space: dict[str, Any] = {}
    for block in blocks:
        exec(block, space)
    return space


def gradients(loss_fn: Any, params: Any, *batch: Any) -> np.ndarray:
    """[B, parameters] by plain AD."""
    each = jax.vmap(jax.grad(loss_fn), in_axes=(None, 0, 0))(params, *batch)
    leaves = jax.tree.leaves(each)
    return np.concatenate([np.asarray(g).reshape(len(g), -1) for g in leaves], axis=1)


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.asarray(leaf).reshape(-1) for leaf in jax.tree.leaves(tree)])


# float32 sums of up to a few hundred terms in another order, relative to the largest entry
def assert_close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_five_lines(names: dict[str, Any]) -> None:
    matrix = gradients(names["loss_fn"], names["params"], *names["batch"])
    norms = np.linalg.norm(matrix, axis=1)
    assert_close(names["norms"], norms)
    assert_close(flat(names["update"]), (matrix / norms[:, None]).mean(0))


def test_bounded_memory(names: dict[str, Any]) -> None:
    matrix = gradients(names["loss_fn"], names["params"], *names["batch"])
    norms = np.linalg.norm(matrix, axis=1)
    weights = np.minimum(1, np.median(norms) / norms) / len(norms)
    assert_close(flat(names["bounded"]), weights @ matrix)


def test_bounded_memory_leaves_out_an_example_that_is_nan(names: dict[str, Any]) -> None:
    x, y = names["batch"]
    matrix = np.delete(gradients(names["loss_fn"], names["params"], x, y), 3, axis=0)
    norms = np.linalg.norm(matrix, axis=1)
    weights = np.minimum(1, np.median(norms) / norms) / len(y)
    total = names["bounded_step"](names["params"], x.at[3].set(jnp.nan), y)
    assert_close(flat(total), weights @ matrix)


def test_private_clipping(names: dict[str, Any]) -> None:
    matrix = gradients(names["linen_loss"], names["linen_params"], *names["batch"])
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    assert (norms > names["clip"]).any()
    assert_close(flat(names["clipped"]), (matrix * np.minimum(1, names["clip"] / norms)).sum(0))
    added = flat(names["private"]) * 32 - flat(names["clipped"])
    # the standard deviation of n normal draws is within 5 standard errors, 1/√(2n) each
    allowed = 5 / np.sqrt(2 * len(added))
    assert abs(added.std() / (names["noise_multiplier"] * names["clip"]) - 1) < allowed


def test_batch_by_gram_is_pivoted_cholesky(names: dict[str, Any]) -> None:
    matrix = gradients(names["equinox_loss"], names["arrays"], *names["batch"]).astype(np.float64)
    chosen = names["chosen"]
    assert len(set(chosen)) == len(chosen) == 8
    for count, best in enumerate(chosen):
        basis, _ = np.linalg.qr(matrix[chosen[:count]].T)
        left = np.linalg.norm(matrix - matrix @ basis @ basis.T, axis=1)
        assert left[best] >= left.max() * (1 - 1e-3)


def test_tracin(names: dict[str, Any]) -> None:
    matrix = gradients(names["nnx_loss"], names["nnx_params"], *names["batch"])
    assert_close(names["pairwise"], matrix[8:] @ matrix[:8].T)
    assert_close(names["influence"], matrix[8:] @ matrix[:8].mean(0))


def test_noise_scale(names: dict[str, Any]) -> None:
    matrix = gradients(names["loss_fn"], names["params"], *names["batch"]).astype(np.float64)
    trace = matrix.var(axis=0, ddof=1).sum()
    squared = (matrix.mean(0) ** 2).sum() - trace / len(matrix)
    # a difference of two numbers of like size loses digits
    np.testing.assert_allclose(names["noise_scale"], trace / squared, rtol=1e-2)


def test_adam_preconditioned_norms(names: dict[str, Any]) -> None:
    matrix = gradients(names["loss_fn"], names["params"], *names["batch"])
    assert_close(names["adam_norms"], np.linalg.norm(matrix / (0.1 + 1e-8), axis=1))


def test_the_group_as_the_example(names: dict[str, Any]) -> None:
    matrix = gradients(names["list_loss"], names["params"], *names["queries"])
    assert jnp.all(names["per_query"] > 0)
    assert_close(names["per_query"], np.linalg.norm(matrix, axis=1))


def test_measured_table_is_the_committed_result() -> None:
    text = PAGE.read_text(encoding="utf-8")
    report = json.loads((ROOT / "benchmarks" / "results" / "per_example.json").read_text())
    rows = {
        cells[0]: cells[1:]
        for cells in (
            [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()
        )
    }
    settings = report["settings"].values()
    for variant in next(iter(settings)):
        ratios = [
            (found[variant]["time_ratio"], found[variant]["memory_ratio"]) for found in settings
        ]
        assert rows[variant] == [f"{time:.2f} / {memory:.2f}" for time, memory in ratios]
    sizes = report["largest_batch"]["batch_sizes"]
    for variant, size in sizes.items():
        assert f"{variant} {size}" in " ".join(text.split())
    machine = report["machine"]
    assert machine["cpu"] in text
    assert f"jax {machine['jax']}" in text


def cost_row(report: Any, name: str) -> list[str]:
    """The cells after the estimator's name: its passes, a ratio for each model, the host's work."""
    needs = report["needs"][name]
    passes = ", ".join(needs["training"]) or "none"
    if needs["targets"]:
        passes += f"; validation: {', '.join(needs['targets'])}"
    if needs["checkpoints"] == "every":
        passes += "; every checkpoint"
    cells = [passes]
    for model in report["models"].values():
        found = model["estimators"][name]
        ratio = f"{found['training']['ratio']:.2f}" if needs["training"] else "0"
        if needs["targets"]:
            ratio += f" + {found['targets']['ratio']:.2f} v"
        if needs["trainings"] != "0":
            ratio += f" + {needs['trainings']} trainings"
        cells.append(ratio)
    if name not in report["host"]:
        return [*cells, ""]
    host = report["host"][name]
    rows, seconds = next(iter(host["seconds"].items()))
    power = f", N^{host['exponent']:.1f}" if "exponent" in host else ""
    return [*cells, f"{seconds:.2g} s for {int(rows):,}{power}"]


def test_cost_table_is_the_committed_result() -> None:
    text = (ROOT / "docs" / "estimator_costs.md").read_text(encoding="utf-8")
    report = json.loads((ROOT / "benchmarks" / "results" / "estimators.json").read_text())
    rows = {
        cells[0].strip("`"): cells[1:]
        for cells in (
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in text.splitlines()
            if line.startswith("| `")
        )
    }
    assert rows == {name: cost_row(report, name) for name in ESTIMATORS}
    shared = [
        f"{model['passes']['norms, dots and projections']['ratio']:.2f}"
        for model in report["models"].values()
    ]
    assert " and ".join(shared) in text
    machine = report["machine"]
    assert f"{machine['cores']} cores of an {machine['cpu']}" in text
    assert f"jax {machine['jax']}" in text
    assert ("busy" in text) == report["busy"]
