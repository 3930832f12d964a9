"""Pictures of pages, each drawn from a committed result, of which its metadata tell."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from page_tables import result


class Picture(NamedTuple):
    """A picture `path` of the result `name`, as `drawn` draws it."""

    path: Path
    name: str
    drawn: Callable[[Any], Figure]

    def outdated(self) -> bool:
        """Whether the committed picture was drawn from another result, or is not there."""
        return not self.path.exists() or self._digest() not in self.path.read_text("utf-8")

    def draw(self) -> None:
        """Draws it from the committed result."""
        metadata = {"Date": None, "Description": self._digest()}
        self.drawn(result(self.name)).savefig(self.path, metadata=metadata)

    def _digest(self) -> str:
        content = json.dumps(result(self.name), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()
