from pathlib import Path

import pytest

from sie_jax.training.cost import Cost
from sie_jax.workdir.ledger import Ledger, total


def test_entries_are_kept_and_summed_by_name(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "score")
    assert ledger.entries() == {}
    ledger.meter("warmup").charge(examples=10, forward_equivalents=30)
    ledger.meter("scores").charge(examples=10, forward_equivalents=20)
    entries = Ledger(tmp_path / "score").entries()
    assert list(entries) == ["scores", "warmup"]
    assert total(entries)[1:] == (20, 50)
    assert total(entries, "warmup")[1:] == (10, 30)
    with pytest.raises(ValueError, match="no entry 'folds'"):
        total(entries, "folds")
    ledger.clear()
    assert ledger.entries() == {}


def test_an_entry_in_a_folder_has_its_path_for_a_name(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.meter("influence/0").charge(examples=1, forward_equivalents=3)
    assert list(ledger.entries()) == ["influence/0"]


def test_what_was_spent_elsewhere_is_an_entry_too(tmp_path: Path) -> None:
    ledger, spent = Ledger(tmp_path / "pool"), Cost(1.5, 10, 30)
    ledger.enter("fold-0", spent)
    ledger.enter("fold-0", spent)  # once
    ledger.enter("fold-1", Cost(2.0, 1, 2))
    assert Ledger(tmp_path / "pool").entries() == {"fold-0": spent, "fold-1": Cost(2.0, 1, 2)}
    assert total(ledger.entries()) == Cost(3.5, 11, 32)
