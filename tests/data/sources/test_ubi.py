"""UBI events: which are one exposure, how they are nested, what is counted, and the grades."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sie_jax.data.section import DataConfig
from sie_jax.data.sources import clicks, ubi
from sie_jax.data.sources.ubi import UbiConfig
from sie_jax.errors import UserError

UBI = Path(os.environ.get("SIE_JAX_DATA", "")) / "ubi"
Document = dict[str, Any]


def event(action: str, query_id: str | None, item: str | None, **further: Any) -> Document:
    """An event as the schema nests it; `position` counts from 1."""
    attributes: Document = {"position": {"ordinal": further.pop("position", 1)}}
    if item:
        attributes["object"] = {"object_id": item, "name": further.pop("name", f"thing {item}")}
    return {
        "action_name": action,
        "query_id": query_id,
        "session_id": "s",
        "event_attributes": attributes,
        **further,
    }


def query(query_id: str, text: str | None) -> Document:
    return {"query_id": query_id, "user_query": text, "client_id": "c"}


def write(path: Path, documents: list[Any]) -> str:
    lines = (one if isinstance(one, str) else json.dumps(one) for one in documents)
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


DOCUMENTS = [
    event("impression", "1", "A"),  # whose query comes later
    query("1", "red shoes"),
    event("Click", "1", "A", position=7),
    event("impression", "1", "B", position=2),
    event("impression", "1", "A"),  # again
    event("add_to_cart", "1", "A"),
    event("click", "1", "A"),  # again
    event("impression", "2", "A", user_query="tea pot", session_id=None, client_id="c"),
]
SHOWN = [
    ("red shoes", "A", "thing A", "s", 1.0, 1, 1, 0),
    ("red shoes", "B", "thing B", "s", 2.0, 0, 0, 0),
    ("tea pot", "A", "thing A", "c", 1.0, 0, 0, 0),
]


def shown(path: str, **options: Any) -> list[tuple[Any, ...]]:
    found = ubi.exposures(path, UbiConfig(**options)).log
    return [tuple(row.values()) for row in found.to_pylist()]


def message(path: str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        ubi.exposures(path, UbiConfig(**options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_impression_and_what_follows_it_are_one_exposure(tmp_path: Path) -> None:
    path = write(tmp_path / "events.ndjson", DOCUMENTS)
    assert shown(path) == SHOWN
    assert ubi.exposures(path, UbiConfig()).summary == {
        "documents": 8,
        "unreadable": 0,
        "queries": 1,
        "others": 0,
        "events": {"Click": 1, "add_to_cart": 1, "click": 1, "impression": 4},
        "left_out": dict.fromkeys(ubi.REASONS, 0),
        "repeated": 2,
        "exposures": 3,
        "click": 1,
        "cart": 1,
        "purchase": 0,
    }


def test_what_is_in_no_exposure_is_counted(tmp_path: Path) -> None:
    others = [
        "no JSON",
        "[]",
        query("5", None),
        {"count": 3},
        event("page_exit", "1", "A"),
        event("impression", None, "A"),
        event("impression", "4", "A"),
        event("impression", "5", "A", user_query=" "),
        event("click", "1", None),
        event("click", "1", "Z"),
        event("purchase", "1", "Z"),
    ]
    path = write(tmp_path / "events.jsonl", [*DOCUMENTS, *others])
    assert shown(path) == SHOWN
    summary = ubi.exposures(path, UbiConfig()).summary
    assert (summary["documents"], summary["unreadable"], summary["others"]) == (19, 2, 2)
    assert summary["left_out"] == {
        "without_query_id": 1,
        "of_unknown_query": 2,
        "without_object": 1,
        "without_impression": 2,
    }


def bulk(documents: list[Document]) -> Iterator[Document]:
    for document in documents:
        yield {"index": {"_index": "ubi_events", "_id": str(id(document))}}
        yield document


@pytest.mark.parametrize("form", ["bulk", "dump", "flat", "partly flat", "csv", "parquet"])
def test_forms_in_which_documents_are_kept(tmp_path: Path, form: str) -> None:
    flat = pd.json_normalize(DOCUMENTS)
    if form == "csv":
        flat.to_csv(tmp_path / "events.csv", index=False)
    elif form == "parquet":
        flat.to_parquet(tmp_path / "events.parquet")
    else:
        documents = {
            "bulk": list(bulk(DOCUMENTS)),
            "dump": [{"_index": "ubi", "_source": one} for one in DOCUMENTS],
            "flat": flat.to_dict("records"),
            "partly flat": pd.json_normalize(DOCUMENTS, max_level=1).to_dict("records"),
        }[form]
        write(tmp_path / "events.ndjson", documents)
    assert shown(str(tmp_path)) == SHOWN


def test_queries_and_events_in_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "a.ndjson", [one for one in DOCUMENTS if "action_name" in one])
    write(tmp_path / "b.ndjson", [query("1", "red shoes")])
    assert shown(str(tmp_path)) == SHOWN


def test_other_names_of_actions_and_places_from_0(tmp_path: Path) -> None:
    documents = [event("view", "1", "A", position=0, user_query="mug"), event("tap", "1", "A")]
    path = write(tmp_path / "events.ndjson", documents)
    said = message(path)
    assert "has no exposure; its 2 documents are 0 queries and these events: view 1, tap 1" in said
    names: Document = {"impression": ("view",), "click": ("tap",)}
    assert "1 of 1 exposures" in message(path, **names)
    assert "give --config.data.ubi.first_position=0" in message(path, **names)
    assert shown(path, first_position=0, **names) == [("mug", "A", "thing A", "s", 1, 1, 0, 0)]


# item, position, impressions, clicks
SHOP = [("A", 1, 40, 20), ("A", 2, 20, 4), ("B", 1, 20, 8), ("B", 2, 40, 12)]


def test_grades_are_those_of_the_same_click_log(tmp_path: Path) -> None:
    documents: list[Document] = []
    log: list[Document] = []
    for item, position, impressions, clicked in SHOP:
        for at in range(impressions):
            key, name = f"{item} {position} {at}", f"shoe {item}"
            documents.append(query(key, "red shoes"))
            for action in ["impression", *(["click"] * (at < clicked))]:
                documents.append(event(action, key, item, position=position, name=name))
                documents[-1]["session_id"] = key
            log.append(
                {
                    "query": "red shoes",
                    "item_id": item,
                    "title": name,
                    "session": key,
                    "position": position,
                    "click": at < clicked,
                }
            )
    pq.write_table(pa.Table.from_pylist(log), tmp_path / "log.parquet")
    data = DataConfig(source="ubi", path=write(tmp_path / "events.ndjson", documents))
    data.check()
    found = data.read()
    expected = clicks.read(str(tmp_path / "log.parquet"))
    assert found.table.equals(expected.source.table)
    assert found.location == data.path
    assert found.summary["impressions_used"] == found.summary["ubi"]["exposures"] == 120
    data.clicks.minimum_impressions = 0
    with pytest.raises(UserError, match=r"^data\.clicks\.minimum_impressions is 0"):
        data.check()
    data.clicks.minimum_impressions = 99
    with pytest.raises(UserError, match=f"no query-item pair of {data.path} has 99"):
        data.read()


def test_the_events_of_a_demo_shop() -> None:
    if not UBI.is_dir():
        pytest.skip("SIE_JAX_DATA names no folder with ubi")
    path = str(UBI / "ubi_queries_events.ndjson")
    assert "200 of 1932 exposures" in message(path)  # one of its programs counts from 0
    found = ubi.exposures(path, UbiConfig(first_position=0)).summary
    assert found["queries"] + found["others"] == 473  # of 6 the text is empty
    events = {name: found["events"][name] for name in ("impression", "click", "add_to_cart")}
    assert events == {"impression": 1999, "click": 287, "add_to_cart": 234}
    used = found["exposures"] + found["click"] + found["cart"] + found["purchase"]
    left_out = sum(found["left_out"].values())
    assert used + found["repeated"] + left_out == 1999 + 287 + 234 + found["events"]["purchase"]
    assert (found["exposures"], found["click"], found["cart"]) == (1932, 164, 104)
