"""What a run says of itself, against a made-up clock, XLA's own counts and the profile's files."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental.pallas import tpu as pallas_tpu
from transformers import BertConfig

from sie_jax.importance import outputs
from sie_jax.models import PairClassifier
from sie_jax.models.pretraining import PretrainingModel
from sie_jax.tasks import masking
from sie_jax.tasks.graded import Graded
from sie_jax.training import observing

LABELS, VOCABULARY = 3, 1500
STATUS = Path("/proc/self/status")


def bert(hidden: int, layers: int) -> BertConfig:
    return BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=4 * hidden,
        max_position_embeddings=64,
    )


def token_batch(rows: int, length: int) -> dict[str, jax.Array]:
    return {
        "input_ids": jnp.full((rows, length), 7, jnp.int32),
        "token_type_ids": jnp.zeros((rows, length), jnp.int32),
        "attention_mask": jnp.ones((rows, length), bool),
        "label": jnp.zeros(rows, jnp.int32),
        "row": jnp.arange(rows),
    }


def flops_of_xla(loss: Callable[..., jax.Array], params: Any, *arguments: Any) -> float:
    """What XLA counts in the compiled gradient of `loss`."""
    return jax.jit(jax.grad(loss)).lower(params, *arguments).compile().cost_analysis()["flops"]


def test_peaks_of_gpus_are_units_times_clock() -> None:
    # multiprocessors, multiply-adds of each in one cycle, boost clock: of the architecture papers
    tensor_cores = {
        "NVIDIA A100-SXM4-80GB": (108, 1024, 1.410e9),
        "NVIDIA A10": (72, 512, 1.695e9),
        "NVIDIA L4": (58, 512, 2.040e9),
        "NVIDIA L40S": (142, 512, 2.520e9),
        "NVIDIA H100 80GB HBM3": (132, 2048, 1.830e9),
        "NVIDIA H100 PCIe": (114, 2048, 1.620e9),
    }
    for kind, (units, products, clock) in tensor_cores.items():
        expected = 2 * units * products * clock
        assert observing.peak_flops(kind, "bfloat16") == pytest.approx(expected, rel=0.015)
        # TF32 takes twice the time
        assert observing.peak_flops(kind, "float32") == pytest.approx(expected / 2, rel=0.015)
    for kind, cores, clock in [("Tesla V100-SXM2-16GB", 5120, 1.53e9), ("Tesla T4", 2560, 1.59e9)]:
        expected = 2 * cores * clock
        assert observing.peak_flops(kind, "float32") == pytest.approx(expected, rel=0.01)
        assert observing.peak_flops(kind, "bfloat16") is None


def test_peaks_of_tpus_are_those_that_jax_knows() -> None:
    chips = pallas_tpu.ChipVersion
    # TPU v3 is left out: JAX says 140 per chip, Google's own paper and pages 123
    versions = {
        "TPU v2": (chips.TPU_V2, 1),
        "TPU v4": (chips.TPU_V4, 2),  # two cores that are one device
        "TPU v5 lite": (chips.TPU_V5E, 1),
        "TPU v5": (chips.TPU_V5P, 2),
        "TPU v6 lite": (chips.TPU_V6E, 1),
        "TPU7x": (chips.TPU_7X, 1),
    }
    for kind, (version, cores) in versions.items():
        of_core = pallas_tpu.get_tpu_info_for_chip(version, cores).bf16_ops_per_second
        for dtype in ("bfloat16", "float32"):
            assert observing.peak_flops(kind, dtype) == pytest.approx(cores * of_core, rel=0.01)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (jax.devices("cpu")[0].device_kind, "float32"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bfloat16"),  # a seventh of an A100
        ("NVIDIA L4", "float64"),
    ],
)
def test_no_peak_is_guessed(kind: str, dtype: str) -> None:
    assert observing.peak_flops(kind, dtype) is None


@pytest.mark.parametrize(("hidden", "layers", "length"), [(64, 2, 32), (256, 1, 32), (256, 1, 2)])
def test_flops_of_a_classifier(hidden: int, layers: int, length: int) -> None:
    rows = 4
    graphdef, params = nnx.split(
        PairClassifier(bert(hidden, layers), num_labels=LABELS, rngs=nnx.Rngs(0))
    )
    flops = observing.step_flops(params, rows, length)

    per_layer = 4 * hidden**2 + 2 * hidden * 4 * hidden
    per_token = 6 * layers * per_layer + 12 * layers * hidden * length
    assert flops == rows * (length * per_token + 6 * (hidden**2 + hidden * LABELS))
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    assert observing.step_flops(shapes, rows, length) == flops

    of_example = Graded(graphdef, (0.0,) * LABELS).loss()

    def loss(params: Any, batch: Any) -> jax.Array:
        return jax.vmap(of_example, in_axes=(None, 0))(params, batch)[0].mean()

    counted = flops_of_xla(loss, params, token_batch(rows, length))
    # XLA also counts what is no product (norms, gelu, softmax): in a layer some hundreds of
    # operations for each of a token's hidden units, beside 72 · hidden in the products
    assert flops < counted < flops * (1 + 8 / hidden)


def test_flops_of_pretraining() -> None:
    rows, length, hidden, layers = 4, 32, 128, 1
    graphdef, params = nnx.split(PretrainingModel(bert(hidden, layers), rngs=nnx.Rngs(0)))
    vocabulary = masking.Vocabulary(
        np.zeros(VOCABULARY, bool), np.arange(VOCABULARY) < 5, mask=4, separator=3, padding=0
    )

    def of_example(params: Any, example: Any) -> jax.Array:
        masked = masking.mask_words(
            jax.random.key(0), example["input_ids"], example["attention_mask"], vocabulary
        )
        words, pair = nnx.merge(graphdef, params)(
            masked.input_ids,
            example["token_type_ids"],
            example["attention_mask"],
            masked.positions,
        )
        return outputs.loss(words, masked.targets).mean() + outputs.loss(pair, example["label"])

    def loss(params: Any, batch: Any) -> jax.Array:
        return jax.vmap(of_example, in_axes=(None, 0))(params, batch).mean()

    flops = observing.step_flops(params, rows, length)
    per_layer = length * 12 * hidden**2 + 2 * length**2 * hidden
    words = masking.places(length) * (hidden**2 + VOCABULARY * hidden)
    assert flops == 6 * rows * (layers * per_layer + words + hidden**2 + 2 * hidden)
    counted = flops_of_xla(loss, params, token_batch(rows, length))
    assert flops < counted < flops * (1 + 8 / hidden)


def test_a_matrix_of_another_model_is_not_guessed_at() -> None:
    with pytest.raises(ValueError, match=r"adapter\.kernel"):
        observing.step_flops({"adapter": {"kernel": jnp.zeros((2, 2))}}, 1, 1)


class MadeUpClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run_steps(meter: observing.StepMeter, clock: MadeUpClock, *, steps: int, wait: float) -> None:
    """Steps of `wait` and 3 seconds, each of 7 rows with 50 tokens in 8 · 10 slots."""
    for _ in range(steps):
        with meter.waiting():
            clock.now += wait
        clock.now += 3.0
        meter.step(rows=7, tokens=50, slots=80, flops=600)


def test_an_interval_is_what_its_steps_took() -> None:
    clock = MadeUpClock()
    devices = jax.local_devices(backend="cpu")
    meter = observing.StepMeter(400.0, devices, clock=clock)
    assert meter.interval() == {}  # no step yet
    run_steps(meter, clock, steps=4, wait=1.0)
    with meter.outside_steps():
        clock.now += 20.0
    found = meter.interval()
    memory = {name: found.pop(name) for name in observing.peak_memory(devices)}
    assert memory
    assert found == pytest.approx(
        {
            "step_seconds": 1 + 3,
            "data_wait_share": 1 / (1 + 3),
            "examples_per_second": 7 / 4,
            "tokens_per_second": 50 / 4,
            "padding_share": 30 / 80,
            "outside_steps_seconds": 20,
            "model_flops_utilisation": 600 / 4 / 400,
        }
    )
    run_steps(meter, clock, steps=2, wait=0.0)  # nothing of the interval before is left
    second = meter.interval()
    assert (second["step_seconds"], second["data_wait_share"]) == (3, 0)
    assert (second["examples_per_second"], second["outside_steps_seconds"]) == (7 / 3, 0)
    assert meter.interval() == {}


def test_no_utilisation_where_the_peak_is_not_known() -> None:
    clock = MadeUpClock()
    meter = observing.StepMeter(None, jax.local_devices(backend="cpu"), clock=clock)
    run_steps(meter, clock, steps=1, wait=1.0)
    assert "model_flops_utilisation" not in meter.interval()


def test_the_clock_is_real_where_none_is_given() -> None:
    meter = observing.StepMeter(None, jax.local_devices(backend="cpu"))
    with meter.waiting():
        jnp.ones(()).block_until_ready()
    meter.step(rows=1, tokens=1, slots=1, flops=1)
    found = meter.interval()
    assert found["step_seconds"] > 0
    assert 0 < found["data_wait_share"] <= 1


def test_memory_of_the_fullest_device() -> None:
    # CPUs do not count, so the devices are made up
    devices: Any = [
        SimpleNamespace(memory_stats=lambda peak=peak: {"peak_bytes_in_use": peak, "limit": 9})
        for peak in (3, 8, 5)
    ]
    assert observing.peak_memory(devices) == {"peak_memory_bytes": 8}


@pytest.mark.skipif(not STATUS.exists(), reason="another count of the process is Linux's")
def test_memory_of_the_process_where_devices_do_not_count() -> None:
    found = observing.peak_memory(jax.local_devices(backend="cpu"))
    assert list(found) == ["peak_host_memory_bytes"]
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
    resident = int(line.split()[1]) * 1024
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # the kernel adds up the two at slightly different times
    assert 0.98 * resident < found["peak_host_memory_bytes"] < machine


@jax.jit
def small_step(state: jax.Array, batch: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    state = jnp.tanh(state @ batch)
    return state, {"loss": state.sum()}


def train(
    folder: Path, steps: tuple[int, int] | None, *, first: int = 1, last: int = 5, stop: int = 99
) -> None:
    """A loop of small steps, numbered `first` to `last`; step `stop` raises."""
    meter = observing.StepMeter(None, jax.local_devices(backend="cpu"))
    state = jnp.eye(16)
    with observing.profiler_window(folder, steps) as window:
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
    with observing.profiler_window(tmp_path, (1, 1)) as window:
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
