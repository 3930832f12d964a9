import dataclasses
import json
import math
from typing import Any

import pytest

from sie_jax.config import Config, as_json, from_json
from sie_jax.errors import UserError
from sie_jax.importance import ESTIMATORS, needing
from sie_jax.sections import differences


def changed(field: str, value: Any) -> Config:
    config = Config()
    *parts, last = field.split(".")
    node: Any = config
    for part in parts:
        node = getattr(node, part)
    setattr(node, last, value)
    return config


def fields(node: Any, prefix: str = "") -> list[str]:
    names: list[str] = []
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        name = f"{prefix}{field.name}"
        names += fields(value, f"{name}.") if dataclasses.is_dataclass(value) else [name]
    return names


def test_defaults_are_valid() -> None:
    Config().check()


@pytest.mark.parametrize("field", fields(Config()))
def test_a_value_of_the_wrong_type_names_its_field(field: str) -> None:
    config = changed(field, {1, 2})
    with pytest.raises(
        UserError, match=rf"^{field} is {{1, 2}}: give a (value|tuple) .*of type \w+$"
    ):
        config.check()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data.source", "wayfair"),
        ("data.buckets", 0),
        ("data.max_length", 7),
        ("data.vocabulary_size", 99),
        ("data.max_query_characters", 0),
        ("data.max_title_characters", 0),
        ("data.validation", 0.0),
        ("data.validation", math.nan),
        ("data.test", 0.0),
        ("data.test", 0.9),  # with validation 0.1 nothing is left to train on
        ("model.hidden_size", 0),
        ("model.hidden_size", 130),  # 4 heads
        ("model.num_hidden_layers", 0),
        ("model.num_attention_heads", 0),
        ("model.intermediate_size", 0),
        ("model.dropout", -0.1),
        ("model.dropout", 1.0),
        ("model.dropout", math.nan),
        ("model.dtype", "float16"),
        ("pretrain.steps", -100),
        ("pretrain.steps", 150),
        ("pretrain.evaluate_every", 0),
        ("pretrain.batch_size", 0),
        ("pretrain.learning_rate", 0.0),
        ("pretrain.held_out", 0.0),
        ("pretrain.held_out", 1.0),
        ("train.batch_size", 0),
        ("train.learning_rate", 0.0),
        ("train.learning_rate", math.inf),
        ("train.learning_rate", math.nan),
        ("train.learning_rates", (1e-4, -1.0)),
        ("train.learning_rates", (1e-4, 0.0)),
        ("train.learning_rates", (1e-4, math.nan)),
        ("train.epochs", 0),
        ("train.warmup_fraction", 1.1),
        ("train.weight_decay", -0.01),
        ("train.weight_decay", math.inf),
        ("train.clip_norm", 0.0),
        ("train.seed", -1),
        ("train.seed", 2**31 - 1),
        ("train.seeds", 0),
        ("train.checkpoint_every", 0),
        ("train.log_every", 0),
        ("train.profile_steps", (100,)),
        ("train.profile_steps", (110, 100)),
        ("train.profile_steps", (0, 3)),
        ("train.profile_steps", (1, 2, 3)),
        ("importance.score", "gradient"),
        ("importance.policy", "equal"),
        ("importance.mode", "sometimes"),
        ("importance.warmup_epochs", 0),
        ("importance.use", "both"),
        ("importance.power", math.inf),
        ("importance.power", math.nan),
        ("importance.mix_uniform", -0.1),
        ("importance.mix_uniform", 1.1),
        ("importance.mix_uniform", math.nan),
        ("importance.balance", "brand"),
        ("importance.level", "brand"),
        ("importance.estimators", ("loss", "gradient")),
        ("importance.choosing_folds", 3),
        ("importance.choosing_budget", 0.0),
        ("importance.choosing_budget", math.nan),
        ("importance.compare", ("proportional", "equal")),
        ("importance.compare", ("auto",)),
        ("importance.compare", ("uniform",)),
        ("mesh.data", 0),
        ("mesh.data", -2),
        ("evaluation.resamples", 99),
        ("evaluation.seed", -1),
        ("evaluation.explained_queries", -1),
        ("evaluation.changed_queries", -1),
    ],
)
def test_a_value_out_of_range_names_its_field(field: str, value: Any) -> None:
    with pytest.raises(UserError) as caught:
        changed(field, value).check()
    assert field in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"), [("train.epochs", True), ("data.item_text", 1), ("train.epochs", 2.0)]
)
def test_numbers_and_booleans_are_not_mixed_up(field: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"^{field} is {value}: give a value of type"):
        changed(field, value).check()


@pytest.mark.parametrize("value", [10**400, -(2**63), 2**63])
@pytest.mark.parametrize("field", ["data.max_length", "train.learning_rate", "data.gains"])
def test_an_integer_beyond_64_bits_names_its_field(field: str, value: int) -> None:
    given = (0, value) if field == "data.gains" else value
    with pytest.raises(UserError, match=rf"^{field} is beyond 9,223,372,036,854,775,807: give a"):
        changed(field, given).check()


def test_an_integer_is_taken_for_a_float() -> None:
    config = changed("train.learning_rate", 1)
    config.check()
    assert config.train.learning_rate == 1.0
    assert type(config.train.learning_rate) is float


def test_a_part_replaced_by_something_else_is_named() -> None:
    with pytest.raises(UserError, match=r"^train must be a TrainConfig$"):
        changed("train", {"epochs": 1}).check()


@pytest.mark.parametrize("source", ["esci", "wands"])
def test_a_data_set_needs_a_path(source: str) -> None:
    config = changed("data.source", source)
    with pytest.raises(UserError, match=r"data\.path is empty"):
        config.check()
    config.data.path = "somewhere"
    config.check()


@pytest.mark.parametrize("field", ["level", "balance"])
def test_weights_are_grouped_offline_only(field: str) -> None:
    config = changed(f"importance.{field}", "query")
    config.check()
    config.importance.mode = "online"
    message = rf"^importance\.{field} is 'query', but .*mode=offline$"
    with pytest.raises(UserError, match=message):
        config.check()


def test_sampling_needs_a_share_of_uniform_and_scores_made_before() -> None:
    config = changed("importance.use", "sampling")
    with pytest.raises(UserError, match=r"^importance\.mix_uniform is 0, but .* for example 0\.1$"):
        config.check()
    config.importance.mix_uniform = 0.1
    config.check()
    config.importance.mode = "online"
    with pytest.raises(UserError, match=r"^importance\.use is 'sampling', but .*mode=offline$"):
        config.check()


@pytest.mark.parametrize(
    "field", ["importance.score", "importance.estimators"], ids=["score", "further"]
)
@pytest.mark.parametrize("name", needing(ESTIMATORS, "reference"))
def test_scores_by_models_that_never_saw_the_query_need_folds(field: str, name: str) -> None:
    config = changed(field, name if field.endswith("score") else (name,))
    config.importance.policy = "believed"
    with pytest.raises(UserError, match=rf"^{name} needs predictions .*--config\.train\.folds=5"):
        config.check()
    config.train.folds = 2
    config.check()
    assert config.importance.further_scores == (name,)


@pytest.mark.parametrize(("field", "value"), [("mode", "online"), ("use", "sampling")])
def test_auto_is_for_weights_that_stay(field: str, value: str) -> None:
    config = changed("importance.policy", "auto")
    config.check()
    config.importance.mix_uniform = 0.1
    setattr(config.importance, field, value)
    with pytest.raises(UserError, match=r"^importance\.policy is auto, .*mode=offline .*=weights$"):
        config.check()


@pytest.mark.parametrize("mode", ["online", "learned"])
def test_weights_made_in_a_batch_take_a_score_of_the_batch(mode: str) -> None:
    config = changed("importance.mode", mode)
    config.check()
    config.importance.score = "trak_self"
    with pytest.raises(
        UserError, match=r"^importance\.score trak_self is not known while .*offline"
    ):
        config.check()


def test_learned_weights_have_no_policy_to_compare() -> None:
    config = changed("importance.mode", "learned")
    config.importance.compare = ("keep",)
    with pytest.raises(UserError, match=r"^importance\.compare names policies, but learned "):
        config.check()


def test_estimators_are_named_once_and_those_of_every_run_are_left_out() -> None:
    config = changed("importance.estimators", ("loss", "trak_self", "grand", "trak_self"))
    assert config.importance.further_scores == ("trak_self", "grand")
    config.importance.score = "grand"
    assert config.importance.further_scores == ("grand", "trak_self")


def test_all_folds_are_tested_or_one() -> None:
    config = Config()
    config.evaluation.folds = 1
    with pytest.raises(UserError, match=r"^evaluation\.folds is 1: give at least 2, or 0 for none"):
        config.check()
    config.evaluation.folds = 5
    config.check()
    config.data.test_folds = 3
    with pytest.raises(UserError, match=r"^evaluation\.folds is 5 and data\.test_folds is 3: .*"):
        config.check()


def test_an_unknown_field_cannot_be_set() -> None:
    with pytest.raises(AttributeError):
        changed("train.learning_rat", 0.1)


def test_a_config_is_made_again_of_its_json() -> None:
    config = changed("data.columns.title", "name")
    config.train.learning_rate = 0.25
    again = from_json(json.loads(json.dumps(as_json(config))))
    assert again == config
    assert isinstance(again.data.columns, type(config.data.columns))


def test_as_json_comes_back_from_a_file_without_differences() -> None:
    ours = as_json(Config())
    assert differences(ours, json.loads(json.dumps(ours))) == []


def test_differences_name_each_field_with_both_values() -> None:
    other = changed("train.epochs", 2)
    other.name = "else"
    assert differences(as_json(Config()), as_json(other)) == [
        "name 'else', not 'quickstart'",
        "train.epochs 2, not 3",
    ]


def test_differences_see_a_field_that_only_one_side_has() -> None:
    assert differences({"a": 1}, {"a": 1, "b": {"c": 2}}) == ["b.c 2, not None"]
    assert differences({"b": 0, "a": 1}, {"a": 1}) == ["b None, not 0"]
