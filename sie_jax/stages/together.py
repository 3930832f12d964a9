"""Together: the prepared pairs once more, for a model that reads query and item in one."""

from sie_jax import processes
from sie_jax.data import preparing
from sie_jax.data.preparing import Prepared, Selection
from sie_jax.data.schema import REJECTED_SCHEMA, Source
from sie_jax.data.section import DataConfig
from sie_jax.files import whole_folder
from sie_jax.workdir import Job, Made, stage

FOLDER = "together"


def read(made: Made[Prepared]) -> Prepared:
    """The pairs, and their token ids."""
    return preparing.load(made.folder / FOLDER)


@stage(leaves=(FOLDER,), read=read)
def together(job: Job, prepared: Made[Prepared], *, data: DataConfig) -> None:
    """Leaves together/, the pairs with the token ids of both texts, by the same tokenizer.

    Raises UserError where a split has no row whose query leaves room for its item.
    """
    pairs = prepared.value
    kept = pairs.pairs.drop_columns(["length"])
    source = Source(kept, pairs.scale, pairs.counts["source"])
    selection = Selection(source, kept, REJECTED_SCHEMA.empty_table(), {})
    encoding = data.encoding(str(pairs.folder / "tokenizer"))

    def leave() -> None:
        with whole_folder(job.folder / FOLDER) as temporary:
            preparing.store(selection, temporary, encoding)

    processes.alone(leave)
