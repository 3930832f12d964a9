from report.examples import words

from sie_jax.report.sections import calibration

BINS = [
    {"predicted": 0.25, "observed": 0.5, "pairs": 3},
    {"predicted": 0.5, "observed": 1.0, "pairs": 3},
]


def test_one_line_per_seed_and_the_diagonal():
    one = calibration.part({"uniform": [BINS]}).html
    two = calibration.part({"uniform": [BINS, BINS]}).html
    assert two.count("stroke-width: 1.4") > one.count("stroke-width: 1.4") > 0
    assert ">uniform</text>" in one
    assert "pairs, 2 at most." in words(one)


def test_without_a_bin_there_is_no_part():
    assert calibration.part({}) is None
    assert calibration.part({"uniform": [[]]}) is None
