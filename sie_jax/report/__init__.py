"""The HTML report of a pipeline run."""

from sie_jax.report import page, plots
from sie_jax.report.page import write

__all__ = ["page", "plots", "write"]
