from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sie_jax.passes import sweep
from sie_jax.passes.score import score_pass
from sie_jax.training.cost import CostMeter


def test_parts_that_are_there_are_not_computed_again(
    shop: Any, tmp_path: Path, console: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "PART_BATCHES", 2)
    made, computed = shop.in_order(), []
    inner = score_pass(shop.task, shop.mesh)
    whole = sweep.gather(
        sweep.sweep(inner, shop.params, (made[i] for i in range(len(made))), shop.mesh), shop.rows
    )

    def function(params: Any, batch: Any) -> Any:
        computed.append(np.asarray(batch["row"]).tolist())
        return inner.function(params, batch)

    def clock_of(name: str) -> CostMeter:
        return CostMeter(tmp_path / f"{name}.json")

    def run() -> sweep.Columns:
        found = sweep.in_parts(
            inner._replace(function=function),
            shop.params,
            sweep.Examples(made, shop.rows),
            sweep.Workspace(shop.mesh, tmp_path, clock_of, console),
            "parts",
        )
        clock = clock_of("parts")  # charged anew, and no more
        assert clock.recorded[1:] == (len(shop.rows), 2 * len(shop.rows))
        return found

    first = run()
    parts = sorted((tmp_path / "parts").iterdir())
    assert len(parts) == -(-len(made) // 2) > 2
    assert len(computed) == len(made)
    computed.clear()
    parts[1].unlink()
    parts[0].write_bytes(parts[0].read_bytes()[:100])  # cut off
    again = run()
    assert computed == [made[i]["row"].tolist() for i in range(4)]
    for name, values in whole.items():
        np.testing.assert_array_equal(first[name], values)
        np.testing.assert_array_equal(again[name], values)
    computed.clear()
    run()
    assert computed == []


def test_gather_wants_every_row_once() -> None:
    def parts(*rows: list[int]) -> Iterator[sweep.Columns]:
        for one in rows:
            yield {"row": np.array(one), "loss": np.array(one) * 10.0}

    np.testing.assert_array_equal(
        sweep.gather(parts([2, 0], [], [1]), np.arange(3))["loss"], [0, 10, 20]
    )
    some = sweep.gather(parts([7], [4]), np.array([4, 7]))
    np.testing.assert_array_equal(some["loss"], [40, 70])
    for rows in ([[0, 1]], [[0, 1, 1]], [[0, 1], [2, 0]], [[0, 1, 3]]):
        with pytest.raises(ValueError, match=r"rows where 3 were expected, each once"):
            sweep.gather(parts(*rows), np.arange(3))


def test_a_sum_is_kept_and_charged(shop: Any, tmp_path: Path, console: Any) -> None:
    calls = []

    def function(weight: jax.Array, batch: Any) -> Any:
        calls.append(1)
        return {"labels": weight * jnp.sum(jnp.where(batch["mask"], batch["label"], 0))}

    def clock_of(name: str) -> CostMeter:
        return CostMeter(tmp_path / f"{name}.json")

    def run() -> float:
        total = sweep.summed(
            sweep.Pass(function, 3),
            jnp.float32(2),
            sweep.Examples(shop.in_order(), shop.rows),
            sweep.Workspace(shop.mesh, tmp_path, clock_of, console),
            "labels",
            finish=lambda total: jax.tree.map(lambda leaf: leaf + 1, total),
        )
        assert clock_of("labels").recorded.forward_equivalents == 3 * len(shop.rows)
        return float(total["labels"])

    labels = shop.prepared.split("train")["label"].to_numpy()
    assert run() == 2 * labels.sum() + 1
    calls.clear()
    assert run() == 2 * labels.sum() + 1
    assert not calls
