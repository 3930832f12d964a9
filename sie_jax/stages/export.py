"""Export: the folder of the ranker that won the contest, with all that it needs."""

import shutil

from sie_jax import processes, remote
from sie_jax.data import sentences
from sie_jax.data.features import CHECKPOINTS, COSINE, COSINE_TEXT
from sie_jax.data.preparing import Prepared
from sie_jax.data.schema import CURRENT
from sie_jax.files import whole_folder
from sie_jax.models.linear import LinearRanker
from sie_jax.models.ranker import BLEND, ENCODER, LINEAR, STACK, TRANSLATION, TREES, Ranker
from sie_jax.stages.contest import STACKED, Contest, Contestants, column_of
from sie_jax.stages.linear import list_lengths
from sie_jax.stages.train import HEAD
from sie_jax.workdir import Job, Made, stage

MODEL = "model"
CORPUS, WORDS, BOOSTED = "corpus.parquet", "translation.parquet", "trees.json"
CHECKPOINT, ENCODERS = "checkpoint", "encoders"


def read(made: Made[Ranker]) -> Ranker:
    """What ranks."""
    return Ranker.load(made.folder / MODEL)


@stage(leaves=(MODEL,), read=read, trains=False)
def export(
    job: Job,
    prepared: Made[Prepared],
    contestants: Contestants,
    contest: Made[Contest],
    *,
    checkpoint: str,
    current: str,
) -> None:
    """Leaves model/: the best encoder as a Hugging Face folder, ranker.json, and what that names.

    checkpoint: the folder of the pretrained encoder.
    current: the user's column with today's score.
    """
    features, trained = contestants.features.value, contestants.trained
    winner = contest.value.outcome.ranker
    kind = ENCODER if winner in trained else winner
    run = winner if kind == ENCODER else contest.value.outcome.encoder
    encoders: dict[str, str] = {}
    heads: dict[str, LinearRanker] = {}
    if kind == STACK or (kind == ENCODER and trained[run].value.head):
        for name in STACKED if kind == STACK else (run,):
            if name in trained:
                encoders[column_of(name)] = "." if name == run else f"{ENCODERS}/{name}"
                if head := trained[name].value.head:
                    heads[column_of(name)] = head
    with_linear = kind in (LINEAR, BLEND, STACK)
    by_features = with_linear or kind == TREES or bool(heads)
    with_cosine = kind in CHECKPOINTS or (by_features and COSINE in features.names)
    with_text = by_features or kind == TRANSLATION or CHECKPOINTS.get(kind) == COSINE_TEXT
    ranker = Ranker(
        kind,
        run,
        linear=contestants.linear.value if with_linear else None,
        stack=contest.value.stack if kind == STACK else None,
        encoders=encoders,
        heads=heads,
        checkpoint=CHECKPOINT if with_cosine else "",
        translation=WORDS if kind in (STACK, TRANSLATION) else "",
        trees=BOOSTED if kind in (TREES, BLEND) else "",
        text=with_text and features.statistics.text.documents > 0,
        corpus=CORPUS if by_features or kind == "bm25" else "",
        column=current if kind == CURRENT else "",
        list_lengths=list_lengths(prepared.value) if by_features else {},
    )

    def leave() -> None:
        with whole_folder(job.folder / MODEL) as temporary:
            unread = shutil.ignore_patterns(HEAD)  # it is in ranker.json
            shutil.copytree(trained[run].value.model, temporary, dirs_exist_ok=True, ignore=unread)
            for column, folder in encoders.items():
                if folder != ".":
                    name = column.partition(":")[2]
                    shutil.copytree(trained[name].value.model, temporary / folder, ignore=unread)
            if ranker.corpus:
                features.statistics.save(temporary / ranker.corpus)
            if ranker.translation:
                contestants.translation.value.save(temporary / ranker.translation)
            if ranker.trees:
                contestants.trees.value.save(temporary / ranker.trees)
            if ranker.checkpoint:
                sentences.save(
                    sentences.load(remote.local(checkpoint)), temporary / ranker.checkpoint
                )
            ranker.save(temporary)

    processes.alone(leave)
