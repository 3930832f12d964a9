"""The folder of a run: stages that are made once, what they cost, one run at a time."""

from sie_jax.workdir.job import Job, Workdir
from sie_jax.workdir.stage import Made, stage

__all__ = ["Job", "Made", "Workdir", "stage"]
