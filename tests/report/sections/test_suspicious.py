from report.examples import rows_of

from sie_jax.report.sections import suspicious

ROW = {
    "example_id": "e7",
    "query": "usb cable",
    "title": "Phone case",
    "label": "exact",
    "prediction": "irrelevant",
    "score": "9.87654",
}


def test_rows_of_the_audit_are_shown_in_their_order():
    assert rows_of(suspicious.part([ROW, ROW | {"query": "hub"}])) == [
        ["#", "query", "title", "label", "model's opinion", "score"],
        ["1", "usb cable", "Phone case", "exact", "irrelevant", "9.8765"],
        ["2", "hub", "Phone case", "exact", "irrelevant", "9.8765"],
    ]


def test_at_most_fifty_rows():
    assert len(rows_of(suspicious.part([ROW] * 60))) == 1 + 50


def test_no_rows():
    part = suspicious.part([])
    assert "There are no labels to check." in part.html
    assert "<table" not in part.html
