from report.examples import metrics, rows_of, tuning, words

from sie_jax.report.sections import tuning as section


def test_the_rates_tried_and_the_rate_taken():
    assert section.part(metrics()) is None
    part = section.part(metrics(tuning=tuning()))
    assert rows_of(part) == [
        ["learning rate", "ndcg@10"],
        ["2e-05", "0.71230.7023 to 0.7223"],
        ["0.001", "0.60120.5912 to 0.6112"],
    ]
    text = words(part.html)
    for shown in ("17 validation queries", "All other runs use 2e-05.", "no longer finite: 10.0."):
        assert shown in text, shown
    whole = section.part(metrics(tuning=tuning() | {"diverged": []}))
    assert "finite" not in whole.html
