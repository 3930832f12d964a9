"""Traces some steps of a loop with JAX's profiler."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax


class ProfilerWindow:
    """Traces the steps from `first` to `last`; create it with `profiler_window`."""

    def __init__(self, folder: Path, steps: Sequence[int] | None) -> None:
        self._folder = folder
        self._steps = range(steps[0], steps[1] + 1) if steps else range(0)
        self._step = contextlib.ExitStack()
        self._tracing = False

    def before(self, step: int) -> None:
        """Call it first in the body of the loop, before waiting for the batch of step `step`."""
        if step not in self._steps:
            return
        if not self._tracing:
            options = jax.profiler.ProfileOptions()
            # Every call of a Python function would be an event. The host would be slower in the
            # trace than it is, and the trace would hold little else.
            options.python_tracer_level = 0
            jax.profiler.start_trace(
                self._folder, create_perfetto_trace=True, profiler_options=options
            )
            self._tracing = True
        # XProf divides the trace into steps by this annotation.
        self._step.enter_context(jax.profiler.StepTraceAnnotation("train", step_num=step))

    def after(self, step: int, outputs: Any) -> None:
        """Call it last in the body of the loop; `outputs` are arrays that step `step` computes.

        After the last step of the window it waits for them, so that the trace is complete.
        """
        self._step.close()
        if self._tracing and step >= self._steps[-1]:
            jax.block_until_ready(outputs)
            self.close()

    def close(self) -> None:
        """Ends the current step, and writes the trace if there is one."""
        self._step.close()
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()


@contextlib.contextmanager
def profiler_window(folder: Path, steps: Sequence[int] | None) -> Iterator[ProfilerWindow]:
    """Traces the steps `first` to `last`, both included, into `folder`; no step if None.

    A loop calls `before(step)` and `after(step, outputs)` at every step. The trace is in
    `folder`/plugins/profile/<time>: `*.xplane.pb` for TensorBoard, `perfetto_trace.json.gz` for
    Perfetto. A run that is resumed within the window traces the rest of it. A run that ends within
    it, for whatever reason, leaves the steps up to there. Only the first process traces, since all
    processes do the same.

    Raises:
      RuntimeError: this process is already tracing.
    """
    window = ProfilerWindow(folder, steps if jax.process_index() == 0 else None)
    with contextlib.closing(window):
        yield window
