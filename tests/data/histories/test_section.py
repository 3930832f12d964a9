import pytest

from sie_jax.data.histories.section import HistoriesConfig
from sie_jax.errors import UserError


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"source": "orders"}, "data.source is 'orders'"),
        ({"source": "lines"}, "data.path is empty"),
        ({"split": "random"}, "data.split is 'random'"),
        ({"split": "temporal"}, "has neither times nor a column of splits"),
        (
            {"source": "interactions", "path": "x", "split": "column"},
            "data.split is column",
        ),
        (
            {"source": "interactions", "path": "x", "split": "temporal"},
            "data.validation_from",
        ),
        ({"least_events": 2}, "data.least_events is 2"),
        ({"basket_gap": -1.0}, "data.basket_gap is -1.0"),
        ({"time_unit": "h"}, "data.time_unit is 'h'"),
    ],
)
def test_what_cannot_work_is_told(fields: dict[str, object], said: str) -> None:
    config = HistoriesConfig()
    if fields.get("split") == "temporal" and "source" not in fields:
        config.validation_from, config.test_from = "2024-01-01", "2024-02-01"
    for name, value in fields.items():
        setattr(config, name, value)
    with pytest.raises(UserError) as raised:
        config.check()
    assert said in str(raised.value)


def test_the_generated_shop_has_customers() -> None:
    config = HistoriesConfig()
    config.market.items, config.market.queries, config.market_users = 200, 40, 30
    found = config.read()
    assert len(found.table["user"].unique()) == 30
    assert found.table["text"].null_count == 0
