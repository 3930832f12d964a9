"""One device and eight simulated ones take the same steps, within float tolerance.

The eight devices need their own process: this file, run as a program, prints the comparison.
"""

import functools
import json
import os
import subprocess
import sys

import pytest

# Sums over the batch are taken in another order on eight devices (relative error 1e-7 per sum);
# Adam divides by |g|, which makes more of it where a gradient is small. Parameters are of order 1
# and move by 3 · 0.01.
TOLERANCE = 1e-4


def compare() -> None:
    import jax
    import numpy as np
    from flax import nnx
    from transformers import BertConfig

    from sie_jax import importance
    from sie_jax.models import PairClassifier, PretrainingModel
    from sie_jax.training import learning, masking, pretraining, steps
    from sie_jax.training import mesh as meshes
    from sie_jax.training import state as states

    jax.config.update("jax_disable_most_optimizations", True)
    config = BertConfig(
        vocab_size=50,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=12,
        initializer_range=0.3,
    )
    classifier = nnx.split(PairClassifier(config, num_labels=4, rngs=nnx.Rngs(0)))
    both_heads = nnx.split(PretrainingModel(config, rngs=nnx.Rngs(0)))
    vocabulary = masking.Vocabulary(np.arange(50) > 40, np.arange(50) < 5, 4, 3, 0)
    optimizer = states.make_optimizer(
        learning_rate=0.01, total_steps=10, warmup_fraction=0.0, weight_decay=0.01, clip_norm=1.0
    )
    generator = np.random.default_rng(0)

    def batch(real: int) -> dict[str, np.ndarray]:
        lengths = generator.integers(4, 13, (16, 1))
        mask = np.arange(16) < real
        return {
            "row": np.where(mask, generator.permutation(16), -1).astype(np.int32),
            "input_ids": generator.integers(0, 50, (16, 12)).astype(np.int32),
            "token_type_ids": (np.arange(12) >= lengths // 2).astype(np.int32),
            "attention_mask": np.arange(12) < lengths,
            "label": generator.integers(0, 4, 16).astype(np.int32),
            "mask": mask,
            "weight": generator.uniform(0, 2, 16).astype(np.float32),
        }

    batches = [batch(16), batch(16), batch(13)]  # the last two devices have padding rows alone
    policy = importance.weighting.proportional
    found: dict[str, object] = {"devices": jax.device_count()}
    online = functools.partial(steps.online_step, score="grad_norm", policy=policy)
    pretrain = functools.partial(pretraining.pretraining_step, vocabulary=vocabulary)
    learned = functools.partial(learning.learned_step, scores=("loss", "grad_norm"))
    create_learned = functools.partial(learning.create, scores=("loss", "grad_norm"))
    joined = [
        one | {learning.PREFIX + name: values for name, values in other.items()}
        for one, other in zip(batches, batches[::-1], strict=True)
    ]
    for name, (graphdef, params), make_step, create, taken in (
        ("weighted", classifier, steps.weighted_step, states.create, batches),
        ("online", classifier, online, states.create, batches),
        ("learned", classifier, learned, create_learned, joined),
        ("pretraining", both_heads, pretrain, states.create, batches),
    ):
        ends = []
        for devices in (1, 8):
            mesh = meshes.make(devices)
            step = make_step(graphdef, optimizer, mesh)
            state = create(params, optimizer, meshes.replicated(mesh), seed=1)
            losses = []
            for one in taken:
                state, metrics = step(state, meshes.place_batch(mesh, one))
                losses.append(float(metrics["loss"]))
            leaves = jax.tree_util.tree_leaves_with_path(state.params)
            ends.append({jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves})
            found[f"{name} losses {devices}"] = losses
        # the gradient of a key's bias is 0 but for rounding, and Adam makes a whole step of that
        found[name] = max(
            float(np.abs(ends[0][leaf] - ends[1][leaf]).max())
            for leaf in ends[0]
            if not ("key" in leaf and "bias" in leaf)
        )
        start = {jax.tree_util.keystr(p): x for p, x in jax.tree_util.tree_leaves_with_path(params)}
        found[f"{name} moved"] = min(
            float(np.abs(ends[0][leaf] - np.asarray(start[leaf])).max()) for leaf in start
        )
    print(json.dumps(found))


def test_one_and_eight_devices_agree() -> None:
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    environment["JAX_PLATFORMS"] = "cpu"
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["devices"] == 8
    for name in ("weighted", "online", "learned", "pretraining"):
        assert found[name] <= TOLERANCE, found
        assert found[f"{name} losses 1"] == pytest.approx(found[f"{name} losses 8"], rel=1e-4)


if __name__ == "__main__":
    compare()
