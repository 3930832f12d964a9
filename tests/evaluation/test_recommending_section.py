import pytest

from sie_jax.errors import UserError
from sie_jax.evaluation.recommending_section import RecommendingConfig


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"depths": (5, 20)}, "lacks 10"),
        ({"depths": (0, 10)}, "evaluation.depths is 0"),
        ({"explained_users": -1}, "evaluation.explained_users is -1"),
    ],
)
def test_what_cannot_work_is_told(fields: dict[str, object], said: str) -> None:
    config = RecommendingConfig()
    for name, value in fields.items():
        setattr(config, name, value)
    with pytest.raises(UserError) as raised:
        config.check()
    assert said in str(raised.value)
