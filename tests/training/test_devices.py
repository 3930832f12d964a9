"""One device, eight, and two processes of four take the same steps, within float tolerance.

Simulated devices need processes of their own: this file, run as a program, trains a little on
some meshes and leaves what it saw.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow

# Sums over the batch are taken in another order on eight devices (relative error 1e-7 per sum);
# Adam divides by |g|, which makes more of it where a gradient is small. Parameters are of order 1
# and move by 3 · 0.01.
TOLERANCE = 1e-4
LISTED = ("listed online", "listed weighted", "towers")
KINDS = ("weighted", "online", "learned", "pretraining", *LISTED)
MESHES = {"data": (8, 1, 1), "all three": (2, 2, 2)}
# on how many processes which mesh takes which kinds of steps
TAKEN = (
    ("all three", 1, KINDS),
    ("data", 2, ("listed online", "towers")),  # coupled within a device, and over all of them
    ("all three", 2, ("weighted",)),
)


def train(axes: tuple[int, int, int], path: Path, kinds: tuple[str, ...]) -> None:
    """Takes three steps of some kinds on a mesh, and leaves what came out as arrays."""
    import functools

    import jax
    from flax import nnx
    from transformers import BertConfig

    from sie_jax import importance, processes
    from sie_jax.devices import mesh as meshes
    from sie_jax.models import PairClassifier, PretrainingModel, Towers
    from sie_jax.passes import sweep
    from sie_jax.passes.score import score_pass
    from sie_jax.tasks import masking
    from sie_jax.tasks.contrastive import Contrastive
    from sie_jax.tasks.graded import Graded
    from sie_jax.tasks.listed import Listed
    from sie_jax.tasks.masked import Masked
    from sie_jax.training import learning, steps
    from sie_jax.training import state as states

    config = BertConfig(
        vocab_size=50,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=12,
        initializer_range=0.3,
    )
    graphdef, params = nnx.split(PairClassifier(config, num_labels=4, rngs=nnx.Rngs(0)))
    classifier = Graded(graphdef, (0.0, 0.1, 0.5, 1.0)), params
    graphdef, params = nnx.split(PairClassifier(config, num_labels=1, rngs=nnx.Rngs(0)))
    ranker = Listed(graphdef, (0.0, 0.1, 0.5, 1.0), "listwise"), params
    graphdef, params = nnx.split(PretrainingModel(config, rngs=nnx.Rngs(0)))
    vocabulary = masking.Vocabulary(np.arange(50) > 40, np.arange(50) < 5, 4, 3, 0)
    both_heads = Masked(graphdef, vocabulary), params
    graphdef, params = nnx.split(Towers(config, rngs=nnx.Rngs(0)))
    two_towers = Contrastive(graphdef, (0.0, 0.1, 0.5, 1.0), 0.2), params
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
            # two to a device of eight; a padding row is a list of its own
            "list": np.where(mask, np.arange(16) // 2, 16 + np.arange(16)).astype(np.int32),
        }

    mesh = meshes.make(*axes)
    share = meshes.local_rows(mesh, 16)
    # of the last one, two devices of eight have padding rows alone
    batches = [batch(16), batch(16), batch(13)]
    joined = [
        one | {learning.PREFIX + name: values for name, values in other.items()}
        for one, other in zip(batches, batches[::-1], strict=True)
    ]

    def taken_apart(one: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The same rows with shorter queries; three queries' lists lie on two devices or more."""
        sides = {"query": slice(0, 5), "item": slice(0, 12)}
        texts = {
            f"{side}_{to}": one[name][:, at]
            for side, at in sides.items()
            for name, to in (("input_ids", "ids"), ("attention_mask", "mask"))
        }
        lists = np.where(one["mask"], np.arange(16) // 6, np.arange(16, 32)).astype(np.int32)
        return {**one, **texts, "list": lists, "item": one["row"] % 7}

    def placed(one: dict[str, np.ndarray]) -> Any:
        return meshes.place_batch(mesh, {name: values[share] for name, values in one.items()})

    policy = importance.policies.Proportional()
    online = functools.partial(steps.online_step, score="grad_norm", policy=policy)
    learned = functools.partial(learning.learned_step, scores=("loss", "grad_norm"))
    create_learned = functools.partial(learning.create, scores=("loss", "grad_norm"))
    of_kind: dict[str, tuple[Any, ...]] = {
        "weighted": (classifier, steps.weighted_step, states.create, batches),
        "online": (classifier, online, states.create, batches),
        "learned": (classifier, learned, create_learned, joined),
        "listed online": (ranker, online, states.create, batches),
        "listed weighted": (ranker, steps.weighted_step, states.create, batches),
        "pretraining": (both_heads, steps.batch_step, states.create, batches),
        "towers": (two_towers, online, states.create, [taken_apart(one) for one in batches]),
    }
    found: dict[str, np.ndarray] = {"devices": np.array([jax.device_count(), jax.process_count()])}
    for name in kinds:
        (task, params), make_step, create, taken = of_kind[name]
        step = make_step(task, optimizer, mesh)
        state = create(params, optimizer, mesh, seed=1)
        for number, one in enumerate(taken):
            state, metrics = step(state, placed(one))
            for key, values in jax.device_get(metrics).items():
                found[f"{name} {key} {number}"] = values
        for (at, leaf), start in zip(
            jax.tree_util.tree_leaves_with_path(meshes.fetch(mesh, state.params)),
            jax.tree.leaves(params),
            strict=True,
        ):
            # the gradient of a key's bias is 0 but for rounding, and Adam makes a step of that
            where = jax.tree_util.keystr(at)
            if not ("key" in where and "bias" in where):
                found[f"{name} parameter {where}"] = leaf
                assert np.abs(leaf - np.asarray(start)).max() > 1e-3, where
    task, params = classifier
    scored = list(
        sweep.sweep(
            score_pass(task, mesh),
            meshes.place(mesh, params),
            [{name: values[share] for name, values in one.items()} for one in batches],
            mesh,
        )
    )
    assert [len(one["row"]) for one in scored] == [16, 16, 13]
    for key in scored[0]:
        found[f"score {key}"] = np.concatenate([one[key] for one in scored])
    weights = policy(found["score grad_norm"])
    found["weights"] = np.asarray(weights)
    if processes.first():
        np.savez(path, **found)


def run(folder: Path, *, processes: int, devices: int, of: dict[str, tuple[Any, ...]]) -> Any:
    """What `train` leaves for each of the meshes and kinds `of`, with that many processes and
    devices of each."""
    arguments = {
        name: (axes, str(folder / f"{name}.npz"), kinds) for name, (axes, kinds) in of.items()
    }
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    flags = os.environ.get("XLA_FLAGS", "")
    environment["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}"
    if processes > 1:
        with socket.socket() as opened:
            opened.bind(("localhost", 0))
            environment["JAX_COORDINATOR_ADDRESS"] = f"localhost:{opened.getsockname()[1]}"
    started = [
        subprocess.Popen(
            [sys.executable, __file__, json.dumps([*arguments.values()])],
            env={**environment, "JAX_PROCESS_ID": str(process)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(processes)
    ]
    errors = [process.communicate(timeout=600)[1] for process in started]
    assert [process.returncode for process in started] == [0] * processes, errors
    found = {}
    for name, (_, path, _) in arguments.items():
        with np.load(path) as arrays:
            assert arrays["devices"].tolist() == [processes * devices, processes]
            found[name] = dict(arrays)
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """By the number of processes what each mesh gave; `alone` is one device of the one process."""
    of = {
        processes: {
            name: (MESHES[name], kinds) for name, number, kinds in TAKEN if number == processes
        }
        for processes in (1, 2)
    }
    of[1]["alone"] = (1, 1, 1), KINDS
    return {
        processes: run(
            tmp_path_factory.mktemp("devices"),
            processes=processes,
            devices=8 // processes,
            of=meshes,
        )
        for processes, meshes in of.items()
    }


@pytest.mark.parametrize(("name", "processes", "kinds"), TAKEN)
def test_losses_norms_weights_and_parameters_are_those_of_one_device(
    found: Any, name: str, processes: int, kinds: tuple[str, ...]
) -> None:
    alone, of_mesh = found[1]["alone"], found[processes][name]
    assert {key for key in alone if key.startswith((*kinds, "score", "weights"))} == (
        of_mesh.keys() - {"devices"}
    )
    for key, values in of_mesh.items():
        # θ's threshold has a gradient of 0 but for rounding, as a key's bias has
        if key != "devices" and "theta_threshold" not in key:
            np.testing.assert_allclose(
                values, alone[key], rtol=TOLERANCE, atol=TOLERANCE, err_msg=key
            )


if __name__ == "__main__":
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        import jax

        process = int(os.environ["JAX_PROCESS_ID"])
        jax.distributed.initialize(num_processes=2, process_id=process)
    for axes, path, kinds in json.loads(sys.argv[1]):
        train(tuple(axes), Path(path), tuple(kinds))
