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


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("x" * 300, "cannot be made .File name too long"),
        (f"a/{'x' * 300}/b", "cannot be made .File name too long"),
        ("dangling", "dangling is a link that leads nowhere: give a folder"),
        ("dangling/a", "dangling is a link that leads nowhere: give a folder"),
        ("loop", "loop is a link that leads nowhere: give a folder"),
        ("/proc/run", "/proc/run cannot be made .No such file"),
        ("/dev/null/run", "/dev/null is a file: give a folder"),
        ("run\udcff", "is not UTF-8: give another folder"),
    ],
)
def test_a_place_where_no_folder_can_be_gets_one_line(
    tmp_path: Path, place: str, said: str
) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match=said), claimed(tmp_path / place, print):
        pass
    assert not (tmp_path / "nowhere").exists()
