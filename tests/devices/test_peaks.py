"""Peaks against the units and clocks of each chip, and against JAX's own table of TPUs."""

import jax
import pytest
from jax.experimental.pallas import tpu as pallas_tpu

from sie_jax.devices import peaks


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
        assert peaks.peak_flops(kind, "bfloat16") == pytest.approx(expected, rel=0.015)
        # TF32 takes twice the time
        assert peaks.peak_flops(kind, "float32") == pytest.approx(expected / 2, rel=0.015)
    for kind, cores, clock in [("Tesla V100-SXM2-16GB", 5120, 1.53e9), ("Tesla T4", 2560, 1.59e9)]:
        expected = 2 * cores * clock
        assert peaks.peak_flops(kind, "float32") == pytest.approx(expected, rel=0.01)
        assert peaks.peak_flops(kind, "bfloat16") is None


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
            assert peaks.peak_flops(kind, dtype) == pytest.approx(cores * of_core, rel=0.01)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (jax.devices("cpu")[0].device_kind, "float32"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bfloat16"),  # a seventh of an A100
        ("NVIDIA L4", "float64"),
    ],
)
def test_no_peak_is_guessed(kind: str, dtype: str) -> None:
    assert peaks.peak_flops(kind, dtype) is None
