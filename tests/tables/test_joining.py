"""Any order of the rows, and joins, as a dictionary would give them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sie_jax.errors import UserError
from sie_jax.tables import joining, parts
from sie_jax.tables.spool import write_parquet
from tests.tables.scored import ELSEWHERE, HERE, names_of, origin, pairs, scored, store


@pytest.mark.parametrize("rows", [0, 1, 20, 21])
@pytest.mark.parametrize("partition_rows", [1, 4, 10, None])
def test_any_order_as_a_dictionary_gives_it(
    tmp_path: Path, rows: int, partition_rows: int | None
) -> None:
    ids = names_of(rows)
    values = dict(zip(ids, np.random.default_rng(1).normal(size=rows), strict=True))
    store(tmp_path / "t", scored(ids, loss=list(values.values()), el2n=range(rows)), part_rows=9)
    wanted = list(np.random.default_rng(2).permutation(np.array(ids, object)))
    chunks = [pa.array(wanted[i : i + 11], pa.string()) for i in range(0, rows, 11)]
    for given in (iter(chunks), pa.chunked_array(chunks, pa.string())):
        blocks = list(
            joining.in_order(
                tmp_path / "t",
                given,
                columns=["loss"],
                data_version=HERE,
                partition_rows=partition_rows,
            )
        )
        size = partition_rows or max(rows, 1)
        assert [len(block) for block in blocks] == [
            min(size, rows - start) for start in range(0, max(rows, 1), size)
        ]
        found = pa.concat_tables(blocks)
        assert found.column_names == ["loss"]
        expected = np.array([values[one] for one in wanted], np.float32)
        np.testing.assert_array_equal(found["loss"].to_numpy(), expected)


def test_strings_and_sliced_ids_in_any_order(tmp_path: Path) -> None:
    ids = names_of(40)
    made = pairs(ids, loss=range(40))
    store(tmp_path / "t", made)
    backwards = pa.array(["before", *ids[::-1], "after"], pa.string()).slice(1, 40)
    blocks = joining.in_order(
        tmp_path / "t", [backwards], columns=["item_id", "label"], partition_rows=6
    )
    expected = made.take(list(range(39, -1, -1))).select(["item_id", "label"])
    assert pa.concat_tables(blocks) == expected


FAULTS = {
    "missing": (["a", "b", "c"], ["a", "b", "c", "d", "e"], "2 missing in {path} (first 'd', 'e')"),
    "left over": (["a", "b", "c"], ["b"], "2 missing in {asked} (first 'a', 'c')"),
    "repeated here": (["a", "b", "b"], ["a", "b"], "1 more than once in {path} (first 'b')"),
    "repeated there": (["a", "b"], ["a", "b", "a"], "1 more than once in {asked} (first 'a')"),
    "as many, but others": (["a", "b", "b"], ["a", "b", "c"], "1 missing in {path} (first 'c')"),
    "repeated on both": (["a", "a"], ["a", "a"], "1 more than once in {asked} (first 'a')"),
    "none here": ([], ["a"], "1 missing in {path} (first 'a')"),
    "braces and lines": (["{path}"], ["a\nb"], r"1 missing in {path} (first 'a\nb')"),
    "none there": (["a"], [], "1 missing in {asked} (first 'a')"),
}


@pytest.mark.parametrize("partition_rows", [1, None])
@pytest.mark.parametrize("fault", FAULTS)
def test_every_id_once_on_both_sides(
    tmp_path: Path, fault: str, partition_rows: int | None
) -> None:
    here, there, message = FAULTS[fault]
    right = store(tmp_path / "right", scored(here, el2n=range(len(here))))
    left = store(tmp_path / "left", scored(there, loss=range(len(there))))

    # an error names ids in the order of the partitions, which depends on their number
    if partition_rows == 1:
        message = message.partition(" (first ")[0]
    options = {"columns": ["el2n"], "partition_rows": partition_rows}
    with pytest.raises(UserError) as caught:
        list(joining.in_order(right, [pa.array(there, pa.string())], **options))
    assert "\n" not in str(caught.value)
    expected = message.replace("{path}", str(right), 1).replace("{asked}", "the rows asked for", 1)
    assert expected in str(caught.value)
    with pytest.raises(UserError) as caught:
        joining.join(left, right, tmp_path / "out", **options)
    expected = message.replace("{path}", str(right), 1).replace("{asked}", str(left), 1)
    assert expected in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"left", "right"}


def test_an_error_counts_all_and_names_a_few(tmp_path: Path) -> None:
    right = store(tmp_path, scored(["a"], el2n=[0]))
    with pytest.raises(UserError) as caught:
        list(joining.in_order(right, [pa.array(["a", *map(str, range(50))])], columns=["el2n"]))
    assert f"50 missing in {right} (first '0', '1', '2'): score the same" in str(caught.value)


def test_rows_without_an_id_are_refused(tmp_path: Path) -> None:
    right = store(tmp_path / "right", scored(["a", "b"], el2n=[0, 1]))
    with pytest.raises(UserError, match="1 rows of the rows asked for have no example_id"):
        list(joining.in_order(right, [pa.array(["a", None])], columns=["el2n"]))
    write_parquet(tmp_path / "other.parquet", scored(["a", None, None], loss=[0, 1, 2]))
    with pytest.raises(UserError, match=r"2 rows of .*other.parquet have no example_id"):
        list(joining.in_order(tmp_path / "other.parquet", [pa.array(["a"])], columns=["loss"]))


def test_unknown_columns_are_refused(tmp_path: Path) -> None:
    right = store(tmp_path, scored(["a"], el2n=[0]))
    with pytest.raises(ValueError, match="no column grand"):
        next(joining.in_order(right, [pa.array(["a"])], columns=["grand"]))


def test_no_temporary_files_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    right = store(tmp_path / "right", scored(["a", "b", "c"], el2n=[0, 1, 2]))
    blocks = joining.in_order(
        right, [pa.array(["c", "a", "b"])], columns=["el2n"], partition_rows=1
    )
    assert next(blocks)["el2n"].to_pylist() == [2]
    assert list((tmp_path / "scratch").iterdir())
    blocks.close()
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("rows", [0, 1, 24, 25])
@pytest.mark.parametrize("partition_rows", [4, None])
def test_join_as_a_dictionary_does_it(
    tmp_path: Path, rows: int, partition_rows: int | None
) -> None:
    ids = names_of(rows, seed=3)
    order = np.random.default_rng(4).permutation(rows)
    left = pairs(ids, loss=range(rows), weight=np.ones(rows))
    right = scored([ids[i] for i in order], loss_1=order * 10, el2n_1=order * 20, unused=order)
    store(tmp_path / "left", left, part_rows=5)
    store(tmp_path / "right", right, part_rows=7, provenance=origin("loss_1", "el2n_1", "unused"))
    out = tmp_path / "new" / "out"
    joining.join(
        tmp_path / "left",
        tmp_path / "right",
        out,
        columns=["el2n_1", "loss_1"],
        partition_rows=partition_rows,
    )
    joined = parts.read(out, data_version=HERE)
    assert joined.select(left.column_names) == left
    assert joined.column_names == [*left.column_names, "el2n_1", "loss_1"]
    assert joined["loss_1"].to_pylist() == [10 * i for i in range(rows)]
    assert joined["el2n_1"].to_pylist() == [20 * i for i in range(rows)]
    assert joined.schema.field("loss_1").type == pa.float32()


def test_join_brings_provenance_along(tmp_path: Path) -> None:
    left = store(tmp_path / "left", scored(["a", "b"], loss=[1, 2]))
    given = origin("loss_1", "el2n_1", seed=1)
    right = store(
        tmp_path / "right", scored(["b", "a"], loss_1=[1, 2], el2n_1=[3, 4]), provenance=given
    )
    joining.join(left, right, tmp_path / "out", columns=["loss_1"])
    assert parts.provenance(tmp_path / "out") == {**origin("loss"), "loss_1": given["loss_1"]}


def test_joins_that_are_refused(tmp_path: Path) -> None:
    left = store(tmp_path / "left", scored(["a"], loss=[1]))
    right = store(tmp_path / "right", scored(["a"], loss=[1], el2n=[2]))
    old = store(
        tmp_path / "old", scored(["a"], el2n=[1]), provenance=origin("el2n", data_version=ELSEWHERE)
    )
    write_parquet(tmp_path / "plain.parquet", scored(["a"], el2n=[1]))
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"left was computed on data a{12}, .*old on data b{12}: "):
        joining.join(left, old, out, columns=["el2n"])
    with pytest.raises(UserError, match=r"plain.parquet: does not say on what data"):
        joining.join(left, tmp_path / "plain.parquet", out, columns=["el2n"])
    with pytest.raises(ValueError, match="has a column loss already"):
        joining.join(left, right, out, columns=["loss"])
    with pytest.raises(ValueError, match="no scores margin"):
        joining.join(left, right, out, columns=["margin"])
    assert not out.exists()
    with pytest.raises(ValueError, match="is there already"):
        joining.join(left, right, left, columns=["el2n"])
