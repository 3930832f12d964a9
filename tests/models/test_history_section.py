import pytest

from sie_jax.errors import UserError
from sie_jax.models.history_section import HistoryModelConfig


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"hidden_size": 0}, "model.hidden_size is 0"),
        ({"hidden_size": 10, "num_attention_heads": 4}, "not a multiple"),
        ({"max_length": 1}, "model.max_length is 1"),
        ({"dropout": 1.0}, "model.dropout is 1.0"),
        ({"text": "pictures"}, "model.text is 'pictures'"),
        ({"text": "encoder"}, "go together"),
        ({"pretrained": "folder"}, "go together"),
        ({"id_dropout": 0.5}, "model.id_dropout hides ids"),
    ],
)
def test_what_cannot_work_is_told(fields: dict[str, object], said: str) -> None:
    config = HistoryModelConfig()
    for name, value in fields.items():
        setattr(config, name, value)
    with pytest.raises(UserError) as raised:
        config.check()
    assert said in str(raised.value)


def test_types_of_events_are_read_only_where_asked() -> None:
    config = HistoryModelConfig()
    assert config.shape(items=5, events=3, copies=True).events == 1
    config.events = True
    assert config.shape(items=5, events=3, copies=True).events == 3
