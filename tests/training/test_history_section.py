import pytest

from sie_jax.errors import UserError
from sie_jax.training.history_section import HistoryTrainConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("seeds", 0),
        ("buckets", 0),
        ("negatives", -1),
        ("learning_rate", 0.0),
        ("warmup_fraction", 1.5),
        ("log_every", 0),
        ("profile_steps", (3,)),
    ],
)
def test_what_cannot_work_is_told(field: str, value: object) -> None:
    config = HistoryTrainConfig()
    setattr(config, field, value)
    with pytest.raises(UserError, match=f"train.{field} is"):
        config.check()


def test_a_run_is_described_by_what_makes_it() -> None:
    config = HistoryTrainConfig(learning_rate=0.5, epochs=7)
    found = config.schedule()
    assert (found.task, found.learning_rate, found.epochs) == ("next_item", 0.5, 7)
