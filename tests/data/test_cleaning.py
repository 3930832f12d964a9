"""Every rule on rows made by hand, and what holds for any table."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sie_jax.data.cleaning import RULES, Cleaned, clean
from sie_jax.data.repairs import REPAIRS
from sie_jax.data.schema import (
    CLEAN_SCHEMA,
    ESCI_SCALE,
    RAW_COLUMNS,
    RAW_SCHEMA,
    REJECTED_SCHEMA,
    normalise_query,
)
from sie_jax.errors import UserError


def raw(*rows: dict[str, Any]) -> pa.Table:
    """A raw table of valid rows, each with the changes of one argument."""
    sound = {
        "query": "red shoes",
        "title": "a title",
        "text": "",
        "label": "E",
        "split": "",
        "truth": None,
    }
    return pa.Table.from_pylist(
        [
            sound
            | {"example_id": str(place), "item_id": f"i{place}"}
            | {"query_id": f"q {row.get('query')}"}
            | row
            for place, row in enumerate(rows)
        ],
        schema=RAW_SCHEMA,
    )


def cleaned(*rows: dict[str, Any]) -> Cleaned:
    return clean(raw(*rows), ESCI_SCALE, max_query_characters=20, max_title_characters=30)


def reasons(result: Cleaned) -> dict[str, str]:
    return dict(
        zip(
            result.rejected["example_id"].to_pylist(),
            result.rejected["reason"].to_pylist(),
            strict=True,
        )
    )


def test_sound_rows_pass_as_they_are() -> None:
    result = cleaned({"truth": "S", "split": "test"}, {"label": "I", "text": "more"})
    assert result.kept.schema == CLEAN_SCHEMA
    assert result.rejected.schema == REJECTED_SCHEMA
    assert result.kept["label"].to_pylist() == [3, 0]
    assert result.kept["truth"].to_pylist() == [2, -1]
    assert result.kept["split"].to_pylist() == ["test", ""]
    assert result.kept["text"].to_pylist() == ["", "more"]
    assert result.counts == dict.fromkeys(RULES, 0)
    assert result.repaired == dict.fromkeys(REPAIRS, 0)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"query": None}, "missing_query"),
        ({"query": " \t"}, "missing_query"),
        ({"title": None}, "missing_title"),
        ({"title": "<br> &nbsp;"}, "missing_title"),
        ({"query": "q" * 21}, "query_too_long"),
        ({"title": "t" * 31}, "title_too_long"),
        ({"label": None}, "label_outside_scale"),
        ({"label": ""}, "label_outside_scale"),
        ({"label": "e"}, "label_outside_scale"),
    ],
)
def test_rules_on_one_row(row: dict[str, Any], reason: str) -> None:
    result = cleaned({}, row)
    assert reasons(result) == {"1": reason}
    assert result.counts == dict.fromkeys(RULES, 0) | {reason: 1}
    # The row stays as it was read.
    assert result.rejected.to_pylist()[0] == raw({}, row).to_pylist()[1] | {"reason": reason}


def test_limits_hold_for_the_repaired_text() -> None:
    title = "<b>" + "t" * 30 + "</b>"
    result = cleaned({"title": title, "query": "q" * 20 + "   "})
    assert result.kept["title"].to_pylist() == ["t" * 30]
    assert result.repaired == dict.fromkeys(REPAIRS, 0) | {"html_markup": 1, "whitespace": 1}


def test_the_first_rule_broken_gives_the_reason() -> None:
    result = cleaned(
        {}, {"query": "", "title": "", "label": "?"}, {"title": "t" * 31, "label": "?"}
    )
    assert reasons(result) == {"1": "missing_query", "2": "title_too_long"}


def test_of_exact_duplicates_the_first_stays() -> None:
    result = cleaned(
        {"item_id": "i"},
        {"item_id": "i", "query": " RED  shoes"},
        {"item_id": "i", "title": "<i>a title</i>", "text": "other text"},
        {"item_id": "i", "title": "another title"},
        {"item_id": "j"},
        {"item_id": "i", "query": "blue shoes"},
    )
    assert reasons(result) == {"1": "exact_duplicate", "2": "exact_duplicate"}


def test_all_rows_of_a_conflict_are_rejected() -> None:
    result = cleaned(
        {"item_id": "i", "label": "E"},
        {"item_id": "i", "label": "S", "query": "Red Shoes"},
        {"item_id": "i", "label": "E", "title": "another title"},
        {"item_id": "i", "label": "E"},
        {"item_id": "i", "label": "C", "query": "blue shoes"},
    )
    assert reasons(result) == {
        "0": "conflicting_labels",
        "1": "conflicting_labels",
        "2": "conflicting_labels",
        "3": "exact_duplicate",
    }


def test_a_row_that_cannot_be_used_makes_no_conflict_and_no_duplicate() -> None:
    result = cleaned(
        {"item_id": "i", "label": "?"},
        {"item_id": "i", "label": "S", "title": ""},
        {"item_id": "i", "label": "E"},
    )
    assert reasons(result) == {"0": "label_outside_scale", "1": "missing_title"}
    assert result.kept["example_id"].to_pylist() == ["2"]


def test_repairs_are_counted_once_a_row_and_only_for_kept_rows() -> None:
    result = cleaned(
        {"title": "two  gaps", "text": "more  gaps", "query": " red shoes"},
        {"title": "<b>a</b>\x00"},
        {"title": "<b>gone</b>", "label": "?"},
    )
    assert result.repaired == {
        "html_markup": 1,
        "control_characters": 1,
        "unicode_nfc": 0,
        "whitespace": 1,
    }


def test_a_truth_off_the_scale_is_unknown() -> None:
    assert cleaned({"truth": "?"}).kept["truth"].to_pylist() == [-1]


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_conserved_and_order_kept(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [
        {
            "query": rng.choice(["red shoes", "RED shoes", "blue", "", "q" * 25]),
            "item_id": f"i{rng.integers(5)}",
            "title": rng.choice(["a", " a", "b", "", "<b>b</b>", "t" * 40]),
            "label": rng.choice(["E", "S", "?"], p=[0.8, 0.1, 0.1]),
        }
        for _ in range(60)
    ]
    table = raw(*rows)
    result = cleaned(*rows)
    kept, rejected = (
        [int(i) for i in part["example_id"].to_pylist()] for part in (result.kept, result.rejected)
    )
    assert sorted(kept + rejected) == list(range(60))
    assert kept == sorted(kept)
    assert rejected == sorted(rejected)
    assert sum(result.counts.values()) == len(rejected)
    assert table.take(rejected).equals(result.rejected.select(RAW_COLUMNS))
    # No pair that is kept has two labels, and none is kept twice with one title.
    pairs: dict[tuple[str, str], set[int]] = {}
    for row in result.kept.to_pylist():
        pairs.setdefault((normalise_query(row["query"]), row["item_id"]), set()).add(row["label"])
    assert all(len(labels) == 1 for labels in pairs.values())
    # A second cleaning of what was kept finds nothing to do.
    names = np.array(ESCI_SCALE.names)
    again = result.kept.set_column(
        RAW_SCHEMA.get_field_index("label"), "label", pa.array(names[result.kept["label"]])
    ).set_column(RAW_SCHEMA.get_field_index("truth"), "truth", pa.nulls(len(kept), pa.string()))
    second = clean(again, ESCI_SCALE, max_query_characters=20, max_title_characters=30)
    assert second.kept.equals(result.kept)
    assert set(second.counts.values()) | set(second.repaired.values()) == {0}


def test_pieces_of_a_long_table_are_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"item_id": f"i{place % 7}", "title": f" t{place % 3}"} for place in range(40)]
    whole = cleaned(*rows)
    monkeypatch.setattr("sie_jax.tables.spool.CHUNK_ROWS", 3)
    pieces = cleaned(*rows)
    assert pieces.kept.equals(whole.kept)
    assert pieces.rejected.equals(whole.rejected)
    assert (pieces.counts, pieces.repaired) == (whole.counts, whole.repaired)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no rows"),
        ([{"label": "yes"}, {"label": None}, {"label": "yes"}], r"I, C, S, E.*yes, \(none\)"),
        ([{"title": ""}], "every one of the 1 rows was rejected: missing_title 1"),
        ([{"label": "E\nS"}], r"the labels found are 'E\\nS': correct"),
        ([{"example_id": "7"}, {"example_id": "7"}], "example_id '7' occurs 2 times"),
        (
            [{"query_id": "7", "query": query} for query in ("Red\nshoe", "red  shoe", "hat")],
            "query_id '7' is that of 'Red shoe' and of 'hat': give every query its own id",
        ),
        (
            [{"query_id": str(place % 3), "query": f"q{place}"} for place in range(6)],
            "query_id '[012]' is that of 'q.' and of 'q.', as 2 more ids are: give",
        ),
    ],
)
def test_tables_that_cannot_be_cleaned(rows: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        cleaned(*rows)
    assert "\n" not in str(error.value)


def test_ids_of_queries_count_among_kept_rows_and_by_the_normal_form() -> None:
    result = cleaned(
        {"query_id": "7", "query": "red shoe"},
        {"query_id": "7", "query": "<b>RED</b> shoe "},
        {"query_id": "7", "query": "hat", "label": "none"},
        {"query_id": "8", "query": "red shoe"},
    )
    assert result.kept.num_rows == 3


def test_an_example_id_may_repeat_among_rejected_rows() -> None:
    result = cleaned({"item_id": "i"}, {"item_id": "i", "example_id": "0"})
    assert result.counts["exact_duplicate"] == 1


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(UserError, match="max_query_characters is 0"):
        clean(raw({}), ESCI_SCALE, max_query_characters=0, max_title_characters=1)


def test_further_columns_stay_and_ratings_become_grades() -> None:
    table = raw({}, {"label": "nonsense"})
    table = table.append_column("attribute:brand", pa.array([None, "Acme"], pa.string()))
    table = table.append_column("rater:first", pa.array(["E", None], pa.string()))
    result = clean(table, ESCI_SCALE, max_query_characters=20, max_title_characters=30)
    assert result.kept["attribute:brand"].to_pylist() == [""]
    assert result.kept["rater:first"].to_pylist() == [ESCI_SCALE.names.index("E")]
    assert result.rejected["attribute:brand"].to_pylist() == ["Acme"]
    assert result.rejected["rater:first"].to_pylist() == [None]


def test_numbers_stay_as_they_are_and_decide_nothing() -> None:
    table = raw({"item_id": "i"}, {"item_id": "i"}, {}, {"label": "nonsense"})
    numbers = [2.5, 3.5, None, 0.0]
    for name in ("numeric:price", "current"):
        table = table.append_column(name, pa.array(numbers, pa.float64()))
    result = clean(table, ESCI_SCALE, max_query_characters=20, max_title_characters=30)
    # of the duplicates the first stays, and its numbers with it
    assert reasons(result) == {"1": "exact_duplicate", "3": "label_outside_scale"}
    for name in ("numeric:price", "current"):
        assert result.kept.schema.field(name).type == pa.float64()
        assert result.kept[name].to_pylist() == [2.5, None]
        assert result.rejected[name].to_pylist() == [3.5, 0.0]
