"""Trees: LambdaMART on the features alone, the strongest ranker that many teams have today."""

from sie_jax import processes
from sie_jax.data.preparing import Prepared
from sie_jax.models import trees as fitting
from sie_jax.models.trees import TreeRanker
from sie_jax.stages.features import Features
from sie_jax.stages.linear import lists_of
from sie_jax.workdir import Job, Made, stage

FILE = "trees.json"


def read(made: Made[TreeRanker]) -> TreeRanker:
    """The ranker."""
    return TreeRanker.load(made.folder / FILE)


@stage(leaves=(FILE,), read=read, trains=False)
def trees(job: Job, prepared: Made[Prepared], features: Made[Features]) -> None:
    """Leaves trees.json, the trees that LightGBM makes of the training pairs.

    Raises UserError where LightGBM cannot be loaded. Where there is no order to learn, the stage
    `linear` has said so.
    """
    known = features.value
    lists = lists_of(prepared.value, "train", known.values["train"])
    ranker = TreeRanker(known.names, fitting.fit(lists))
    processes.alone(ranker.save, job.folder / FILE)
