import threading

import pytest

from sie_jax import telling


def test_a_stage_is_told_again_while_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "SILENCE", 0.0)
    said: list[str] = []
    again = threading.Event()

    def say(text: str) -> None:
        said.append(text)
        if len(said) > 1:
            again.set()

    with telling.telling(say, "stage 1 of 2: prepare"):
        assert again.wait(30)
    assert said[0] == "stage 1 of 2: prepare"
    assert said[1].startswith("stage 1 of 2: prepare, ")
    assert said[1].endswith(" s so far")
    assert "telling" not in {thread.name for thread in threading.enumerate()}


def test_silence_is_counted_from_what_was_shown_last(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(telling.time, "monotonic", lambda: clock[0])
    telling.spoke()
    clock[0] += 7
    assert telling.silence() == 7
