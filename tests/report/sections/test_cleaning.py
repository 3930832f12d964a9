import re

from report.examples import rows_of, words

from sie_jax.report.sections import cleaning

COUNTS = {
    "read": 1234,
    "rejected": {"missing_title": 0, "exact_duplicate": 34},
    "kept": 1200,
    "splits": {"train": 900, "validation": 100, "test": 200},
    "repaired": {"html_markup": 17, "whitespace": 0},
}


def test_rows_from_read_to_split():
    part = cleaning.part(COUNTS)
    assert [row[:2] for row in rows_of(part)[1:]] == [
        ["read", "1,234"],
        ["− missing_title", "0"],
        ["− exact_duplicate", "34"],
        ["kept", "1,200"],
        ["train", "900"],
        ["validation", "100"],
        ["test", "200"],
    ]
    shares = [float(share) for share in re.findall(r"width: ([\d.]+)%", part.html)]
    assert shares == [round(100 * n / 1234, 2) for n in (1234, 0, 34, 1200, 900, 100, 200)]
    assert "rows were repaired: html_markup 17, whitespace 0." in words(part.html)


def test_missing_numbers_are_told_by_the_names_that_the_user_gave():
    part = cleaning.part({**COUNTS, "missing": {"numeric:price": 1200, "current": 0}})
    assert "no value in a column of numbers: price 1,200, current 0." in words(part.html)
    assert "no value" not in cleaning.part(COUNTS).html


def test_nothing_read_and_nothing_repaired():
    nothing = {"read": 0, "rejected": {}, "kept": 0, "splits": {}, "repaired": {}}
    part = cleaning.part(nothing)
    assert rows_of(part)[1:] == [["read", "0", ""], ["kept", "0", ""]]
    assert "repaired" not in part.html
