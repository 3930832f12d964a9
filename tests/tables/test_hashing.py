"""The version of the data changes with the data alone, and ids are spread evenly."""

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from sie_jax.tables import hashing
from tests.tables.scored import names_of


def test_partitions_are_even_and_depend_on_all_bytes() -> None:
    count, partitions = 20_000, 16
    for prefix, suffix in (("", ""), ("https://shop.example/", ""), ("", "-us")):
        ids = pa.array([f"{prefix}{i}{suffix}" for i in range(count)])
        sizes = np.bincount(hashing.partition(ids, partitions), minlength=partitions)
        # a count is binomial; 6 standard deviations are passed once in 10^8 / 16 hashes
        mean = count / partitions
        assert np.abs(sizes - mean).max() < 6 * np.sqrt(mean)
        assert hashing.partition(ids.slice(5, 3), 16).tolist() == (
            hashing.partition(ids, 16)[5:8].tolist()
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
    assert hashing.partition(pa.array(ids), 37).tolist() == expected


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
    expected = hashing.data_version(made)
    assert re.fullmatch("[0-9a-f]{64}", expected)
    for rows in (1, 2, 3):
        assert hashing.data_version(made.to_batches(max_chunksize=rows)) == expected
    cut = pa.concat_tables([made.slice(0, 1), made.slice(1, 0), made.slice(1)])
    assert hashing.data_version(cut) == expected
    padded = pa.concat_tables([made, made, made]).combine_chunks()
    assert hashing.data_version(padded.slice(4, 4)) == expected
    other_types = made.set_column(4, "label", made["label"].cast(pa.int32())).set_column(
        1, "query", made["query"].cast(pa.large_string())
    )
    assert hashing.data_version(other_types) == expected
    moved = made.select(made.column_names[::-1]).append_column("split", pa.array(["train"] * 4))
    assert hashing.data_version(moved) == expected
    assert hashing.data_version(made, columns=hashing.DATA[::-1]) == expected


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
    versions = {name: hashing.data_version(made) for name, made in CHANGED.items()}
    versions["none"] = hashing.data_version(texts())
    assert len(set(versions.values())) == len(versions)


def test_version_of_other_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="no column text"):
        hashing.data_version(texts().drop_columns("text"))
    with pytest.raises(ValueError, match="label is double, expected strings or integers"):
        hashing.data_version(texts(label=[0.5, 1.0, 1.0, 1.0]))
