"""What of the section importance each run goes by."""

from sie_jax.importance.choosing import Candidate
from sie_jax.importance.policies import Keep
from sie_jax.importance.section import ImportanceConfig
from sie_jax.recipes import relevance
from sie_jax.training.run import Weighting


def test_policies_to_compare_are_as_the_config_says_whatever_auto_chose() -> None:
    given = ImportanceConfig(
        policy="auto", score="el2n", keep_fraction=0.7, compare=("keep", "tempered")
    )
    chosen = given.with_candidate(Candidate("loss", Keep(fraction=0.9)))
    sections = relevance._sections(given, chosen)
    assert relevance._runs(sections) == {
        "uniform": Weighting(),
        "weighted": Weighting("weights", "loss", "keep"),
        "keep": Weighting("weights", "el2n", "keep"),
        "tempered": Weighting("weights", "el2n", "tempered"),
    }
    assert [relevance._only(one).keep_fraction for one in sections.values()] == [0.9, 0.7, 0.8]
