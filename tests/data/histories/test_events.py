from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sie_jax.data.histories import events
from sie_jax.data.histories.events import EventColumnsConfig
from sie_jax.errors import UserError


def table(folder: Path, text: str, **columns: str) -> events.Events:
    path = folder / "events.csv"
    path.write_text(text)
    return events.read_table(str(path), EventColumnsConfig(**columns), time_unit="s")


def test_rows_become_events_and_what_is_none_is_told(tmp_path: Path) -> None:
    found = table(
        tmp_path,
        "user,item,time,amount\n"
        "a,x,2024-05-06T07:08:09,2\n"
        ",x,2024-05-06,1\n"
        "a,,2024-05-06,1\n"
        "a,y,,1\n"
        "a,y,yesterday,1\n"
        "b,z,2024-05-07,many\n"
        " b , z ,2024-05-07,-1\n",
        value="amount",
    )
    assert found.table["user"].to_pylist() == ["a", "b"]
    assert found.table["item"].to_pylist() == ["x", "z"]
    assert found.table["value"].to_pylist() == [2.0, -1.0]
    assert [events.iso(one) for one in found.table["time"].to_pylist()] == [
        "2024-05-06T07:08:09",
        "2024-05-07T00:00:00",
    ]
    assert found.unreadable["reason"].to_pylist() == [
        "no_user",
        "no_item",
        "no_time",
        "unparsable_time",
        "value_not_a_number",
    ]


def test_times_are_numbers_too_and_zones_are_heard(tmp_path: Path) -> None:
    found = table(tmp_path, "user,item,time\na,x,1714979289\na,y,1714979289.5\n")
    assert found.table["time"].to_pylist() == [1714979289_000000, 1714979289_500000]
    found = table(tmp_path, "user,item,time\na,x,2024-05-06T09:08:09+02:00\n")
    assert events.iso(found.table["time"][0].as_py()) == "2024-05-06T07:08:09"


def test_times_with_and_without_a_zone_have_no_order(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has a zone and '2024-05-06' has none"):
        table(tmp_path, "user,item,time\na,x,2024-05-06T09:08:09+02:00\na,y,2024-05-06\n")


def test_a_table_without_times_is_in_order(tmp_path: Path) -> None:
    found = table(tmp_path, "user,item\na,x\nb,y\na,z\n", time="")
    assert found.table["time"].to_pylist() == [0, 1, 2]


def test_parquet_with_types_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    time = pa.array([1714979289_000000, None], pa.timestamp("us"))
    pq.write_table(pa.table({"user": [1.0, 2.0], "item": [7, 8], "time": time}), path)
    found = events.read_table(str(path), EventColumnsConfig(), time_unit="s")
    assert found.table["user"].to_pylist() == ["1"]
    assert found.table["time"].to_pylist() == [1714979289_000000]
    assert found.unreadable["reason"].to_pylist() == ["no_time"]


def test_nothing_that_can_be_used(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no event that can be used \(2 no_user\)"):
        table(tmp_path, "user,item,time\n,x,1\n,y,2\n")
    with pytest.raises(UserError, match="has no events"):
        table(tmp_path, "user,item,time\n")
    with pytest.raises(UserError, match=r"--config.data.columns.user"):
        table(tmp_path, "customer,item,time\na,x,1\n")


def test_lines_of_ids(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("1 5 6 5\n2 7\n3\n1 8\n\n")
    found = events.read_lines(str(path))
    assert found.table["user"].to_pylist() == ["1", "1", "1", "2"]
    assert found.table["item"].to_pylist() == ["5", "6", "5", "7"]
    assert found.table["time"].to_pylist() == [0, 1, 2, 0]
    assert found.unreadable["text"].to_pylist() == ["3", "1 8"]


def test_moments_of_a_config() -> None:
    assert events.iso(events.moment("data.test_from", "2011-10-10")) == "2011-10-10T00:00:00"
    with pytest.raises(UserError, match=r"data.test_from is 'autumn'"):
        events.moment("data.test_from", "autumn")
