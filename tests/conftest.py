"""What all tests share: how programs are compiled, and in which order files are taken."""

import gc
import os
import tempfile
from importlib import metadata
from pathlib import Path

import pytest
from running import forks

__all__ = ["forks"]

_FOLDER = tempfile.TemporaryDirectory(prefix="sie_jax-compiled-")
# set before JAX is imported; workers of pytest-xdist and programs that tests start inherit it
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _FOLDER.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# The older of the two ways in which this XLA makes code for a CPU takes half the time to do so. The
# next one has only the newer, which the quickstart and the tutorial are run with here too.
if metadata.version("jaxlib").startswith("0.10."):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
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
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a finished tiny run, which no test changes."""
    import tiny_runs  # it imports JAX

    workdir = tmp_path_factory.mktemp("tiny") / "run"
    tiny_runs.run(tiny_runs.tiny(), workdir)
    return workdir


@pytest.fixture(scope="session")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a finished run with folds and further estimators, which no test changes."""
    import tiny_runs

    workdir = tmp_path_factory.mktemp("folded") / "run"
    tiny_runs.run(tiny_runs.folded(), workdir)
    return workdir
