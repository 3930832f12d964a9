from report.examples import explanation, rows_of, words

from sie_jax.report.sections import explanations


def test_worst_queries_are_explained():
    assert explanations.part([]) is None
    part = explanations.part([explanation("usb cable", pairs=4)], run="uniform", metric="mrr")
    pair = ["usb hub"] * 3
    assert rows_of(part)[1:] == [
        ["for", *pair, "+0.5000"],
        ["for", *pair, "+0.2500"],
        ["for", *pair, "+0.1667"],
        ["against", *pair, "−0.5000"],
        ["against", *pair, "−0.2500"],
        ["against", *pair, "−0.1667"],
    ]
    text = words(part.html)
    assert "uniform has the lowest mrr" in text
    assert "usb cable · mrr 0.1250" in text
    assert "The prediction is usb hub, and the label is usb hub." in text


def test_at_most_ten_queries():
    # no pair speaks against any of them
    many = [explanation(f"q{i}") | {"against": []} for i in range(12)]
    part = explanations.part(many)
    assert len(rows_of(part)) == 10 * (1 + 3)
    text = words(part.html)
    assert "q9 ·" in text
    assert "q10 ·" not in text
