import pyarrow as pa
from report.examples import group, rows_of

from sie_jax.report.sections import groups


def part(**views):
    return groups.part({name: pa.Table.from_pylist(rows) for name, rows in views.items()})


def test_groups_of_few_rows_are_left_out():
    rows = [group("Acme", 12, 1.5), group("", 5, 0.75), group("rare", 4, 0.5)]
    assert rows_of(part(brand=rows)) == [
        ["brand", "rows", "share of weight", "lift", "mean score"],
        ["Acme", "12", "2.00%", "1.50", "2.2500"],  # 1.5 · 12 / 900
        ["(none)", "5", "0.42%", "0.75", "2.2500"],
    ]
    assert part(query=[group("rare", 4, 2.0)]) is None


def test_groups_from_either_end():
    many = [group(f"q{i}", 5, 2 - i / 30) for i in range(30)]
    shown = [row[0] for row in rows_of(part(query=many))[1:]]
    assert shown == [f"q{i}" for i in (*range(10), *range(29, 19, -1))]
    few = [group(f"q{i}", 5, 2 - i / 3) for i in range(3)]
    assert [row[0] for row in rows_of(part(query=few))[1:]] == ["q0", "q1", "q2"]


def test_every_view_is_folded():
    rows = [group("Acme", 12, 1.5)]
    html = part(brand=rows, query=[group("rare", 4, 2.0)], item=rows).html
    assert html.count("<details><summary>By brand</summary>") == 1
    assert html.count("<details><summary>By item</summary>") == 1
    assert "By query" not in html
