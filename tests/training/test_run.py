import dataclasses
from pathlib import Path

import pytest

from sie_jax.errors import UserError
from sie_jax.training.run import Run, Weighting
from sie_jax.training.section import TrainConfig

RUN = Run("weighted-1", 8, TrainConfig().schedule(), Weighting("online", "loss", "keep"))


def test_it_comes_back_from_its_folder(tmp_path: Path) -> None:
    RUN.write(tmp_path / "weighted-1")
    assert Run.read(tmp_path / "weighted-1") == RUN
    RUN.write(tmp_path / "weighted-1")  # as a resumed run does


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": 9}, "seed 8, not 9"),
        ({"weighting": Weighting()}, "weighting.kind 'online', not 'uniform'"),
        (
            {"train": TrainConfig(learning_rate=0.5).schedule()},
            r"train\.learning_rate 0\.001, not 0\.5",
        ),
    ],
)
def test_checkpoints_of_another_run_are_refused(tmp_path: Path, changed: dict, said: str) -> None:
    RUN.write(tmp_path / "run")
    with pytest.raises(UserError, match=rf"holds a run that was made with other .*{said}.*remove"):
        dataclasses.replace(RUN, **changed).write(tmp_path / "run")
    assert Run.read(tmp_path / "run") == RUN


def test_checkpoints_that_nothing_describes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run" / "steps").mkdir(parents=True)
    with pytest.raises(UserError, match=r"has checkpoints but no run\.json"):
        RUN.write(tmp_path / "run")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"name": "a"}', b"\xff"])
def test_a_damaged_description_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(UserError, match=r"run\.json is damaged .*remove its folder"):
        Run.read(tmp_path)


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        Run.read(tmp_path)
