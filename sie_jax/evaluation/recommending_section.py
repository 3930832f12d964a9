"""The section `evaluation` of a recommender: at which depths, and how much of it is explained."""

import dataclasses

from sie_jax import sections
from sie_jax.errors import UserError


@dataclasses.dataclass(slots=True, kw_only=True)
class RecommendingConfig:
    """Depths of the metrics, and how many users the report explains."""

    depths: tuple[int, ...] = (5, 10, 20)  # at which lists are measured; 10 is among them
    explained_users: int = 5  # how many test users the report shows, and why; 0: none

    def check(self) -> None:
        """Raises UserError for the first value that cannot work."""
        for depth in self.depths:
            sections.at_least("evaluation.depths", depth, 1)
        if 10 not in self.depths:
            raise UserError(
                "evaluation.depths lacks 10, at which recommenders are compared: add it, as in "
                "5,10,20"
            )
        sections.at_least("evaluation.explained_users", self.explained_users, 0)
