"""The section `evaluation`: how intervals are made, and how much of the test is explained."""

import dataclasses

from sie_jax import sections


@dataclasses.dataclass(slots=True, kw_only=True)
class EvaluationConfig:
    """Bootstrap resamples over queries, and their seed; how much of the test is explained."""

    resamples: int = 1000  # bootstrap resamples of the test queries
    seed: int = 0  # the seed of the resamples, and of the queries that are changed
    explained_queries: int = 10  # how many of the worst test queries the report explains; 0: none
    changed_queries: int = 100  # how many test queries are asked with small changes; 0: none

    def check(self) -> None:
        """Raises UserError for the first value that cannot work."""
        sections.at_least("evaluation.resamples", self.resamples, 100)
        sections.at_least("evaluation.seed", self.seed, 0)
        sections.at_least("evaluation.explained_queries", self.explained_queries, 0)
        sections.at_least("evaluation.changed_queries", self.changed_queries, 0)
