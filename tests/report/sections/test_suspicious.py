from report.examples import audited, rows_of

from sie_jax.report.sections import suspicious

ROW = {
    "example_id": "e7",
    "query": "usb cable",
    "title": "Phone case",
    "label": "exact",
    "prediction": "irrelevant",
    "score": "9.87654",
    "reason": "says exact",
}


def test_rows_of_the_audit_are_shown_in_their_order():
    assert rows_of(suspicious.part([ROW, ROW | {"query": "hub", "score": ""}])) == [
        ["#", "query", "title", "label", "model's opinion", "score", "reason"],
        ["1", "usb cable", "Phone case", "exact", "irrelevant", "9.8765", "says exact"],
        ["2", "hub", "Phone case", "exact", "irrelevant", "", "says exact"],
    ]


def test_what_is_said_of_all_labels_and_the_noise_matrix() -> None:
    part = suspicious.part([], audited("E"))
    assert rows_of(part) == [["has", "E", "I"], ["E", "20", "1"], ["I", "2", "17"]]
    assert "About 3 of 40 labels are wrong, between 2 and 5." in part.html
    assert "A note." in part.html


def test_at_most_fifty_rows():
    rows = rows_of(suspicious.part([ROW] * 60))
    assert [row[0] for row in rows] == ["#", *map(str, range(1, 11)), "#", *map(str, range(11, 51))]


def test_what_follows_the_first_ten_is_folded():
    html = suspicious.part([ROW] * 12).html
    assert "<summary>The next 2</summary>" in html
    assert html.index(">10<") < html.index("<details>") < html.index(">11<")
    assert "<details" not in suspicious.part([ROW] * 10).html


def test_no_rows():
    part = suspicious.part([])
    assert "There are no labels to check." in part.html
    assert "<table" not in part.html
