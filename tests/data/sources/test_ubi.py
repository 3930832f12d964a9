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
        "hit_lists": {"read": 0, "repeated": 0, "without_query_id": 0, "unreadable": 0, "used": 0},
        "left_out": dict.fromkeys(ubi.REASONS, 0),
        "repeated": 2,
        "exposures": 3,
        "click": 1,
        "cart": 1,
        "purchase": 0,
        "click_too_short": 0,
        "click_without_dwell": 1,
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


HITS = [
    query("1", "red sh"),  # while it was typed
    {**query("1", "red shoes"), "query_response_hit_ids": ["A", 7, None, "B", "A"]},
    {**query("1", "red shoes"), "query_response_hit_ids": ["C"]},  # a second page
    {**query("2", None), "query_response_hit_ids": ["A"]},  # whose text an event tells
    {**query("3", None), "query_response_hit_ids": ["A"]},
    {**query("4", "hub"), "query_response_hit_ids": "A, B"},
    {"user_query": "hub", "query_response_hit_ids": ["A"]},
    event("click", "1", "B", position=9),
    event("click", "1", "C"),
    event("purchase", "2", "A", user_query="tea pot"),
]


@pytest.mark.parametrize("first_position", [0, 1])
@pytest.mark.parametrize("kind", ["ndjson", "csv"])
def test_hits_are_exposures_where_there_are_no_impressions(
    tmp_path: Path, kind: str, first_position: int
) -> None:
    path = write(tmp_path / "events.ndjson", HITS)
    if kind == "csv":
        flat = pd.json_normalize(HITS)
        name = "query_response_hit_ids"
        flat[name] = [json.dumps(one) if isinstance(one, list) else None for one in flat[name]]
        flat.loc[5, name] = "A, B"
        path = str(tmp_path / "events.csv")
        flat.to_csv(path, index=False)
    assert shown(path, first_position=first_position) == [
        ("red shoes", "A", None, "c", 1.0, 0, 0, 0),
        ("red shoes", "7", None, "c", 2.0, 0, 0, 0),
        ("red shoes", "B", None, "c", 4.0, 1, 0, 0),
        ("tea pot", "A", None, "c", 1.0, 0, 0, 1),
    ]
    found = ubi.exposures(path, UbiConfig()).summary
    assert found["hit_lists"] == {
        "read": 6,
        "repeated": 1,
        "without_query_id": 1,
        "unreadable": 1,
        "used": 3,
    }
    assert found["left_out"] == {
        "without_query_id": 0,
        "of_unknown_query": 1,
        "without_object": 1,
        "without_impression": 1,
    }
    assert (found["repeated"], found["exposures"]) == (1, 4)


def test_impressions_are_believed_rather_than_hits(tmp_path: Path) -> None:
    documents = [*HITS, event("impression", "2", "A", position=3)]
    path = write(tmp_path / "events.ndjson", documents)
    assert shown(path) == [("tea pot", "A", "thing A", "s", 3.0, 0, 0, 1)]
    assert ubi.exposures(path, UbiConfig()).summary["hit_lists"]["used"] == 0


def test_hits_do_not_replace_impressions_of_another_name(tmp_path: Path) -> None:
    documents = [*HITS, event("product_impression", "1", "A"), event("scroll", "1", None)]
    path = write(tmp_path / "events.ndjson", documents)
    said = message(path)
    assert "name the actions with --config.data.ubi.impression=NAME" in said
    assert "hits of 3 queries count as shown once each of product_impression is named" in said
    assert len(shown(path, impression=("product_impression",))) == 1
    assert len(shown(path, look=("product_impression",))) == 4


def test_clicks_that_were_read_for_a_moment_do_not_count_on_request(tmp_path: Path) -> None:
    def timed(action: str, item: str, seconds: Any) -> Document:
        found = event(action, "1", item, user_query="mug")
        found["event_attributes"]["dwell_time"] = seconds
        return found

    documents = [event("impression", "1", item, user_query="mug") for item in "ABCDE"]
    documents += [timed("click", "A", 2.5), timed("click", "A", 1)]  # the longest counts
    documents += [timed("click", "B", 9)]
    documents += [timed("click", "C", None), timed("read", "C", 5)]
    documents += [timed("click", "D", 4), timed("add_to_cart", "D", 99)]
    documents += [timed("click", "E", None), timed("read", "Z", 99)]
    path = write(tmp_path / "events.ndjson", documents)
    assert [row[5] for row in shown(path)] == [1, 1, 1, 1, 1]
    assert [row[5:7] for row in shown(path, minimum_dwell=8.0)] == [
        (0, 0), (1, 0), (1, 0), (0, 1), (1, 0),
    ]  # fmt: skip
    options: Document = {"look": ("read",), "minimum_dwell": 8.0}
    assert [row[5] for row in shown(path, **options)] == [0, 1, 0, 0, 1]
    found = ubi.exposures(path, UbiConfig(**options)).summary
    assert (found["click"], found["click_too_short"], found["click_without_dwell"]) == (2, 3, 1)
    assert (found["repeated"], found["cart"]) == (1, 1)
    assert not any(found["left_out"].values())
    with pytest.raises(UserError, match=r"data\.ubi\.minimum_dwell is -1"):
        UbiConfig(minimum_dwell=-1).check()


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
    lists = found["hit_lists"]
    assert (lists["read"], lists["repeated"], lists["used"]) == (81, 3, 0)
    assert lists["unreadable"] == lists["without_query_id"] == 0
    used = found["exposures"] + found["click"] + found["cart"] + found["purchase"]
    left_out = sum(found["left_out"].values())
    assert used + found["repeated"] + left_out == 1999 + 287 + 234 + found["events"]["purchase"]
    assert (found["exposures"], found["click"], found["cart"]) == (1932, 164, 104)


def test_the_hits_of_a_demo_shop_are_what_it_showed(tmp_path: Path) -> None:
    """Its queries with both: nearly all that was shown is among the hits, at the same place."""
    if not UBI.is_dir():
        pytest.skip("SIE_JAX_DATA names no folder with ubi")
    lines = (UBI / "ubi_queries_events.ndjson").read_text().splitlines()
    documents = [json.loads(line) for line in lines]
    others = [one for one in documents if one.get("action_name") != "impression"]
    path = write(tmp_path / "hits.ndjson", others)
    said = message(path)
    assert "the lists of hits of 78 queries count as shown once each of 404_redirect, " in said
    named = said.partition("once each of ")[2].partition(" is named")[0]
    found = ubi.exposures(path, UbiConfig(look=tuple(named.split(", ")))).summary
    assert found["hit_lists"]["used"] == 78
    places: Document = {}
    for one in documents:
        if one.get("query_response_hit_ids"):
            places.setdefault(one["query_id"], one["query_response_hit_ids"])
    assert found["exposures"] == sum(len(set(items)) for items in places.values())
    seen = [
        (one["query_id"], one["event_attributes"]) for one in documents
        if one.get("action_name") == "impression" and one["query_id"] in places
    ]  # fmt: skip
    items = [
        (places[key], at["object"]["object_id"], at["position"]["ordinal"]) for key, at in seen
    ]
    hit = [at - ids.index(item) for ids, item, at in items if item in ids]
    assert len(hit) > 0.9 * len(items)
    assert sum(at in (0, 1) for at in hit) > 0.99 * len(hit)
