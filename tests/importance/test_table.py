import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sie_jax.errors import UserError
from sie_jax.importance import table
from sie_jax.importance.table import Provenance
from sie_jax.tables.spool import write_parquet

ROOT = Path(__file__).parents[2]
HERE, ELSEWHERE = "a" * 64, "b" * 64  # versions of the data


def origin(*names: str, data_version: str = HERE, seed: int = 0) -> dict[str, Provenance]:
    return {
        name: Provenance(
            score=name, checkpoint="run/7", seed=seed, data_version=data_version, config="c"
        )
        for name in names
    }


def scored(ids: Sequence[str], **scores: Sequence[float]) -> pa.Table:
    columns = {name: pa.array(values, pa.float32()) for name, values in scores.items()}
    return pa.table({"example_id": pa.array(ids, pa.string()), **columns})


def pairs(ids: Sequence[str], **scores: Sequence[float]) -> pa.Table:
    """With the other identity columns."""
    made = scored(ids, **scores)
    for place, (name, values) in enumerate(
        {
            "query_id": pa.array([f"q{i // 2}" for i in range(len(ids))], pa.string()),
            "item_id": pa.array([f"i{i}" for i in range(len(ids))], pa.string()),
            "label": pa.array([i % 3 for i in range(len(ids))], pa.int32()),
        }.items(),
        start=1,
    ):
        made = made.add_column(place, name, values)
    return made


def store(
    folder: Path,
    made: pa.Table,
    *,
    part_rows: int | None = None,
    provenance: Mapping[str, Provenance] | None = None,
) -> Path:
    """Writes a table as one process, of origin `HERE` where nothing else is given."""
    names = [name for name in made.column_names if name not in table.IDENTITY]
    table.write_parts(
        folder,
        [made],
        process_index=0,
        provenance=origin(*names) if provenance is None else provenance,
        part_rows=part_rows,
    )
    return folder


def names_of(count: int, seed: int = 0) -> list[str]:
    """Ids of many lengths, "" and letters beyond ASCII among them."""
    generator = np.random.default_rng(seed)
    letters = list("abcäß靴0123456789-")
    found: dict[str, None] = {"": None, "靴": None, "x" * 300: None}
    while len(found) < count:
        found["".join(generator.choice(letters, size=generator.integers(1, 9)))] = None
    ids = list(found)[:count]
    generator.shuffle(ids)
    return ids


@pytest.fixture
def identity() -> pa.Table:
    return pa.table(
        {
            "example_id": ["a", "b", "c"],
            "query_id": ["q", "q", "r"],
            "item_id": ["1", "2", "3"],
            "label": pa.array([0, 3, 1], pa.int32()),
            "title": ["not", "part", "of it"],
        }
    )


# ------------------------------------------------------------------------------- build and read


def test_columns_and_mean_one_weights(identity: pa.Table) -> None:
    weights = np.array([0.5, 0.25, 0.25])
    made = table.build(identity, {"loss": np.array([1.0, 2.0, 3.0])}, weights)
    assert made.column_names == ["example_id", "query_id", "item_id", "label", "loss", "weight"]
    np.testing.assert_allclose(made["weight"].to_numpy(), weights * 3)
    assert made["weight"].to_numpy().mean() == pytest.approx(1.0)


def test_lengths_must_agree(identity: pa.Table) -> None:
    with pytest.raises(ValueError, match="loss has shape"):
        table.build(identity, {"loss": np.zeros(2)}, np.zeros(3))


def test_file_and_folder_of_parts_read_alike(tmp_path: Path, identity: pa.Table) -> None:
    write_parquet(tmp_path / "one.parquet", identity)
    write_parquet(tmp_path / "parts" / "part-0.parquet", identity.slice(0, 2))
    write_parquet(tmp_path / "parts" / "part-1.parquet", identity.slice(2))
    assert table.read(tmp_path / "one.parquet") == identity
    assert table.read(tmp_path / "parts") == identity


def test_a_built_table_keeps_its_provenance(tmp_path: Path, identity: pa.Table) -> None:
    given = origin("loss", "weight")
    made = table.build(identity, {"loss": np.zeros(3)}, np.full(3, 1 / 3), provenance=given)
    path = tmp_path / "importance.parquet"
    write_parquet(path, made)
    assert table.provenance(path) == given
    write_parquet(path, table.read(path))
    assert table.provenance(path) == given


def test_no_table_is_said_in_one_line(tmp_path: Path) -> None:
    for read in (table.read, table.provenance, lambda path: list(table.batches(path))):
        with pytest.raises(UserError, match="no table is here") as caught:
            read(tmp_path / "nothing")
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------- parts


@pytest.mark.parametrize("rows", [0, 1, 3, 4, 8, 11])
@pytest.mark.parametrize("cuts", [(), (2, 2, 7), (1, 4, 5, 8)])
def test_parts_hold_the_rows_in_order(tmp_path: Path, rows: int, cuts: tuple[int, ...]) -> None:
    made = pairs([str(i) for i in range(rows)], loss=np.arange(rows, dtype=np.float32))
    edges = [0, *(cut for cut in cuts if cut < rows), rows]
    tables = [made.slice(start, end - start) for start, end in itertools.pairwise(edges)]
    table.write_parts(tmp_path, tables, process_index=0, provenance=origin("loss"), part_rows=4)
    counts = [pq.read_metadata(path).num_rows for path in sorted(tmp_path.iterdir())]
    assert counts == [4] * ((max(rows, 1) - 1) // 4) + [rows - 4 * ((max(rows, 1) - 1) // 4)]
    assert table.read(tmp_path) == made
    streamed = list(table.batches(tmp_path, columns=["loss", "example_id"], rows=3))
    assert all(batch.num_rows <= 3 for batch in streamed)
    expected = made.select(["loss", "example_id"])
    assert pa.Table.from_batches(streamed, expected.schema) == expected


def test_processes_write_in_any_order_and_the_table_is_whole_at_the_end(tmp_path: Path) -> None:
    made = pairs([str(i) for i in range(7)], loss=range(7))
    for process, (start, end) in ((1, (4, 7)), (0, (0, 4))):
        with pytest.raises(UserError, match=r"no table is here|process 0 of 2 has not finished"):
            table.read(tmp_path)
        table.write_parts(
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
    assert table.read(tmp_path) == made


def test_a_process_that_dies_leaves_whole_parts_and_is_run_again(tmp_path: Path) -> None:
    made = pairs([str(i) for i in range(9)], loss=range(9))

    def dying() -> Iterator[pa.Table]:
        yield made.slice(0, 5)
        raise KeyboardInterrupt

    store(tmp_path, made, part_rows=2)
    with pytest.raises(KeyboardInterrupt):
        table.write_parts(
            tmp_path, dying(), process_index=0, provenance=origin("loss"), part_rows=2
        )
    assert [pq.read_metadata(path).num_rows for path in sorted(tmp_path.iterdir())] == [2, 2]
    for read in (table.read, table.provenance, lambda path: list(table.batches(path))):
        with pytest.raises(UserError, match="process 0 of 1 has not finished writing: run it"):
            read(tmp_path)
    store(tmp_path, made, part_rows=3)
    assert table.read(tmp_path) == made


def test_a_part_that_was_lost_is_noticed(tmp_path: Path) -> None:
    store(tmp_path, pairs(["a", "b", "c"], loss=[1, 2, 3]), part_rows=1)
    (tmp_path / "part-00000-00001.parquet").unlink()
    with pytest.raises(UserError, match="process 0 of 1 has not finished"):
        table.read(tmp_path)


def test_parts_of_different_runs_are_refused(tmp_path: Path) -> None:
    made = pairs(["a"], loss=[1])
    store(tmp_path / "counts", made)
    options = {"process_index": 1, "process_count": 2, "provenance": origin("loss")}
    table.write_parts(tmp_path / "counts", [made], **options)
    with pytest.raises(UserError, match="different runs"):
        table.read(tmp_path / "counts")
    for seed in (0, 1):
        options = {"process_index": seed, "process_count": 2}
        table.write_parts(
            tmp_path / "seeds", [made], **options, provenance=origin("loss", seed=seed)
        )
    with pytest.raises(UserError, match="different runs"):
        table.provenance(tmp_path / "seeds")


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
    with pytest.raises(ValueError, match="process 2 is none of 2 processes"):
        table.write_parts(tmp_path, [made], **{**options, "process_index": 2}, process_count=2)
    with pytest.raises(ValueError, match="no tables for"):
        table.write_parts(tmp_path, [], **options)
    with pytest.raises(ValueError, match="different columns"):
        table.write_parts(tmp_path, [made, scored(["b"], el2n=[1])], **options)
    with pytest.raises(ValueError, match=r"provenance is of \['el2n'\], the columns are"):
        store(tmp_path, made, provenance=origin("el2n"))
    mixed = origin("loss") | origin("el2n", data_version=ELSEWHERE)
    with pytest.raises(ValueError, match="one version of the data"):
        store(tmp_path, scored(["a"], loss=[1], el2n=[2]), provenance=mixed)


# --------------------------------------------------------------------------------------- orders


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
            table.in_order(
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
    blocks = table.in_order(
        tmp_path / "t", [backwards], columns=["item_id", "label"], partition_rows=6
    )
    expected = made.take(list(range(39, -1, -1))).select(["item_id", "label"])
    assert pa.concat_tables(blocks) == expected


def test_partitions_are_even_and_depend_on_all_bytes() -> None:
    count, partitions = 20_000, 16
    for prefix, suffix in (("", ""), ("https://shop.example/", ""), ("", "-us")):
        ids = pa.array([f"{prefix}{i}{suffix}" for i in range(count)])
        sizes = np.bincount(table._partition(ids, partitions), minlength=partitions)
        # a count is binomial; 6 standard deviations are passed once in 10^8 / 16 hashes
        mean = count / partitions
        assert np.abs(sizes - mean).max() < 6 * np.sqrt(mean)
        assert table._partition(ids.slice(5, 3), 16).tolist() == (
            table._partition(ids, 16)[5:8].tolist()
        )


def hash_of(text: str) -> int:
    """Σ_k byte_k · M^(k + 1) mod 2³², and MurmurHash3's end."""
    value = sum(byte * 0x9E3779B1 ** (k + 1) for k, byte in enumerate(text.encode())) % 2**32
    value = (value ^ (value >> 16)) * 0x85EBCA6B % 2**32
    value = (value ^ (value >> 13)) * 0xC2B2AE35 % 2**32
    return value ^ (value >> 16)


def test_the_hash_is_the_one_described() -> None:
    ids = ["", *names_of(50), ""]
    expected = [hash_of(one) * 37 >> 32 for one in ids]
    assert table._partition(pa.array(ids), 37).tolist() == expected


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

    # ids are named in the order of the partitions, another one for each number of them
    if partition_rows == 1:
        message = message.partition(" (first ")[0]
    options = {"columns": ["el2n"], "partition_rows": partition_rows}
    with pytest.raises(UserError) as caught:
        list(table.in_order(right, [pa.array(there, pa.string())], **options))
    assert "\n" not in str(caught.value)
    expected = message.replace("{path}", str(right), 1).replace("{asked}", "the rows asked for", 1)
    assert expected in str(caught.value)
    with pytest.raises(UserError) as caught:
        table.join(left, right, tmp_path / "out", **options)
    expected = message.replace("{path}", str(right), 1).replace("{asked}", str(left), 1)
    assert expected in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"left", "right"}


def test_an_error_counts_all_and_names_a_few(tmp_path: Path) -> None:
    right = store(tmp_path, scored(["a"], el2n=[0]))
    with pytest.raises(UserError) as caught:
        list(table.in_order(right, [pa.array(["a", *map(str, range(50))])], columns=["el2n"]))
    assert f"50 missing in {right} (first '0', '1', '2'): score the same" in str(caught.value)


def test_rows_without_an_id_are_refused(tmp_path: Path) -> None:
    right = store(tmp_path / "right", scored(["a", "b"], el2n=[0, 1]))
    with pytest.raises(UserError, match="1 rows of the rows asked for have no example_id"):
        list(table.in_order(right, [pa.array(["a", None])], columns=["el2n"]))
    write_parquet(tmp_path / "other.parquet", scored(["a", None, None], loss=[0, 1, 2]))
    with pytest.raises(UserError, match=r"2 rows of .*other.parquet have no example_id"):
        list(table.in_order(tmp_path / "other.parquet", [pa.array(["a"])], columns=["loss"]))


def test_unknown_columns_are_refused(tmp_path: Path) -> None:
    right = store(tmp_path, scored(["a"], el2n=[0]))
    with pytest.raises(ValueError, match="no column grand"):
        next(table.in_order(right, [pa.array(["a"])], columns=["grand"]))


def test_no_temporary_files_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    right = store(tmp_path / "right", scored(["a", "b", "c"], el2n=[0, 1, 2]))
    blocks = table.in_order(right, [pa.array(["c", "a", "b"])], columns=["el2n"], partition_rows=1)
    assert next(blocks)["el2n"].to_pylist() == [2]
    assert list((tmp_path / "scratch").iterdir())
    blocks.close()
    assert not list((tmp_path / "scratch").iterdir())


# ----------------------------------------------------------------------------------------- join


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
    table.join(
        tmp_path / "left",
        tmp_path / "right",
        out,
        columns=["el2n_1", "loss_1"],
        partition_rows=partition_rows,
    )
    joined = table.read(out, data_version=HERE)
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
    table.join(left, right, tmp_path / "out", columns=["loss_1"])
    assert table.provenance(tmp_path / "out") == {**origin("loss"), "loss_1": given["loss_1"]}


def test_joins_that_are_refused(tmp_path: Path) -> None:
    left = store(tmp_path / "left", scored(["a"], loss=[1]))
    right = store(tmp_path / "right", scored(["a"], loss=[1], el2n=[2]))
    old = store(
        tmp_path / "old", scored(["a"], el2n=[1]), provenance=origin("el2n", data_version=ELSEWHERE)
    )
    write_parquet(tmp_path / "plain.parquet", scored(["a"], el2n=[1]))
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"left was computed on data a{12}, .*old on data b{12}: "):
        table.join(left, old, out, columns=["el2n"])
    with pytest.raises(UserError, match=r"plain.parquet: does not say on what data"):
        table.join(left, tmp_path / "plain.parquet", out, columns=["el2n"])
    with pytest.raises(ValueError, match="has a column loss already"):
        table.join(left, right, out, columns=["loss"])
    with pytest.raises(ValueError, match="no scores margin"):
        table.join(left, right, out, columns=["margin"])
    assert not out.exists()
    with pytest.raises(ValueError, match="is there already"):
        table.join(left, right, left, columns=["el2n"])


# ----------------------------------------------------------------------------------- provenance


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
    table.require(path, HERE)
    assert table.read(path, data_version=HERE).num_rows == 1
    ids = [pa.array(["a"])]
    for refused in (
        lambda: table.require(path, ELSEWHERE),
        lambda: table.read(path, data_version=ELSEWHERE),
        lambda: list(table.in_order(path, ids, columns=["loss"], data_version=ELSEWHERE)),
    ):
        with pytest.raises(UserError) as caught:
            refused()
        assert str(caught.value).startswith(f"{path}: was computed on data {'a' * 12}, but ")
        assert f"data {'b' * 12}: remove it and score again" in str(caught.value)
        assert "\n" not in str(caught.value)
    write_parquet(tmp_path / "plain.parquet", scored(["a"], loss=[1]))
    assert table.provenance(tmp_path / "plain.parquet") == {}
    with pytest.raises(UserError, match="does not say on what data"):
        table.require(tmp_path / "plain.parquet", HERE)


# ----------------------------------------------------------------------------- version of the data


def texts(**changes: Sequence[object]) -> pa.Table:
    columns = {
        "example_id": ["1", "2", "3", "4"],
        "query": ["red", "shoe", "shoe", ""],
        "title": ["lamp", "Schuh", "靴", "x"],
        "text": ["", None, "", "y"],
        "label": [0, 3, 1, 2],
    }
    return pa.table({**columns, **changes})


def test_version_does_not_depend_on_batches_widths_or_other_columns() -> None:
    made = texts()
    expected = table.data_version(made)
    assert re.fullmatch("[0-9a-f]{64}", expected)
    for rows in (1, 2, 3):
        assert table.data_version(made.to_batches(max_chunksize=rows)) == expected
    cut = pa.concat_tables([made.slice(0, 1), made.slice(1, 0), made.slice(1)])
    assert table.data_version(cut) == expected
    padded = pa.concat_tables([made, made, made]).combine_chunks()
    assert table.data_version(padded.slice(4, 4)) == expected
    other_types = made.set_column(4, "label", made["label"].cast(pa.int32())).set_column(
        1, "query", made["query"].cast(pa.large_string())
    )
    assert table.data_version(other_types) == expected
    moved = made.select(made.column_names[::-1]).append_column("split", pa.array(["train"] * 4))
    assert table.data_version(moved) == expected
    assert table.data_version(made, columns=table.DATA[::-1]) == expected


CHANGED = {
    "another text": texts(title=["lamp", "Schuh", "靴", "X"]),
    "a letter of one row in the next": texts(title=["lampS", "chuh", "靴", "x"]),
    "a letter of one column in the next": texts(title=["amp", "Schuh", "靴", "x"]),
    "another label": texts(label=[0, 3, 1, 1]),
    "null in place of nothing": texts(text=[None, None, "", "y"]),
    "null elsewhere": texts(text=[None, "", "", "y"]),
    "labels as strings": texts(label=["0", "3", "1", "2"]),
    "another id": texts(example_id=["1", "2", "3", "5"]),
    "another order": texts().take([1, 0, 2, 3]),
    "a row less": texts().slice(0, 3),
    "a row twice": pa.concat_tables([texts(), texts().slice(3)]),
    "no rows": texts().slice(0, 0),
    "columns exchanged": texts(query=texts()["title"], title=texts()["query"]),
}


def test_any_change_gives_another_version() -> None:
    versions = {name: table.data_version(made) for name, made in CHANGED.items()}
    versions["none"] = table.data_version(texts())
    assert len(set(versions.values())) == len(versions)


def test_version_of_other_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="no column text"):
        table.data_version(texts().drop_columns("text"))
    with pytest.raises(ValueError, match="label is double, expected strings or integers"):
        table.data_version(texts(label=[0.5, 1.0, 1.0, 1.0]))


# ----------------------------------------------------------------------------------------- page


def test_measured_table_of_the_page_is_the_committed_result() -> None:
    page = (ROOT / "docs" / "importance_table.md").read_text(encoding="utf-8")
    report = json.loads((ROOT / "benchmarks" / "results" / "importance_table.json").read_text())
    rows = {
        cells[0]: cells[1:]
        for cells in (
            [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines()
        )
    }
    assert report["device"] in page
    small, large = report["sizes"].values()
    for name, found in large.items():
        assert rows[name] == [
            f"{found['seconds']:.0f}",
            f"{found['cpu_seconds']:.0f}",
            f"{found['rows_per_cpu_second'] / 1e6:.2f}",
            f"{found['bytes'] / 1e9:.2f}",
            f"{found['peak_scratch_bytes'] / 1e9:.2f}",
            f"{small[name]['peak_mebibytes']:.0f}",
            f"{found['peak_mebibytes']:.0f}",
        ]
