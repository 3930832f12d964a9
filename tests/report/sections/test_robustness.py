from report.examples import UNDEFINED, change, rows_of

from sie_jax.report.sections import robustness


def test_what_each_change_does():
    nothing = {"queries": 0, "unscored": 2, "ndcg@10": UNDEFINED, "example": None}
    nothing |= {"first_changed": None, "kendall_tau": None}
    assert rows_of(robustness.part("stack", {"typo": change(), "plural": nothing})) == [
        ["change", "queries", "nDCG@10", "first item changes", "Kendall's tau", "for instance"],
        ["typo", "41", "−0.1250−0.1350 to −0.1150", "25%", "0.7500", "hubs → hbus"],
        ["plural", "02 without a score", "–no interval", "–", "–", ""],
    ]
    assert robustness.part("stack", None) is None
    assert robustness.part("stack", {}) is None
