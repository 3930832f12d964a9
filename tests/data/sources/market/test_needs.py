"""The rule of grades, on planted items."""

import numpy as np
import pytest

from sie_jax.data.sources.market import needs
from sie_jax.data.sources.market.items import Catalogue
from sie_jax.data.sources.market.needs import IS, NOT, OVER, UNDER, Constraint, Need

# kind, accessory, brand, colour, size, has feature 0; kinds 0 and 1 replace each other, 2 does not
# belong to them, 6 is of another department.
ITEMS = [
    (0, -1, 3, 5, 64, True),
    (0, -1, 3, 6, 64, True),
    (0, -1, 2, 5, 128, False),
    (1, -1, 3, 5, 32, True),
    (1, -1, 3, 6, 32, True),
    (2, -1, 3, 5, 64, True),
    (0, 1, 3, 5, 64, True),
    (0, 2, 3, 5, 64, True),
    (6, -1, 3, 5, 64, True),
]


def catalogue() -> Catalogue:
    kind, accessory, brand, colour, size, feature = map(np.array, zip(*ITEMS, strict=True))
    features = np.zeros((len(ITEMS), 8), bool)
    features[:, 0] = feature
    return Catalogue(
        kind=kind,
        department=kind // 6,
        accessory=accessory,
        brand=brand,
        colour=colour,
        size=size.astype(float),
        features=features,
        original=np.arange(len(ITEMS)),
        popularity=np.full(len(ITEMS), 1 / len(ITEMS)),
    )


RED = Constraint("colour", 5)
NAMES = np.array(["I", "C", "S", "E"])


@pytest.mark.parametrize(
    ("need", "grades"),
    [
        (Need(0, 0, -1, ()), "EEESSICCI"),
        (Need(0, 0, -1, (RED,)), "ESESIICCI"),
        (Need(0, 0, -1, (Constraint("colour", 5, NOT),)), "SESISICCI"),
        (Need(0, 0, -1, (Constraint("brand", 3), RED)), "ESSSIICCI"),
        (Need(0, 0, -1, (Constraint("feature", 0),)), "EESSSICCI"),
        (Need(0, 0, -1, (Constraint("feature", 0, NOT),)), "SSEIIICCI"),
        # Substitutes are not asked for their size.
        (Need(0, 0, -1, (Constraint("size", 64, IS),)), "EESSSICCI"),
        (Need(0, 0, -1, (Constraint("size", 128, UNDER),)), "EESSSICCI"),
        (Need(0, 0, -1, (Constraint("size", 64, OVER),)), "SSESSICCI"),
        (Need(0, -1, -1, (RED,)), "ESEESECCI"),  # the whole department
        (Need(0, 0, 1, (RED,)), "CCCIIIEII"),  # an accessory
        (Need(0, 0, 1, (Constraint("colour", 6),)), "CCCIIISII"),
    ],
)
def test_grades_follow_the_rule(need: Need, grades: str) -> None:
    grade, score = needs.judge(catalogue(), need, np.arange(len(ITEMS)))
    assert "".join(NAMES[grade]) == grades
    assert (np.floor(score) >= grade).all()
    assert (score < grade + 1).all()


def test_the_perfect_score_counts_what_is_met() -> None:
    need = Need(0, 0, -1, (Constraint("brand", 3), RED))
    _, score = needs.judge(catalogue(), need, np.arange(4))
    assert score.tolist() == [3.5, 2.25, 2.25, 2.5]
