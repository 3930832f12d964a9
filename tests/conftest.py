"""What all tests share: how programs are compiled, and in which order files are taken."""

import fcntl
import gc
import os
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from running import forks

if TYPE_CHECKING:
    from sie_jax.config import Config

__all__ = ["forks"]

_FOLDER = tempfile.TemporaryDirectory(prefix="sie_jax-compiled-")
# set before JAX is imported; workers of pytest-xdist and programs that tests start inherit it
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _FOLDER.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Programs are small: a quarter of the time to compile goes into cutting them into parts and joining
# those. The older of the two ways in which XLA 0.10 makes code for a CPU takes half the time to do
# so; the next one has only the newer, which the quickstart and the tutorial are run with here too.
# XLA ends a process that names a flag it does not have, so these go by version.
_FLAGS = {
    "0.10": "--xla_cpu_parallel_codegen_split_count=1 --xla_cpu_use_fusion_emitters=false",
    "0.12": "--xla_cpu_parallel_codegen_split_count=1",
}
os.environ.setdefault("XLA_FLAGS", _FLAGS.get(metadata.version("jaxlib")[:4], ""))
# tracing makes many objects, and few of them are garbage that counting references leaves
gc.set_threshold(50_000, 20, 20)
# minutes each: begun last, one of them would go on alone when the other process is done
LONG = (
    "test_relevance.py",
    "test_tasks.py",
    "test_nested.py",
    "test_damage.py",
    "test_faults.py",
    "test_train.py",
    "test_devices.py",
    "test_zoo.py",
    "test_colab.py",
    "test_remote.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def made(name: str, config: "Config", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the workdir of a finished run.

    The first process of pytest-xdist to ask makes it; others wait for it.
    """
    import tiny_runs  # it imports JAX

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / name
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "metrics.json").exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a run that failed
            tiny_runs.run(config, folder)
    return Path(shutil.copytree(folder, tmp_path_factory.mktemp(name) / "run"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a finished tiny run, which no test changes."""
    import tiny_runs

    return made("finished", tiny_runs.tiny(), tmp_path_factory)


@pytest.fixture(scope="session")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a finished run with folds and further estimators, which no test changes."""
    import tiny_runs

    return made("folded", tiny_runs.folded(), tmp_path_factory)


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a finished run that learns its weights, which no test changes."""
    import tiny_runs

    return made("learned", tiny_runs.learned(), tmp_path_factory)
