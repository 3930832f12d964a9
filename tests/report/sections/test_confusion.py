import numpy as np
from report.examples import rows_of

from sie_jax.report.sections import confusion


def test_counts_and_shares_of_the_row_from_the_highest_grade_down():
    counts = np.array([[3, 1], [0, 0]])
    part = confusion.part({"uniform": counts, "weighted": counts}, ["no", "yes"])
    assert rows_of(part)[:3] == [
        ["label", "yes", "no"],
        ["yes", "0–", "0–"],
        ["no", "125.0%", "375.0%"],
    ]
    assert part.html.count("<details open>") == 1
    # the right cells are those whose label is predicted
    assert part.html.count('class="number right"') == 2 * 2
    assert confusion.part({}, ["no", "yes"]) is None
