from report.examples import estimate, rows_of, slice_row, words

from sie_jax.report.sections import slices


def test_each_grouping_has_its_slices_with_both_values_and_the_difference():
    rows = [
        slice_row("numbers", "with a number", 12, estimate(0.125), marked=True),
        slice_row("numbers", "without a number", 9, {"value": -0.25, "low": None, "high": None}),
        slice_row("category", "desks", 1, {"value": 0.5, "low": None, "high": None}),
    ]
    part = slices.part("stack", "bm25", rows)
    assert rows_of(part) == [
        ["slice", "stack", "bm25", "difference"],
        ["category"],
        ["desks 1 query", "0.7500", "0.6250", "+0.5000fewer than 10 queries"],
        ["numbers"],
        ["with a number 12 queries", "0.7500", "0.6250", "+0.1250+0.1150 to +0.1350"],
        ["without a number 9 queries", "0.7500", "0.6250", "−0.2500fewer than 10 queries"],
    ]
    assert part.html.count('<tr class="marked">') == 1
    assert "A slice of fewer than 10 queries has no interval. Bold slices differ also" in words(
        part.html
    )


def test_where_none_is_marked_the_page_says_so():
    part = slices.part("stack", "bm25", [slice_row("numbers", "all", 12, estimate(0.125))])
    assert "No slice is marked: tested together (Holm, 0.05), none differs." in words(part.html)
    assert "has no interval" not in part.html
    assert slices.part("stack", "bm25", []) is None
