"""With which words should a search be asked for a chat, and how well are intents told?

    python benchmarks/conversing.py --chain=CHAIN --pretrained=BERT \\
        --out=benchmarks/results/conversing.json

Chats of the generated shop (`configs/conversation.py`), searched by words alone and by CHAIN, the
folder model/ that `benchmarks/chaining.py --set=shop` left. Intents of the folder support/ in the
folder that $SIE_JAX_DATA names, by TF-IDF of pieces of words, by the vectors of BERT, a
sentence-transformers folder, and by both. Runs the recipe in WORKDIR.
"""

import argparse
import os
import runpy
from pathlib import Path

from interleaved import machine
from same_results import commit_of

from sie_jax.config import ConversationConfig
from sie_jax.files import read_json, write_json
from sie_jax.recipes import conversation as recipe

ROOT = Path(__file__).parent.parent


def config_of() -> ConversationConfig:
    """The recipe's config."""
    made: ConversationConfig = runpy.run_path(str(ROOT / "configs" / "conversation.py"))[
        "get_config"
    ]()
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--chain", required=True)
    parser.add_argument("--pretrained", required=True)
    parser.add_argument("--workdir", type=Path, default=Path("runs/conversing"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    support = Path(os.environ["SIE_JAX_DATA"]) / "support"
    chats = {}
    for name, chain in (("words", ""), ("chain", given.chain)):
        config = config_of()
        config.chain = chain
        recipe.run(config, given.workdir / name)
        metrics = read_json(given.workdir / name / "metrics.json")
        kept = ("chats", "test", "difference", "asked_with", "validation", "effects", "verdict")
        chats[name] = {one: metrics[one] for one in kept}
    config = config_of()
    config.data.source = ""
    intents = config.intents
    intents.path, intents.validation_path, intents.test_path = (
        str(support / f"{name}.csv") for name in ("train", "dev", "test")
    )
    intents.text, intents.pretrained = "utterance", given.pretrained
    recipe.run(config, given.workdir / "intents")
    told = read_json(given.workdir / "intents" / "metrics.json")["intents"]
    del told["wrong"]
    write_json(
        given.out, {**machine(), "commit": commit_of("HEAD"), "searched": chats, "intents": told}
    )


if __name__ == "__main__":
    main()
