"""The section `evaluation`: intervals, folds of the test, how much of it is explained."""

import dataclasses

from sie_jax import sections
from sie_jax.errors import UserError
from sie_jax.evaluation.label_errors import SCORES


@dataclasses.dataclass(slots=True, kw_only=True)
class EvaluationConfig:
    """Bootstrap resamples over queries; folds of the test; how much of it is explained."""

    resamples: int = 1000  # bootstrap resamples of the test queries
    seed: int = 0  # the seed of the resamples, and of the queries that are changed
    explained_queries: int = 10  # how many of the worst test queries the report explains; 0: none
    changed_queries: int = 100  # how many test queries are asked with small changes; 0: none
    audit_score: str = SCORES[0]  # what audit.csv is ranked by (docs/audit.md)
    folds: int = 0  # nested cross-validation: the whole run once for each of so many folds; 0: none

    def check(self) -> None:
        """Raises UserError for the first value that cannot work."""
        sections.at_least("evaluation.resamples", self.resamples, 100)
        sections.at_least("evaluation.seed", self.seed, 0)
        sections.at_least("evaluation.explained_queries", self.explained_queries, 0)
        sections.at_least("evaluation.changed_queries", self.changed_queries, 0)
        sections.one_of("evaluation.audit_score", self.audit_score, SCORES)
        if self.folds == 1 or self.folds < 0:
            raise UserError(f"evaluation.folds is {self.folds}: give at least 2, or 0 for none")
