from report.examples import rows_of, words

from sie_jax.report.sections import settings

DEFAULTS = {"seed": 3, "train": {"batch_size": 8, "epochs": 1, "rates": []}, "path": ""}


def test_settings_that_differ_come_first_and_the_others_are_folded():
    ours = {"seed": 3, "train": {"batch_size": 16, "epochs": 1, "rates": [0.5, 1]}, "path": "x"}
    part = settings.part(ours, DEFAULTS)
    assert rows_of(part) == [
        ["setting", "value", "default"],
        ["train.batch_size", "16", "8"],
        ["train.rates", "0.5,1", "()"],
        ["path", "x", '""'],
        ["setting", "value"],
        ["seed", "3"],
        ["train.epochs", "1"],
    ]
    assert part.html.index("train.batch_size") < part.html.index("<details>")
    assert "<details><summary>2 settings that are the defaults</summary>" in part.html


def test_nothing_changed_and_nothing_known():
    assert words(settings.part(DEFAULTS, DEFAULTS).html).startswith(
        "All settings are the defaults."
    )
    without = settings.part({"seed": 3}, {})
    assert rows_of(without) == [["setting", "value", "default"], ["seed", "3", ""]]
    assert "<details" not in without.html
