"""Which depth a chain takes, of what was tried; the fitting itself is in tests/recipes."""

from typing import Any

import numpy as np
import pytest

from sie_jax.errors import UserError
from sie_jax.evaluation.retrieval import Wanted
from sie_jax.retrieval.chain_section import StepsConfig
from sie_jax.stages import assemble

TRIALS = {
    "50": {"linear": 0.60, "blend": 0.640, "milliseconds": 2.0},
    "100": {"linear": 0.61, "blend": 0.641, "milliseconds": 4.0},
    "200": {"linear": 0.61, "blend": 0.650, "milliseconds": 9.0},
}
KINDS = {50: "blend", 100: "blend", 200: "blend"}


def depth(**steps: Any) -> int:
    none: Any = None
    wanted = Wanted(np.empty(0, np.int64), np.empty(0, np.int64))
    return assemble._Fit(none, none, wanted, (), StepsConfig(**steps), 0)._depth(TRIALS, KINDS)


def test_the_shallowest_within_the_tolerance_and_the_budget_is_taken() -> None:
    assert depth(tolerance=0.0) == 200
    assert depth(tolerance=0.0095) == 100
    assert depth(tolerance=0.02) == 50
    assert depth(tolerance=0.0, milliseconds=5.0) == 100
    with pytest.raises(UserError, match=r"no depth of chain\.found takes less than 2\.0"):
        depth(milliseconds=1.0)
