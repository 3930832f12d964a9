from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sie_jax.errors import UserError
from sie_jax.tables import parts, vectors
from sie_jax.tables.provenance import Provenance

HERE = "a" * 64
ROWS = 23
IDS = [f"row-{i}" for i in range(ROWS)]
KINDS = {"history": 3, "embedding": 5}


def origin(*kinds: str) -> dict[str, Provenance]:
    return {
        kind: Provenance(score=kind, checkpoint="run/7", seed=0, data_version=HERE, config="c")
        for kind in kinds
    }


@pytest.fixture
def values() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {kind: generator.normal(size=(ROWS, dim)) for kind, dim in KINDS.items()}


@pytest.fixture
def folder(tmp_path: Path, values: dict[str, np.ndarray]) -> Path:
    """Two processes' parts, from batches of 4 rows."""
    for process, (begin, end) in enumerate([(0, 14), (14, ROWS)]):
        batches = [
            (IDS[i : min(i + 4, end)], {k: v[i : min(i + 4, end)] for k, v in values.items()})
            for i in range(begin, end, 4)
        ]
        vectors.write(
            tmp_path / "vectors",
            batches,
            process_index=process,
            process_count=2,
            provenance=origin(*KINDS),
            part_rows=6,
        )
    return tmp_path / "vectors"


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8])
def test_what_goes_in_comes_out(dtype) -> None:
    values = np.arange(12).reshape(4, 3).astype(dtype)
    column = vectors.as_column(values)
    assert len(column) == 4
    back = vectors.as_array(column)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, values)
    chunked = pa.chunked_array([column.slice(0, 1), column.slice(1)])
    np.testing.assert_array_equal(vectors.as_array(chunked), values)


def test_no_vectors_keep_their_length() -> None:
    assert vectors.as_array(vectors.as_column(np.zeros((0, 3)))).shape == (0, 3)


def test_plain_numbers_stay_plain() -> None:
    np.testing.assert_array_equal(vectors.as_array(pa.array([1.5, 2.5])), [1.5, 2.5])


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\), expected \[N, D\]"):
        vectors.as_column(np.zeros(3))


def test_store_is_a_table_of_fixed_size_lists(folder: Path) -> None:
    files = sorted(folder.iterdir())
    assert [pq.read_metadata(file).num_rows for file in files] == [6, 6, 2, 6, 3]
    for file in files:
        schema = pq.read_schema(file)
        assert schema.names == ["example_id", *KINDS]
        for kind, dim in KINDS.items():
            assert schema.field(kind).type.list_size == dim
            assert schema.field(kind).type.value_type == pa.float32()
    assert parts.provenance(folder) == origin(*KINDS)


@pytest.mark.parametrize("rows", [4, None])
def test_stream_gives_what_was_written(
    folder: Path, values: dict[str, np.ndarray], rows: int | None
) -> None:
    batches = list(vectors.stream(folder, rows=rows, data_version=HERE))
    assert all(len(ids) <= (rows or ROWS) for ids, _ in batches)
    assert [one for ids, _ in batches for one in ids.to_pylist()] == IDS
    for kind, expected in values.items():
        found = np.concatenate([arrays[kind] for _, arrays in batches])
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected.astype(np.float32))
    assert all(
        list(arrays) == ["embedding"] for _, arrays in vectors.stream(folder, columns=["embedding"])
    )


@pytest.mark.parametrize("partition_rows", [1, 5, None])
def test_any_order_as_indexing_gives_it(
    folder: Path, values: dict[str, np.ndarray], partition_rows: int | None
) -> None:
    order = np.random.default_rng(1).permutation(ROWS)
    blocks = list(
        vectors.in_order(
            folder,
            [pa.array([IDS[i] for i in order])],
            columns=["embedding", "history"],
            data_version=HERE,
            partition_rows=partition_rows,
        )
    )
    for kind, expected in values.items():
        found = np.concatenate([block[kind] for block in blocks])
        np.testing.assert_array_equal(found, expected.astype(np.float32)[order])


def test_vectors_of_other_data_or_rows_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="but this is data bbbbbbbbbbbb"):
        next(vectors.stream(folder, data_version="b" * 64))
    with pytest.raises(UserError, match="but this is data bbbbbbbbbbbb"):
        next(vectors.in_order(folder, [], columns=["history"], data_version="b" * 64))
    with pytest.raises(UserError, match="22 missing in the rows asked for"):
        next(vectors.in_order(folder, [pa.array(IDS[:1])], columns=["history"]))


def test_ids_and_vectors_must_be_as_many(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 vectors history for 3 example ids"):
        vectors.write(
            tmp_path,
            [(["a", "b", "c"], {"history": np.zeros((2, 4))})],
            process_index=0,
            provenance=origin("history"),
        )


def test_long_vectors_are_held_in_few_rows(tmp_path: Path) -> None:
    # 256 MiB hold 64 vectors of 2^20 float32
    schema = pa.schema({"example_id": pa.string(), "v": pa.list_(pa.float32(), 1 << 20)})
    assert parts.rows_in_memory(schema) == 64
    assert parts.rows_in_memory(pa.schema({"example_id": pa.string()})) == 1 << 20
