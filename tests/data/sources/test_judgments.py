"""Judgment lists in the forms that tools write, and what is counted and refused."""

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sie_jax.data.schema import Source
from sie_jax.data.section import DataConfig
from sie_jax.data.sources import judgments
from sie_jax.errors import UserError

# as the demos of Elasticsearch-LTR write it, with tabs before the document or behind it
LTR = """# grade (0-4)\tqueryid\tdocId\ttitle
#
# qid:1: red shoes*1
# qid:2: C# book

4\tqid:1 #\t7555\tRed shoes
0\tqid:1\t# 13 70\tShoe polish
3 qid:2 # 1 Learn C# now
0 qid:2 # 2
"""
QRELS = "1 0 d1 2\n1\t0\td2\t-1\n2 Q0 d1 0\n2 0 d1 0\n"
QUERIES = "1\tred shoes\n2\ttea pot\n3\tunjudged\n"


def write(folder: Path, content: str, queries: str = "", name: str = "list.txt") -> dict[str, str]:
    (folder / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    (folder / "queries").write_text(queries)
    return {"path": str(folder / name), "queries": str(folder / "queries") if queries else ""}


def message(**named: Any) -> str:
    with pytest.raises(UserError) as caught:
        judgments.read(**named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def cells(source: Source, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(source.table[name].to_pylist() for name in names), strict=True))


def reasons(source: Source) -> Counter[str]:
    return Counter(source.unreadable["reason"].to_pylist())


def test_an_ltr_list_with_its_queries_in_comments(tmp_path: Path) -> None:
    found = judgments.read(**write(tmp_path, LTR))
    assert cells(found, "example_id", "query_id", "query", "item_id", "title", "label") == [
        ("0", "1", "red shoes", "7555", "Red shoes", "4"),
        ("1", "1", "red shoes", "13 70", "Shoe polish", "0"),
        ("2", "2", "C# book", "1", "Learn C# now", "3"),
        ("3", "2", "C# book", "2", None, "0"),
    ]
    assert found.scale.names == ("0", "3", "4")
    assert found.scale.gains == (0.0, 3 / 4, 1.0)
    given = judgments.read(**write(tmp_path, LTR), labels=["0", "1", "2", "3", "4"])
    assert given.scale.gains == (0.0, 0.25, 0.5, 0.75, 1.0)


def test_features_are_columns_of_numbers(tmp_path: Path) -> None:
    lines = """2 qid:10 1:0.5 2:NULL price:1e3 #docid = GX000-00 inc = 1 prob = 0.02
0.5 qid:10 3:-1 2:nan #docid = GX000-01 inc = 1 prob = 0.1
1 qid:10 1:0.25 1:3 #docid = GX000-02
1 qid:10 1:x #docid = GX000-03
1 qid:10 1:1
"""
    found = judgments.read(**write(tmp_path, lines, "10\tgarden hose\n"))
    assert found.table.select(range(9, 13)).to_pylist() == [
        {
            "numeric:feature_1": 0.5,
            "numeric:feature_2": None,
            "numeric:price": 1000.0,
            "numeric:feature_3": None,
        },
        {
            "numeric:feature_1": None,
            "numeric:feature_2": None,
            "numeric:price": None,
            "numeric:feature_3": -1.0,
        },
    ]
    assert cells(found, "item_id", "title") == [("GX000-00", None), ("GX000-01", None)]
    assert found.scale.names == ("0.5", "1", "2")
    assert reasons(found) == {"unparsable_line": 2, "missing_item": 1}
    assert found.unreadable["example_id"].to_pylist() == ["list.txt:3", "list.txt:4", "4"]


def test_texts_behind_documents_that_are_the_query_s(tmp_path: Path) -> None:
    """As lists with logged features have them: the same behind all documents of a query."""
    lines = "2 qid:1 1:3 # 7 rambo\n0 qid:1 1:2 # 8 rambo\n1 qid:2 1:1 # 7 rocky\n"
    found = judgments.read(**write(tmp_path, lines))
    assert cells(found, "query", "title") == [("rambo", None)] * 2 + [("rocky", None)]
    other = judgments.read(**write(tmp_path, lines, "1\tRambo II\n"))
    assert cells(other, "query", "title") == [("Rambo II", None)] * 2 + [(None, None)]
    titles = judgments.read(**write(tmp_path, lines + "0 qid:2 # 9 bambi\n", "2\trocky\n"))
    assert cells(titles, "title") == [("rambo",), ("rambo",), ("rocky",), ("bambi",)]


def test_qrels_with_negative_grades_and_damaged_lines(tmp_path: Path) -> None:
    broken = QRELS + "2 0 d3\n2 0 \udcff 1\n2 qid:2 # d4\n\n4 0 d1 1\n"
    found = judgments.read(**write(tmp_path, broken, QUERIES))
    assert cells(found, "query_id", "query", "item_id", "title", "label") == [
        ("1", "red shoes", "d1", None, "2"),
        ("2", "tea pot", "d1", None, "0"),
        ("2", "tea pot", "d1", None, "0"),  # which cleaning takes for a duplicate
        ("4", None, "d1", None, "1"),
    ]
    assert reasons(found) == {"negative_grade": 1, "unparsable_line": 2, "not_utf8": 1}
    assert found.scale.names == ("0", "1", "2")
    assert found.summary == {
        "queries": 3,
        "queries_without_text": 1,
        "queries_with_several_texts": 0,
    }


def test_the_qrels_of_beir(tmp_path: Path) -> None:
    """Three fields with a header, queries and items as JSON lines with names of their own."""
    given = write(tmp_path, "query-id\tcorpus-id\tscore\na\tx\t1\na\ty\t0\n", name="test.tsv")
    pd.DataFrame({"_id": ["a", "a"], "text": ["first", "second"]}).to_json(
        tmp_path / "queries.jsonl", orient="records", lines=True
    )
    found = judgments.read(
        given["path"],
        queries=str(tmp_path / "queries.jsonl"),
        columns={"query_id": "_id", "query": "text"},
    )
    assert cells(found, "query", "item_id", "label") == [("first", "x", "1"), ("first", "y", "0")]
    assert found.summary["queries_with_several_texts"] == 1


def test_queries_in_a_table_or_in_lines(tmp_path: Path) -> None:
    given = write(tmp_path, QRELS, QUERIES)
    found = judgments.read(**given)
    for name, separator in (("queries.tsv", "\t"), ("queries.csv", ",")):
        (tmp_path / name).write_text(
            "query,query_id\nred shoes,1\ntea pot,2\n".replace(",", separator)
        )
        other = judgments.read(given["path"], queries=str(tmp_path / name))
        assert other.table.equals(found.table)
    (tmp_path / "queries").write_text("1\tred shoes\n2 tea pot\n")
    assert "queries, line 2: '2 tea pot' is no id, tab and text" in message(**given)


def test_lists_that_cannot_be_read(tmp_path: Path) -> None:
    assert "has no line that is a judgment: write" in message(**write(tmp_path, "1,2,3\n"))
    assert "says no text of its queries: give a file" in message(**write(tmp_path, QRELS))
    same = "1 0 d1 1\n1 0 d2 1\n"
    assert "all judgments have the grade 1" in message(**write(tmp_path, same, QUERIES))
    own = "1 qid:1 bm25_title:3 # d1\n"
    assert "has the feature bm25_title, which is" in message(**write(tmp_path, own, QUERIES))
    many = "".join(f"{number / 100} qid:1 # d\n" for number in range(99))
    assert "there are 99 different grades" in message(**write(tmp_path, many, QUERIES))
    nameless = "1 qid:1 1:0.5\n0 qid:1 1:0.25\n"  # as scikit-learn writes
    said = message(**write(tmp_path, nameless, QUERIES))
    assert "(2 missing_item): write the documents behind #" in said
    spam = "1 0 d1 -2\n"
    assert "(1 negative_grade): give judgments" in message(**write(tmp_path, spam, QUERIES))
    assert "is a table by its name" in message(**write(tmp_path, QRELS, QUERIES, "qrels.csv"))


def test_the_source_of_a_config(tmp_path: Path) -> None:
    data = DataConfig(source="judgments", path=write(tmp_path, QRELS, QUERIES)["path"])
    data.judgments.queries = str(tmp_path / "queries")
    data.check()
    with pytest.raises(UserError, match="has no titles behind its documents: give a catalogue"):
        data.read()
    (tmp_path / "items.csv").write_text("item_id,title\nd1,red shoe\n")
    data.items.path = str(tmp_path / "items.csv")
    assert data.read().table["title"].to_pylist() == ["red shoe"] * 3
    assert data.paths == {
        "data": data.path,
        "data.items": data.items.path,
        "data.judgments.queries": data.judgments.queries,
    }
    data.judgments.labels = ("low", "high")
    with pytest.raises(UserError, match=r"data\.judgments\.labels is low, high: give numbers"):
        data.check()
