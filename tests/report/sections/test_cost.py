from report.examples import metrics, rows_of, words

from sie_jax.report.sections import cost


def test_seconds_examples_and_passes_of_each_run():
    part = cost.part(metrics())
    assert rows_of(part)[1:] == [
        ["uniform", "612.3", "28,000", "84,000"],
        ["weighted", "733.9", "30,800", "95,200"],
    ]
    assert "measured on" not in part.html
    assert "measured on 2 x TPU." in words(cost.part(metrics(device="2 x TPU")).html)
