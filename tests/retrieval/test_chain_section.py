from typing import Any

import pytest

from sie_jax.errors import UserError
from sie_jax.retrieval.chain_section import StepsConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"found": ()}, "chain.found is empty"),
        ({"found": (5,)}, "chain.depths has 50, and chain.found has 5"),
        ({"kept": (60,)}, "chain.kept has 60, and chain.found has 50"),
        ({"depths": (5,)}, "chain.depths has no 10"),
        ({"diversity": (1.0,)}, "chain.diversity is 1"),
        ({"tolerance": -1.0}, "chain.tolerance is -1"),
    ],
)
def test_settings_that_cannot_work_are_refused(fields: dict[str, Any], message: str) -> None:
    StepsConfig().check()
    with pytest.raises(UserError, match=message):
        StepsConfig(**fields).check()
