"""The label scale refuses what cannot be a scale; queries equal under normalisation are equal."""

import pyarrow as pa
import pytest

from sie_jax.data.schema import (
    CLEAN_SCHEMA,
    ESCI_SCALE,
    RAW_COLUMNS,
    RAW_SCHEMA,
    REJECTED_SCHEMA,
    LabelScale,
    as_rejected,
    normalise_query,
)
from sie_jax.errors import UserError


def test_esci_scale_has_the_gains_of_the_paper() -> None:
    assert dict(zip(ESCI_SCALE.names, ESCI_SCALE.gains, strict=True)) == {
        "E": 1.0,
        "S": 0.1,
        "C": 0.01,
        "I": 0.0,
    }


@pytest.mark.parametrize(
    ("names", "gains", "words"),
    [
        (("0",), (0.0,), "two labels"),
        (("0", "0"), (0.0, 1.0), "different"),
        (("0", ""), (0.0, 1.0), "not empty"),
        (("0", "1"), (0.0,), "one gain"),
        (("0", "1"), (0.0, float("nan")), "finite"),
        (("0", "1"), (-1.0, 1.0), "0 or more"),
        (("0", "1"), (1.0, 0.0), "rise"),
        (("0", "1"), (0.5, 0.5), "rise"),
    ],
)
def test_a_scale_that_cannot_be_is_refused(
    names: tuple[str, ...], gains: tuple[float, ...], words: str
) -> None:
    with pytest.raises(UserError, match=words) as error:
        LabelScale(names, gains)
    assert "\n" not in str(error.value)


def test_neighbouring_grades_may_share_a_gain() -> None:
    assert LabelScale(("a", "b", "c"), (0.0, 0.0, 1.0)).gains == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Red  shoes\n", "red shoes"),
        ("\tred\u00a0shoes", "RED SHOES"),
        ("cafe\u0301", "CAF\u00c9"),
        ("STRASSE", "stra\u00dfe"),
    ],
)
def test_queries_that_normalise_alike(one: str, other: str) -> None:
    assert normalise_query(one) == normalise_query(other)
    assert normalise_query(normalise_query(one)) == normalise_query(one)


def test_queries_that_stay_apart() -> None:
    assert normalise_query("red shoes") != normalise_query("shoes red")
    assert normalise_query("red shoes") != normalise_query("redshoes")


def test_the_schemas_differ_in_label_truth_and_reason_alone() -> None:
    assert tuple(CLEAN_SCHEMA.names) == RAW_COLUMNS
    assert [f.name for f in CLEAN_SCHEMA if f.type != RAW_SCHEMA.field(f.name).type] == [
        "label",
        "truth",
    ]
    assert tuple(REJECTED_SCHEMA.names) == (*RAW_COLUMNS, "reason")


def test_as_rejected_gives_the_labels_their_names_back() -> None:
    row = dict.fromkeys(RAW_COLUMNS, "x") | {"label": 3, "truth": -1}
    table = pa.Table.from_pylist([row], schema=CLEAN_SCHEMA)
    table = table.append_column("reason", pa.array(["query_in_test"]))
    (rejected,) = as_rejected(table, ESCI_SCALE).to_pylist()
    assert rejected == dict.fromkeys(RAW_COLUMNS, "x") | {
        "label": "E",
        "truth": None,
        "reason": "query_in_test",
    }
