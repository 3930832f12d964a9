"""What each stage has cost so far, entry by entry, in the folder `ledger`."""

import shutil
from pathlib import Path

from sie_jax.files import write_json
from sie_jax.training import cost
from sie_jax.training.cost import Cost, CostMeter


class Ledger:
    """The entries of one stage: one small file each, which its passes and runs write.

    folder: of this stage alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def meter(self, entry: str) -> CostMeter:
        """The meter of one piece of work, which continues what was spent on it before."""
        return CostMeter(self._folder / f"{entry}.json")

    def enter(self, entry: str, spent: Cost) -> None:
        """Writes down what a piece of work has cost that was done elsewhere."""
        write_json(self._folder / f"{entry}.json", spent._asdict())

    def entries(self) -> dict[str, Cost]:
        """What each piece of work has cost, by the name of its entry."""
        files = sorted(self._folder.rglob("*.json"))
        names = [str(path.relative_to(self._folder).with_suffix("")) for path in files]
        return {name: cost.read(path) for name, path in zip(names, files, strict=True)}

    def clear(self) -> None:
        """Forgets all entries."""
        shutil.rmtree(self._folder, ignore_errors=True)


def total(entries: dict[str, Cost], *names: str) -> Cost:
    """The sum of the entries named, or of all where none is; ValueError for one that is missing."""
    if missing := [name for name in names if name not in entries]:
        raise ValueError(f"the ledger has no entry {missing[0]!r}: it has {sorted(entries)}")
    return sum((entries[name] for name in names or entries), start=Cost())
