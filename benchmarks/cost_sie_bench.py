"""What each policy of SIE-Bench costs before its run: forward-equivalents and seconds.

    python benchmarks/cost_sie_bench.py  # benchmarks/results/sie_bench_cost.json

On one shop under all five faults, each policy is asked for its treatment by evidence of its own, so
that nothing is shared, once programs are compiled. A forward pass counts 1 for each training pair,
training 3 for each pair and epoch, and a pass of contributions 3; what is not the model's (trees,
sorting) shows in the seconds alone. The run itself, which every policy has, is beside them.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from interleaved import machine
from same_results import commit_of
from sie_bench import evidence, grid, model, policies, shops, summary
from sie_bench.cells import Cell
from sie_bench.evidence import Evidence

from sie_jax.files import write_json

RESULTS = Path(__file__).parent / "results" / "sie_bench_cost.json"
SHOP, FAULT = 106, "mixed"
TRAINING = CONTRIBUTIONS = 3


@contextmanager
def counting(total: list[float]) -> Iterator[None]:
    """Adds to total[0] what the model is asked for, in passes over pairs."""

    def pairs(lists: Any) -> float:
        return float(lists.mask.sum())

    prices: dict[tuple[Any, str], Callable[..., float]] = {
        (model, "train"): lambda lists, _, __, setting, ___: (
            TRAINING * setting.epochs * pairs(lists)
        ),
        (model, "predict"): lambda _, lists: pairs(lists),
        (evidence, "_contributions"): lambda _, lists, *__: CONTRIBUTIONS * pairs(lists),
        (evidence, "_projected"): lambda _, __, ___, mask: CONTRIBUTIONS * float(mask.sum()),
    }

    def counted(function: Callable[..., Any], price: Callable[..., float]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            total[0] += price(*given)
            return function(*given)

        return call

    with ExitStack() as stack:
        for (module, name), price in prices.items():
            replaced = counted(getattr(module, name), price)
            stack.enter_context(mock.patch.object(module, name, replaced))
        yield


def cost(shop: shops.Shop, work: Callable[[Evidence], Any]) -> dict[str, float]:
    """What a piece of work costs that finds nothing done, once it has been done before."""
    work(Evidence(shop, FAULT))
    total, started = [0.0], time.perf_counter()
    with counting(total):
        work(Evidence(shop, FAULT))
    seconds = time.perf_counter() - started
    return {
        "forward_equivalents": total[0] / float(shop.train.mask.sum()),
        "seconds": round(seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shop = shops.load(SHOP, Path(folder))
    setting = model.Setting(*grid.MAIN)

    def run(seen: Evidence) -> Any:
        plain = model.plain(seen.labels, seen.lists.mask)
        found = model.train(seen.lists, shop.idf, plain, setting, 0)
        return np.asarray(found.params["out"])

    result: dict[str, Any] = {"run": cost(shop, run), "policies": {}}
    for score, policy, strength in (*grid.CONTROLS, *grid.BLIND, *grid.TRUSTING):
        cell = Cell("weight", SHOP, FAULT, 0.0, score, policy, strength)
        name = summary.name_of(cell)

        def treated(seen: Evidence, cell: Cell = cell) -> model.Treatment:
            found: model.Treatment = getattr(policies, cell.policy)(seen, cell.score, cell.strength)
            return found

        result["policies"][name] = cost(shop, treated)
        print(name, result["policies"][name], flush=True)
        write_json(arguments.out, {**machine(), "commit": commit_of("HEAD"), **result})


if __name__ == "__main__":
    main()
