from report.examples import NOISE, rows_of

from sie_jax.report.sections import noise


def test_the_rates_of_each_split_and_label():
    assert rows_of(noise.part(NOISE, ["no", "yes"])) == [
        ["labelled as", "train", "validation", "test"],
        ["all labels", "20.0%2 of 10", "–", "0.0%0 of 4"],
        ["yes", "40.0%2 of 5", "–", "0.0%0 of 4"],
        ["no", "0.0%0 of 5", "–", "–"],
    ]


def test_without_a_known_truth_there_is_no_part():
    assert noise.part({"train": None, "test": None}, ["no", "yes"]) is None
