from pathlib import Path

import pytest

from sie_jax.errors import UserError
from sie_jax.workdir.claim import claimed


def test_only_one_run_has_a_workdir(tmp_path: Path) -> None:
    with claimed(tmp_path / "run", print) as folder:
        assert folder == tmp_path / "run"
        with (
            pytest.raises(UserError, match="is in use by another run"),
            claimed(tmp_path / "run", print),
        ):
            pass
        (folder / "something").touch()
    with claimed(tmp_path / "run", print):
        pass


def test_folders_of_a_run_that_left_nothing_are_gone(tmp_path: Path) -> None:
    with claimed(tmp_path / "a" / "b", print):
        pass
    assert not (tmp_path / "a").exists()


def test_a_file_in_the_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(UserError, match="run is a file"), claimed(tmp_path / "run" / "a", print):
        pass
