"""The section of the data: its sources' rules, and that it reads what they read."""

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sie_jax import remote, sections
from sie_jax.data import preparing
from sie_jax.data.schema import RAW_SCHEMA
from sie_jax.data.section import SOURCES, DataConfig
from sie_jax.data.sources import synthetic, table
from sie_jax.data.sources.section import SourceSection
from sie_jax.errors import UserError

ROWS = [{"q": f"lamp {i // 3}", "title": f"lamp no {i}", "grade": "bg"[i % 2]} for i in range(60)]


def own_table(path: Path, **table: Any) -> DataConfig:
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=25)
    data = DataConfig(source="table", path=str(path))
    data.columns.query, data.columns.label = "q", "grade"
    data.table = dataclasses.replace(data.table, **table)
    return data


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_has_a_section_of_its_name_and_defaults_that_work(source: str) -> None:
    data = DataConfig(source=source, path="somewhere")
    assert isinstance(getattr(data, source), SourceSection)
    data.check()
    assert sections.plain(data)["source"] == source


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_that_is_read_from_a_path_needs_one(source: str) -> None:
    data = DataConfig(source=source)
    if source in ("synthetic", "market"):  # these are generated
        data.check()
        return
    with pytest.raises(UserError, match=r"^data\.path is empty: give (the|a) .*--config.data.path"):
        data.check()


@pytest.mark.parametrize("source", SOURCES)
def test_only_a_table_has_columns_of_numbers(source: str) -> None:
    for field in ("features", "columns.current"):
        data = DataConfig(source=source, path="somewhere")
        data.features = ("price",) if field == "features" else ()
        data.columns.current = "" if field == "features" else "price"
        if source == "table":
            data.check()
            continue
        with pytest.raises(
            UserError, match=rf"^data\.{field} names price, but the source {source}"
        ):
            data.check()


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (("price", "bm25_title"), "data.features names bm25_title, which is the name of a feature"),
        (("cosine",), "names cosine, which is"),
        (("attribute:brand",), "names attribute:brand, which is"),
        (("split",), "names split, which is"),
        (("price", "rank", "price"), "data.features has 'price' 2 times: give"),
        (("",), "data.features has '' 1 times: give the name"),
        (("grade",), "data.features names grade, which holds labels"),
        (("really",), "names really, which holds labels"),
        (("ann",), "names ann, which holds labels"),
    ],
    ids=str,
)
def test_features_that_cannot_be(features: tuple[str, ...], words: str) -> None:
    data = DataConfig(source="table", path="somewhere", features=features)
    data.columns.label, data.columns.truth, data.table.raters = "grade", "really", ("ann",)
    with pytest.raises(UserError) as caught:
        data.check()
    assert words in str(caught.value)


def test_the_current_score_may_be_a_feature_but_no_label() -> None:
    data = DataConfig(source="table", path="somewhere", features=("today",))
    data.columns.current = "today"
    data.check()
    data.columns.current = "label"
    with pytest.raises(UserError, match=r"^data\.columns\.current names label, which holds labels"):
        data.check()


@pytest.mark.parametrize(
    ("source", "field", "value"),
    [
        ("esci", "version", "tiny"),
        ("clicks", "minimum_impressions", 0),
        ("clicks", "maximum_click_rate", 1.1),
        ("clicks", "smoothing", 0.0),
    ],
)
def test_only_the_chosen_source_is_checked(source: str, field: str, value: Any) -> None:
    data = DataConfig(source=source, path="somewhere")
    setattr(getattr(data, source), field, value)
    with pytest.raises(UserError, match=rf"^data\.{source}\.{field} is "):
        data.check()
    data.source = "synthetic"
    data.check()


def test_an_unknown_field_of_a_source_cannot_be_set() -> None:
    for source in SOURCES:
        with pytest.raises(AttributeError):
            getattr(DataConfig(), source).nois = 0.1


@pytest.mark.parametrize(
    ("folds", "fold", "words"),
    [
        (1, 0, r"data\.test_folds is 1: give at least 2, or 0 for none"),
        (-3, 0, r"data\.test_folds is -3: give at least 2"),
        (0, 1, r"data\.test_fold is 1 and data\.test_folds is 0: give a fold from 0"),
        (4, 4, r"data\.test_fold is 4 and data\.test_folds is 4: give a fold from 0"),
        (4, -1, r"data\.test_fold is -1"),
    ],
)
def test_folds_that_cannot_be(folds: int, fold: int, words: str) -> None:
    with pytest.raises(UserError, match=f"^{words}"):
        DataConfig(test_folds=folds, test_fold=fold).check()


@pytest.mark.parametrize(("folds", "fold"), [(0, 0), (2, 0), (2, 1), (10, 9)])
def test_folds_that_can(folds: int, fold: int) -> None:
    data = DataConfig(test_folds=folds, test_fold=fold)
    data.check()
    assert (data.rules.folds, data.rules.fold) == (folds, fold)


def test_the_synthetic_shop_gets_the_shares_of_the_splits() -> None:
    data = DataConfig(validation=0.3, test=0.4)
    data.synthetic.queries, data.synthetic.seed = 20, 3
    ours = data.read()
    theirs = synthetic.read(queries=20, seed=3, validation=0.3, test=0.4)
    assert ours.table.equals(theirs.table)
    assert ours.scale == theirs.scale


def test_a_table_gets_its_columns_and_gains(tmp_path: Path) -> None:
    data = own_table(tmp_path / "own.parquet", labels=("b", "g"), attributes=("q",))
    data.gains = (0.0, 7.0)
    ours = data.read()
    columns = {"query": "q", "title": "title", "label": "grade"}
    theirs = table.read(data.path, columns=columns, attributes=["q"], labels=["b", "g"])
    assert ours.table.equals(theirs.table)
    assert (ours.scale.names, ours.scale.gains) == (("b", "g"), (0.0, 7.0))
    data.gains = (0.0,)
    with pytest.raises(UserError, match=r"^data\.gains, for the labels b, g: gains \[0\.0\]: give"):
        data.read()


def test_a_path_in_an_object_store_is_copied_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = own_table(tmp_path / "own.parquet", labels=("b", "g"))
    here, data.path = data.path, "gs://bucket/own.parquet"
    monkeypatch.setattr(remote, "local", {data.path: here}.__getitem__)
    assert data.read().table.num_rows == len(ROWS)
    assert data.row_groups() is None  # other machines have no such copy


def test_other_machines_can_read_a_table_in_parquet_files_with_named_labels(tmp_path: Path) -> None:
    data = own_table(tmp_path / "own.parquet", labels=("b", "g"))
    data.gains = (0.0, 7.0)
    found = data.row_groups()
    assert found
    source, groups = found
    assert source.table.equals(RAW_SCHEMA.empty_table())
    assert (source.scale, source.location) == (data.read().scale, data.path)
    assert [group.rows for group in groups] == [25, 25, 10]
    columns = table.columns_of(data.request(data.path))
    rows = [row for group in groups for row in table.rows_of(group, columns=columns, further={})]
    read = data.read().table.to_pylist()
    assert rows == [{name: row[name] for name in rows[0]} for row in read]


@pytest.mark.parametrize(
    "changed", [{"labels": ()}, {"labels": ("b", "g"), "raters": ("grade",)}], ids=str
)
def test_a_table_whose_rows_must_be_seen_together_is_not_read_in_parts(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    assert own_table(tmp_path / "own.parquet", **changed).row_groups() is None


def test_neither_are_other_files_and_other_sources(tmp_path: Path) -> None:
    assert DataConfig().row_groups() is None
    data = own_table(tmp_path / "own.parquet", labels=("b", "g"))
    (tmp_path / "own.csv").write_text("q,title,grade\na,b,g\n")
    data.path = str(tmp_path / "own.csv")
    assert data.row_groups() is None


def test_selecting_follows_the_rules_and_names_the_source(tmp_path: Path) -> None:
    data = own_table(tmp_path / "own.parquet", labels=("b", "g"))
    source = data.read()
    ours, theirs = data.select(source), preparing.select(source, data.rules)
    assert ours.kept.equals(theirs.kept)
    assert ours.rejected.equals(theirs.rejected)
    data.max_title_characters = 3
    with pytest.raises(UserError, match=rf"^{data.path}: cleaning: every one of the 60 rows"):
        data.select(source)


def test_the_settings_of_the_section_are_those_of_rules_and_encoding() -> None:
    data = DataConfig(split_seed=5, max_query_characters=6, buckets=3, item_text=True)
    assert data.rules == preparing.Rules(
        max_query_characters=6, max_title_characters=2000, validation=0.1, test=0.2, seed=5
    )
    assert data.encoding("folder") == preparing.Encoding(
        tokenizer_folder="folder", vocabulary_size=4096, item_text=True, max_length=32, buckets=3
    )
