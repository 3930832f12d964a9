"""The section `chain`: what its steps may cost, and how they are chosen."""

import dataclasses

from sie_jax import sections
from sie_jax.errors import UserError


@dataclasses.dataclass(slots=True, kw_only=True)
class StepsConfig:
    """How deep each step of a chain may go; what is best on the validation queries is taken."""

    found: tuple[int, ...] = (50, 100, 200)  # items that are found and ranked
    kept: tuple[int, ...] = (10, 20)  # items that the cross-encoder reads; empty: it is left out
    # how much an item that is like those above it gives way; 0 leaves the order as it is
    diversity: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3)
    # nDCG@10 that a shallower list may lose against the best on the validation queries, and that a
    # cross-encoder has to add
    tolerance: float = 0.002
    diversity_tolerance: float = 0.005  # likewise, that a diverse list may lose
    milliseconds: float = 0.0  # the most that finding and ranking may take for a query; 0: any
    depths: tuple[int, ...] = (10, 50)  # at which lists are measured; 10 is among them

    def check(self) -> None:
        """Raises UserError for the first value that cannot work."""
        for name in ("found", "kept", "depths"):
            for value in getattr(self, name):
                sections.at_least(f"chain.{name}", value, 1)
        for name in ("found", "diversity"):
            if not getattr(self, name):
                raise UserError(f"chain.{name} is empty: give at least one value")
        for value in self.diversity:
            sections.between("chain.diversity", value, 0.0, 0.99)
        for name in ("tolerance", "diversity_tolerance", "milliseconds"):
            sections.at_least(f"chain.{name}", getattr(self, name), 0)
        if 10 not in self.depths:
            raise UserError("chain.depths has no 10, at which chains are chosen: add it")
        if max(self.depths) > min(self.found):
            raise UserError(
                f"chain.depths has {max(self.depths)}, and chain.found has {min(self.found)}: a "
                "list cannot be measured deeper than it is found"
            )
        if self.kept and max(self.kept) > min(self.found):
            raise UserError(
                f"chain.kept has {max(self.kept)}, and chain.found has {min(self.found)}: what is "
                "kept is among what was found"
            )
