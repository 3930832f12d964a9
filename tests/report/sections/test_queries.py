from report.examples import duel, rows_of, words

from sie_jax.report.sections import queries

COUNTS = {"won": 12, "lost": 1, "equal": 3}


def test_both_lists_of_a_query_stand_side_by_side():
    part = queries.part("stack", "bm25", COUNTS, [duel("red hub", 1.0, 0.5)], [])
    assert rows_of(part) == [
        ["#", "stack", "label", "bm25", "label"],
        ["1", "our 0", "exact", "their 0", "irrelevant"],
        ["2", "our 1", "exact", "their 1", "irrelevant"],
    ]
    text = words(part.html)
    assert (
        "above bm25, the best baseline, on 12 test queries, below it on 1, and equal on 3" in text
    )
    assert "red hub · +0.5000 (1.0000 against 0.5000)" in text
    assert "more items follow" not in text
    assert "The widest wins" in text
    assert "widest losses" not in text


def test_the_plot_goes_from_the_widest_win_to_the_widest_loss():
    won = [duel("first", 1.0, 0.1), duel("second", 1.0, 0.5)]
    lost = [duel("fourth", 0.1, 1.0), duel("third", 0.5, 1.0)]
    html = queries.part("stack", "bm25", COUNTS, won, lost).html
    svg = html[html.index("<svg") : html.index("</svg>")]
    places = [svg.index(f">{name}<") for name in ("first", "second", "third", "fourth")]
    assert places == sorted(places)


def test_ten_items_are_shown_and_the_others_counted():
    part = queries.part("stack", "bm25", COUNTS, [], [duel("red hub", 0.0, 1.0, items=13)])
    assert len(rows_of(part)) == 1 + 10
    assert "3 more items follow in each list." in words(part.html)


def test_where_nothing_differs_there_is_no_plot():
    part = queries.part("stack", "bm25", {"won": 0, "lost": 0, "equal": 9}, [], [])
    assert "<svg" not in part.html
    assert "<details" not in part.html
    assert "equal on 9" in words(part.html)
