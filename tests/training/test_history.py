from pathlib import Path

import numpy as np
import pytest

from sie_jax.errors import UserError
from sie_jax.training.history import History


def filled(folder: Path) -> History:
    """Two epochs of two steps over five examples, of which example 4 is visited in the first."""
    history = History(folder)
    for step, rows in enumerate(([0, 3], [1, 2, 4], [2, 3], [0, 1]), start=1):
        row = np.array(rows)
        history.add(step, row, row + 0.5 * step, 10 * row + step)
        if step in (1, 3):
            history.flush(step)
    history.flush(4)
    return history


def test_visits_by_epoch_and_example(tmp_path: Path) -> None:
    visits = filled(tmp_path).read(5, steps_per_epoch=2)
    step = np.array([[1, 2, 2, 1, 2], [4, 4, 3, 3, np.nan]])
    np.testing.assert_array_equal(visits.margins, np.arange(5) + 0.5 * step)
    np.testing.assert_array_equal(visits.losses, 10 * np.arange(5) + step)


def test_what_came_after_a_checkpoint_is_dropped(tmp_path: Path) -> None:
    history = filled(tmp_path)
    history.add(5, np.array([0]), np.array([9.0]), np.array([9.0]))
    digests = {"0000000001.parquet": history.digests["0000000001.parquet"]}
    history.rewind(1, digests)
    assert history.digests == digests
    history.flush(5)  # nothing is waiting any more
    visits = history.read(5, steps_per_epoch=2)
    np.testing.assert_array_equal(visits.margins, [[0.5, np.nan, np.nan, 3.5, np.nan]])


@pytest.mark.parametrize("content", [None, b"", b"PAR1"])
def test_files_that_are_not_what_was_written_are_refused(
    tmp_path: Path, content: bytes | None
) -> None:
    history = filled(tmp_path / "run" / "history")
    file = tmp_path / "run" / "history" / "0000000003.parquet"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    again = History(tmp_path / "run" / "history")
    with pytest.raises(
        UserError, match=rf"^{file} is missing or not .*: remove {tmp_path / 'run'},"
    ):
        again.rewind(4, history.digests)
    again.rewind(1, {"0000000001.parquet": history.digests["0000000001.parquet"]})
