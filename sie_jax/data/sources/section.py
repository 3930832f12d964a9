"""What the section of every source has in common, and what each is told to read."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from sie_jax.data.scales import Numbers
from sie_jax.data.schema import Source


@dataclass(frozen=True, kw_only=True)
class Request:
    """What any source may have to know besides its own section.

    path: where the source lies, on this machine; "" where it is made and not read.
    columns: field → name of its column; an empty name where there is none.
    catalogue: whether titles come from a catalogue, so that the source need not have any.
    features: columns with numbers that are further features of the pairs.
    vectors: columns with lists of numbers, each of which is a further feature.
    numbers: that labels are numbers, for a source whose labels are the user's own.
    grading: the section that says how exposures become grades, for a source of other events.
    validation, test: shares of the queries, for a source that makes its own splits.
    """

    path: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    catalogue: bool = False
    features: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()
    numbers: Numbers | None = None
    grading: "SourceSection | None" = None
    validation: float = 0.1
    test: float = 0.2


class SourceSection(ABC):
    """A source's section of the config: its options, their check, and how the source is read.

    expects: what `data.path` has to hold, for the message where it is empty; "" where the source
      has no path.
    numbers: whether it takes `features`, and a column `current`, from the user's own columns.
    own_labels: whether labels are the user's own, which may be numbers (`Request.numbers`).
    """

    __slots__ = ()
    expects: ClassVar[str] = ""
    numbers: ClassVar[bool] = False
    own_labels: ClassVar[bool] = False

    def check(self) -> None:  # noqa: B027  # a source may have nothing to check
        """Raises UserError for the first value that cannot work."""

    def paths(self) -> dict[str, str]:
        """What else is read than `data.path`, by the name of its field; "" where nothing is."""
        return {}

    @abstractmethod
    def read(self, request: Request) -> Source:
        """Reads the source; raises UserError where that cannot be done."""
