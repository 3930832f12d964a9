"""Two processes, one of which is slow, make the same stages and never part ways.

Processes need programs of their own: this file, run as one, makes two stages and leaves what it
saw.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def stages(folder: Path, seen: Path, *, slow: bool, seed: int) -> None:
    """Makes a stage that only the first process writes, and one that needs it."""
    import jax
    from rich.console import Console

    from sie_jax import processes
    from sie_jax.devices import mesh as meshes
    from sie_jax.training.section import TrainConfig
    from sie_jax.training.tracking import TrackingConfig
    from sie_jax.workdir import Job, Made, Workdir, stage

    ran: list[str] = []

    @stage(leaves=("first.json",), read=lambda made: (made.folder / "first.json").read_text())
    def first(job: Job, *, seed: int) -> None:
        if slow:
            time.sleep(1.0)
        ran.append("first")
        processes.alone((job.folder / "first.json").write_text, str(seed))

    @stage(leaves=("second.json",), read=lambda made: (made.folder / "second.json").read_text())
    def second(job: Job, given: Made[str]) -> None:
        ran.append("second")
        job.meter("work").charge(examples=1, forward_equivalents=3)
        processes.alone((job.folder / "second.json").write_text, given.value * 2)

    console = Console(quiet=True)
    mesh = meshes.make()
    if slow:
        time.sleep(0.5)  # the other one has looked at the workdir by then
    workdir = Workdir(folder, mesh, console, {}, TrainConfig(), TrackingConfig())
    made = second(workdir, first(workdir, seed=seed))
    told = {"ran": ran, "value": made.value, "id": made.id, "cost": made.cost["work"][1:]}
    seen.write_text(json.dumps({**told, "processes": jax.process_count()}))


def told_by_both(tmp_path: Path, name: str, *, slow: int) -> list[dict[str, Any]]:
    """What each of two processes saw; the one numbered `slow` dawdles."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}"}
    seen = [tmp_path / f"{name}-{process}.json" for process in range(2)]
    running = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path / "run"), str(path), str(process), str(slow)],
            env=environment,
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process, path in enumerate(seen)
    ]
    for one in running:
        _, err = one.communicate(timeout=240)
        assert one.returncode == 0, err
    return [json.loads(path.read_text()) for path in seen]


@pytest.mark.parametrize("slow", [0, 1])
def test_one_slow_process_changes_nothing(tmp_path: Path, slow: int) -> None:
    (tmp_path / "run").mkdir()
    first, other = told_by_both(tmp_path, "made", slow=slow)
    assert first == other
    assert first["processes"] == 2
    assert first["ran"] == ["first", "second"]
    assert (first["value"], first["cost"]) == ("77", [1, 3])
    again = told_by_both(tmp_path, "again", slow=slow)
    assert again == [{**first, "ran": []}] * 2  # neither made anything


if __name__ == "__main__":
    import jax

    process, dawdling = int(sys.argv[3]), int(sys.argv[4])
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(num_processes=2, process_id=process)
    stages(Path(sys.argv[1]), Path(sys.argv[2]), slow=process == dawdling, seed=7)
