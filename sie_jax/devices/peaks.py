"""The peak FLOP/s of devices, as their makers publish them."""

# Dense peaks in TFLOP/s as (bfloat16, float32) of one JAX device, by its `device_kind`. From Ampere
# on, NVIDIA's data sheets state most peaks of tensor cores with 2:4 sparsity; the table has half of
# those. For float32 it has the peak of what JAX's default precision computes
# (`jax.lax.Precision`): TF32 from Ampere on, one bfloat16 pass on TPUs. The tensor cores of V100
# and T4 do not support bfloat16, so that peak is not known.
_TERAFLOPS: dict[str, tuple[float | None, float | None]] = {
    # 46 and 123 per chip, which is two devices: Jouppi et al. 2020, https://doi.org/10.1145/3360307
    "TPU v2": (23.0, 23.0),
    "TPU v3": (61.5, 61.5),
    # https://cloud.google.com/tpu/docs/v4, and the same with v5e, v5p, v6e: a chip is one device
    "TPU v4": (275.0, 275.0),
    "TPU v5 lite": (197.0, 197.0),
    "TPU v5e": (197.0, 197.0),
    "TPU v5": (459.0, 459.0),
    "TPU v5p": (459.0, 459.0),
    "TPU v6 lite": (918.0, 918.0),
    "TPU v6e": (918.0, 918.0),
    # https://cloud.google.com/tpu/docs/tpu7x: 2307 per chip, which is two devices
    "TPU7x": (1153.5, 1153.5),
    # https://www.nvidia.com/en-us/data-center/v100
    "Tesla V100-SXM2-16GB": (None, 15.7),
    "Tesla V100-SXM2-32GB": (None, 15.7),
    "Tesla V100-PCIE-16GB": (None, 14.0),
    "Tesla V100-PCIE-32GB": (None, 14.0),
    # https://www.nvidia.com/en-us/data-center/tesla-t4
    "Tesla T4": (None, 8.1),
    # https://www.nvidia.com/en-us/data-center/a100
    "NVIDIA A100-SXM4-40GB": (312.0, 156.0),
    "NVIDIA A100-SXM4-80GB": (312.0, 156.0),
    "NVIDIA A100-PCIE-40GB": (312.0, 156.0),
    "NVIDIA A100 80GB PCIe": (312.0, 156.0),
    # https://www.nvidia.com/en-us/data-center/products/a10-gpu
    "NVIDIA A10": (125.0, 62.5),
    # https://www.nvidia.com/en-us/data-center/l4, and the same with l40s
    "NVIDIA L4": (121.0, 60.0),
    "NVIDIA L40S": (362.05, 183.0),
    # https://www.nvidia.com/en-us/data-center/h100, and the same with h200
    "NVIDIA H100 80GB HBM3": (989.5, 494.5),
    "NVIDIA H100 PCIe": (756.5, 378.0),
    "NVIDIA H100 NVL": (835.5, 417.5),
    "NVIDIA H200": (989.5, 494.5),
    "NVIDIA H200 NVL": (835.5, 417.5),
    # https://www.nvidia.com/en-us/data-center/hgx; its data sheets differ on TF32
    "NVIDIA B200": (2250.0, None),
}


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """The dense peak, in FLOP/s, of one JAX device; None if it is not known.

    Peaks of CPUs and of other dtypes are not known.

    Args:
      device_kind: exactly `jax.Device.device_kind`. A part of a GPU (MIG) has another name than the
        whole, and its peak is not known.
      dtype: the dtype of matrix products, "bfloat16" or "float32". float32 means JAX's default
        precision, in which a TPU makes one bfloat16 pass and a GPU uses TF32 if it has it.
    """
    bfloat16, float32 = _TERAFLOPS.get(device_kind, (None, None))
    teraflops = {"bfloat16": bfloat16, "float32": float32}.get(dtype)
    return None if teraflops is None else teraflops * 1e12
