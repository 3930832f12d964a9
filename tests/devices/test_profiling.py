"""The profile of a loop, by the files that it leaves."""

import gzip
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from sie_jax.devices import profiling
from sie_jax.training.step_meter import StepMeter


@jax.jit
def small_step(state: jax.Array, batch: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    state = jnp.tanh(state @ batch)
    return state, {"loss": state.sum()}


def train(
    folder: Path, steps: tuple[int, int] | None, *, first: int = 1, last: int = 5, stop: int = 99
) -> None:
    """A loop of small steps, numbered `first` to `last`; step `stop` raises."""
    meter = StepMeter(None, jax.local_devices(backend="cpu"))
    state = jnp.eye(16)
    with profiling.profiler_window(folder, steps) as window:
        for number in range(first, last + 1):
            window.before(number)
            with meter.waiting():
                batch = jnp.full((16, 16), 0.01 * number)
            if number == stop:
                raise KeyboardInterrupt
            state, metrics = small_step(state, batch)
            window.after(number, metrics)


def sessions(folder: Path) -> list[Path]:
    return sorted((folder / "plugins" / "profile").glob("*"))


def traced_steps(session: Path) -> list[int]:
    """The steps of Perfetto's trace, which are those of TensorBoard's too."""
    with gzip.open(session / "perfetto_trace.json.gz", "rt") as file:
        events = json.load(file)["traceEvents"]
    steps = [int(event["args"]["step_num"]) for event in events if event.get("name") == "train"]
    waits = [event for event in events if event.get("name") == "waiting for data"]
    assert all(event["ph"] == "X" and event["dur"] > 0 for event in waits)
    assert len(waits) == len(steps)

    (plane,) = session.glob("*.xplane.pb")
    of_tensorboard = [
        dict(event.stats)["step_num"]
        for part in jax.profiler.ProfileData.from_file(str(plane)).planes
        for line in part.lines
        for event in line.events
        if event.name == "train"
    ]
    assert [int(step) for step in of_tensorboard] == steps
    return steps


def test_two_steps_leave_what_tensorboard_and_perfetto_open(tmp_path: Path) -> None:
    train(tmp_path, (2, 3))
    (session,) = sessions(tmp_path)
    assert traced_steps(session) == [2, 3]


def test_the_last_step_is_waited_for(tmp_path: Path) -> None:
    @jax.jit
    def long_step(state: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 300, lambda _, x: jnp.tanh(x @ x), state).sum()

    state = jnp.eye(256)
    long_step(state).block_until_ready()  # compiled
    with profiling.profiler_window(tmp_path, (1, 1)) as window:
        window.before(1)
        loss = long_step(state)
        window.after(1, {"loss": loss})
        assert loss.is_ready()
        assert len(sessions(tmp_path)) == 1  # the trace is written now, not when the run ends


def test_a_run_that_goes_on_within_the_window_traces_the_rest(tmp_path: Path) -> None:
    train(tmp_path, (2, 4), first=3)
    (session,) = sessions(tmp_path)
    assert traced_steps(session) == [3, 4]


@pytest.mark.parametrize("ending", [{"last": 3}, {"stop": 4}])
def test_a_run_that_ends_within_the_window_leaves_what_it_has(
    tmp_path: Path, ending: dict[str, int]
) -> None:
    try:
        train(tmp_path, (2, 9), **ending)
    except KeyboardInterrupt:
        assert "stop" in ending
    (session,) = sessions(tmp_path)
    assert traced_steps(session) == [2, 3, *([4] if "stop" in ending else [])]
    train(tmp_path / "next", (1, 1))  # no trace goes on that would be in the way
    assert len(sessions(tmp_path / "next")) == 1


@pytest.mark.parametrize(("steps", "first"), [(None, 1), ((2, 3), 4)])
def test_nothing_is_traced_outside_the_window(
    tmp_path: Path, steps: tuple[int, int] | None, first: int
) -> None:
    train(tmp_path, steps, first=first)
    assert list(tmp_path.iterdir()) == []
