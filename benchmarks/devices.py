"""What a training step computes and sends on 1 to 8 simulated devices, by its compiled program.

    python benchmarks/devices.py            # some minutes: nothing is run, everything is compiled

For every mesh, the uniform step (`weighted_step`, plain training) and the step that weighs its own
batch (`online_step`), of a BERT of four layers, 256 wide: FLOPs per device by XLA's own count, and
every collective of the program with the bytes of its result. A collective's bytes on the wire
follow from that by its kind: an all-reduce of b bytes over n devices sends 2 b (n - 1) / n per
device, an all-gather to b bytes or a reduce-scatter from b bytes b (n - 1) / n.

On paper, the same for MiniLM-L6 on a v5e-256 slice. Leaves benchmarks/results/devices.json.
"""

import collections
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "devices.json"
DEVICES, BATCH, LENGTH = 8, 64, 32
# data, fsdp, tensor
MESHES = ((1, 1, 1), (2, 1, 1), (4, 1, 1), (8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2))
BYTES = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "pred": 1, "f64": 8, "s64": 8, "u64": 8}


def collectives(text: str) -> dict[str, dict[str, float]]:
    """By kind: how many a compiled program has, and the bytes of their results."""
    found: dict[str, dict[str, float]] = collections.defaultdict(lambda: {"count": 0, "bytes": 0})
    for shapes, kind in re.findall(
        r"= (\S+|\([^)]*\)) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
        r"(?:-start)?\(",
        text,
    ):
        found[kind]["count"] += 1
        for dtype, sizes in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
            numbers = math.prod(int(size) for size in sizes.split(",") if size)
            found[kind]["bytes"] += BYTES[dtype] * numbers
    return dict(found)


def compiled() -> dict[str, Any]:
    """Compiles both steps on every mesh, on the simulated devices of this process."""
    import jax
    import numpy as np
    from flax import nnx
    from transformers import BertConfig

    from sie_jax import importance
    from sie_jax.devices import mesh as meshes
    from sie_jax.models import PairClassifier
    from sie_jax.training import state as states
    from sie_jax.training import steps

    config = BertConfig(
        vocab_size=4096,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=8,
        intermediate_size=1024,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = PairClassifier(config, num_labels=4, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model)
    optimizer = states.make_optimizer(
        learning_rate=1e-4, total_steps=10, warmup_fraction=0.1, weight_decay=0.01, clip_norm=1.0
    )
    batch = {
        "row": np.arange(BATCH, dtype=np.int32),
        "input_ids": np.ones((BATCH, LENGTH), np.int32),
        "token_type_ids": np.zeros((BATCH, LENGTH), np.int32),
        "attention_mask": np.ones((BATCH, LENGTH), bool),
        "label": np.zeros(BATCH, np.int32),
        "mask": np.ones(BATCH, bool),
        "weight": np.ones(BATCH, np.float32),
    }
    found: dict[str, Any] = {}
    for axes in MESHES:
        mesh = meshes.make(*axes)
        state = states.create(params, optimizer, mesh, seed=0)
        made = {
            "uniform": steps.weighted_step(graphdef, optimizer, mesh),
            "online": steps.online_step(
                graphdef,
                optimizer,
                mesh,
                score="grad_norm",
                policy=importance.POLICIES["clipped"],
            ),
        }
        name = " × ".join(
            f"{axis} {size}" for axis, size in zip(meshes.AXES, axes, strict=True) if size > 1
        )
        of_mesh = found.setdefault(name or "one device", {})
        for kind, step in made.items():
            program: Any = step
            program = program.lower(state, meshes.place_batch(mesh, batch)).compile()
            memory = program.memory_analysis()
            of_mesh[kind] = {
                "flops_per_device": program.cost_analysis()["flops"],
                "state_bytes_per_device": memory.argument_size_in_bytes,
                "temporary_bytes_per_device": memory.temp_size_in_bytes,
                "collectives": collectives(program.as_text()),
            }
    sizes = [leaf.size for leaf in jax.tree.leaves(params)]
    return {
        "batch": BATCH,
        "length": LENGTH,
        "parameters": sum(sizes),
        "model_flops": model.step_flops(BATCH, LENGTH),
        "meshes": found,
    }


def on_paper() -> dict[str, Any]:
    """MiniLM-L6 on 256 v5e chips, a batch of 8,192 pairs of 64 tokens, data × fsdp = 256.

    Per device and step: FLOPs 6 · rows · (parameters of the layers · T + 2 · layers · T² · hidden),
    as `PairClassifier.step_flops` without the heads. Bytes sent by data parallelism:
    2 · 4 P (n - 1) / n, one all-reduce of the gradients. By fsdp as many: twice 4 P (n - 1) / n,
    one all-gather of the parameters and one reduce-scatter of the gradients. Scoring the batch adds
    norms, losses and weights, of the order of 4 · 4 · rows in all.
    """
    devices, rows, length, layers, hidden, inner = 256, 8192, 64, 6, 384, 1536
    parameters, in_layers = 22_713_216, layers * (4 * hidden**2 + 2 * hidden * inner)
    flops = 6 * rows * (in_layers * length + 2 * layers * length**2 * hidden) // devices
    sent = 2 * 4 * parameters * (devices - 1) // devices
    peak, link = 197e12, 2e11  # https://cloud.google.com/tpu/docs/v5e: bfloat16, and 1600 Gbit/s
    return {
        "devices": devices,
        "rows": rows,
        "length": length,
        "flops_per_device": flops,
        "bytes_sent_per_device": sent,
        "bytes_added_by_scoring": 4 * 4 * rows,
        "seconds_at_peak_flops": flops / peak,
        "seconds_at_peak_link": sent / link,
    }


def main() -> None:
    if "--compile" in sys.argv:
        print(json.dumps(compiled()))
        return
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES}"
    command = [sys.executable, __file__, "--compile"]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    result = json.loads(done.stdout.splitlines()[-1])
    result |= {"device": f"{DEVICES} simulated CPU devices", "v5e_256_on_paper": on_paper()}
    RESULTS.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
