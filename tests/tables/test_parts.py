"""Tables of parts: what went in comes out in order, and nothing unfinished or foreign is read."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sie_jax.errors import UserError
from sie_jax.tables import joining, parts
from sie_jax.tables.spool import write_parquet
from tests.tables.scored import ELSEWHERE, HERE, origin, pairs, scored, store


def test_file_and_folder_of_parts_read_alike(tmp_path: Path) -> None:
    identity = pairs(["a", "b", "c"])
    write_parquet(tmp_path / "one.parquet", identity)
    write_parquet(tmp_path / "parts" / "part-0.parquet", identity.slice(0, 2))
    write_parquet(tmp_path / "parts" / "part-1.parquet", identity.slice(2))
    assert parts.read(tmp_path / "one.parquet") == identity
    assert parts.read(tmp_path / "parts") == identity


def test_no_table_is_said_in_one_line(tmp_path: Path) -> None:
    for read in (parts.read, parts.provenance, lambda path: list(parts.batches(path))):
        with pytest.raises(UserError, match="no table is here") as caught:
            read(tmp_path / "nothing")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rows", [0, 1, 3, 4, 8, 11])
@pytest.mark.parametrize("cuts", [(), (2, 2, 7), (1, 4, 5, 8)])
def test_parts_hold_the_rows_in_order(tmp_path: Path, rows: int, cuts: tuple[int, ...]) -> None:
    made = pairs([str(i) for i in range(rows)], loss=np.arange(rows, dtype=np.float32))
    edges = [0, *(cut for cut in cuts if cut < rows), rows]
    tables = [made.slice(start, end - start) for start, end in itertools.pairwise(edges)]
    parts.write_parts(tmp_path, tables, process_index=0, provenance=origin("loss"), part_rows=4)
    counts = [pq.read_metadata(path).num_rows for path in sorted(tmp_path.iterdir())]
    assert counts == [4] * ((max(rows, 1) - 1) // 4) + [rows - 4 * ((max(rows, 1) - 1) // 4)]
    assert parts.read(tmp_path) == made
    streamed = list(parts.batches(tmp_path, columns=["loss", "example_id"], rows=3))
    assert all(batch.num_rows <= 3 for batch in streamed)
    expected = made.select(["loss", "example_id"])
    assert pa.Table.from_batches(streamed, expected.schema) == expected


def test_processes_write_in_any_order_and_the_table_is_whole_at_the_end(tmp_path: Path) -> None:
    made = pairs([str(i) for i in range(7)], loss=range(7))
    for process, (start, end) in ((1, (4, 7)), (0, (0, 4))):
        with pytest.raises(UserError, match=r"no table is here|process 0 of 2 has not finished"):
            parts.read(tmp_path)
        parts.write_parts(
            tmp_path,
            [made.slice(start, end - start)],
            process_index=process,
            process_count=2,
            provenance=origin("loss"),
            part_rows=2,
        )
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        f"part-0000{process}-0000{number}.parquet" for process in (0, 1) for number in (0, 1)
    ]
    assert parts.read(tmp_path) == made


def test_a_process_that_dies_leaves_whole_parts_and_is_run_again(tmp_path: Path) -> None:
    made = pairs([str(i) for i in range(9)], loss=range(9))

    def dying() -> Iterator[pa.Table]:
        yield made.slice(0, 5)
        raise KeyboardInterrupt

    store(tmp_path, made, part_rows=2)
    with pytest.raises(KeyboardInterrupt):
        parts.write_parts(
            tmp_path, dying(), process_index=0, provenance=origin("loss"), part_rows=2
        )
    assert [pq.read_metadata(path).num_rows for path in sorted(tmp_path.iterdir())] == [2, 2]
    for read in (parts.read, parts.provenance, lambda path: list(parts.batches(path))):
        with pytest.raises(UserError, match="process 0 of 1 has not finished writing: run it"):
            read(tmp_path)
    store(tmp_path, made, part_rows=3)
    assert parts.read(tmp_path) == made


def test_a_part_that_was_lost_is_noticed(tmp_path: Path) -> None:
    store(tmp_path, pairs(["a", "b", "c"], loss=[1, 2, 3]), part_rows=1)
    (tmp_path / "part-00000-00001.parquet").unlink()
    with pytest.raises(UserError, match="process 0 of 1 has not finished"):
        parts.read(tmp_path)


def test_parts_of_different_runs_are_refused(tmp_path: Path) -> None:
    made = pairs(["a"], loss=[1])
    store(tmp_path / "counts", made)
    options = {"process_index": 1, "process_count": 2, "provenance": origin("loss")}
    parts.write_parts(tmp_path / "counts", [made], **options)
    with pytest.raises(UserError, match="different runs"):
        parts.read(tmp_path / "counts")
    for seed in (0, 1):
        options = {"process_index": seed, "process_count": 2}
        parts.write_parts(
            tmp_path / "seeds", [made], **options, provenance=origin("loss", seed=seed)
        )
    with pytest.raises(UserError, match="different runs"):
        parts.provenance(tmp_path / "seeds")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (scored(["a"], loss=[1]).drop_columns("example_id"), "needs a column example_id"),
        (pa.table({"example_id": [1]}), "example_id is int64, expected string"),
        (pa.table({"example_id": ["a"], "label": [1]}), "label is int64, expected int32"),
        (pa.table({"example_id": ["a"], "loss": [1.0]}), "loss is double, expected float"),
        (
            pa.table({"example_id": ["a"], "loss": pa.array([[1.0]], pa.list_(pa.float64(), 1))}),
            r"loss is fixed_size_list<.*>\[1\], expected float",
        ),
        (scored([None], loss=[1]), "1 rows of a part have no example_id"),
    ],
)
def test_other_columns_are_refused(tmp_path: Path, made: pa.Table, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        store(tmp_path, made)
    assert not list(tmp_path.iterdir())


def test_bad_calls_are_refused(tmp_path: Path) -> None:
    made = scored(["a"], loss=[1])
    options = {"process_index": 0, "provenance": origin("loss")}
    with pytest.raises(ValueError, match="there is no process 2 among 2 processes"):
        parts.write_parts(tmp_path, [made], **{**options, "process_index": 2}, process_count=2)
    with pytest.raises(ValueError, match="no tables for"):
        parts.write_parts(tmp_path, [], **options)
    with pytest.raises(ValueError, match="different columns"):
        parts.write_parts(tmp_path, [made, scored(["b"], el2n=[1])], **options)
    with pytest.raises(ValueError, match=r"provenance is of \['el2n'\], the columns are"):
        store(tmp_path, made, provenance=origin("el2n"))
    mixed = origin("loss") | origin("el2n", data_version=ELSEWHERE)
    with pytest.raises(ValueError, match="one version of the data"):
        store(tmp_path, scored(["a"], loss=[1], el2n=[2]), provenance=mixed)


def test_provenance_is_json_that_any_reader_sees(tmp_path: Path) -> None:
    store(tmp_path, scored(["a", "b"], loss=[1, 2]), part_rows=1)
    for part in tmp_path.iterdir():
        assert json.loads(pq.read_metadata(part).metadata[b"sie_jax.provenance"]) == {
            "loss": {
                "score": "loss",
                "checkpoint": "run/7",
                "seed": 0,
                "data_version": HERE,
                "config": "c",
            }
        }


def test_scores_of_other_data_are_refused(tmp_path: Path) -> None:
    path = store(tmp_path / "t", scored(["a"], loss=[1]))
    parts.require(path, HERE)
    assert parts.read(path, data_version=HERE).num_rows == 1
    ids = [pa.array(["a"])]
    for refused in (
        lambda: parts.require(path, ELSEWHERE),
        lambda: parts.read(path, data_version=ELSEWHERE),
        lambda: list(joining.in_order(path, ids, columns=["loss"], data_version=ELSEWHERE)),
    ):
        with pytest.raises(UserError) as caught:
            refused()
        assert str(caught.value).startswith(f"{path}: was computed on data {'a' * 12}, but ")
        assert f"data {'b' * 12}: remove it and score again" in str(caught.value)
        assert "\n" not in str(caught.value)
    write_parquet(tmp_path / "plain.parquet", scored(["a"], loss=[1]))
    assert parts.provenance(tmp_path / "plain.parquet") == {}
    with pytest.raises(UserError, match="does not say on what data"):
        parts.require(tmp_path / "plain.parquet", HERE)


# --------------------------------------------------------------------------- rows used by position


def test_rows_in_their_order_are_read(tmp_path: Path) -> None:
    made = pairs(["c", "a", "b"], loss=[1, 2, 3])
    store(tmp_path, made, part_rows=2)
    for ids in (made["example_id"], made["example_id"].combine_chunks().cast(pa.large_string())):
        assert parts.read_aligned(tmp_path, ids, data_version=HERE) == made


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", "b", "c"], "row 0 is of example 'c', not of 'a': remove it and run the same"),
        (["c", "a", "d"], "row 2 is of example 'b', not of 'd'"),
        (["c", "a"], "has 3 rows, not 2"),
        (["c", "a", "b", "b"], "has 3 rows, not 4"),
        ([], "has 3 rows, not 0"),
    ],
)
def test_other_rows_or_another_order_are_refused(
    tmp_path: Path, ids: list[str], message: str
) -> None:
    store(tmp_path, pairs(["c", "a", "b"], loss=[1, 2, 3]), part_rows=2)
    with pytest.raises(UserError) as caught:
        parts.read_aligned(tmp_path, pa.chunked_array([pa.array(ids, pa.string())]))
    assert str(caught.value).startswith(f"{tmp_path}: {message}")
    assert "\n" not in str(caught.value)


def test_rows_without_an_id_are_not_used_by_position(tmp_path: Path) -> None:
    write_parquet(tmp_path / "t.parquet", scored(["a", None], loss=[1, 2]))
    with pytest.raises(UserError, match="row 1 is of example None, not of 'b'"):
        parts.read_aligned(tmp_path / "t.parquet", pa.array(["a", "b"]))
    write_parquet(tmp_path / "t.parquet", pa.table({"loss": [1.0]}))
    with pytest.raises(UserError, match="has no column example_id"):
        parts.read_aligned(tmp_path / "t.parquet", pa.array(["a"]))
    write_parquet(tmp_path / "t.parquet", scored(["a"], loss=[1]))
    with pytest.raises(UserError, match="does not say on what data"):
        parts.read_aligned(tmp_path / "t.parquet", pa.array(["a"]), data_version=HERE)
