"""Do kills and Ctrl-C at random moments leave outputs whole or absent, and inputs untouched?

    python benchmarks/kills.py     # some ten minutes on two cores

Each of `predict` and `audit --apply` is run once in peace, and then killed at twenty random moments
(the seed is committed), by `kill -9` and by SIGINT in turn: five of them while it starts, from 0.3
seconds on, and the others after it has begun to write. Half of the time an older output is there
before. After each kill the output has to be the older one, the new one, or absent where there was
none; the inputs have to be as they were; and the same command has to end with the same bytes as the
one in peace. Exits 1 where one of these does not hold, or where Ctrl-C ends in anything but one
line and 130.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.csv
from flax import nnx
from interleaved import machine
from same_results import commit_of
from transformers import BertConfig

from sie_jax.data import tokenization
from sie_jax.data.sources import synthetic
from sie_jax.files import digests, write_json
from sie_jax.models import PairClassifier
from sie_jax.serving import Settings

RESULTS = Path(__file__).parent / "results" / "kills.json"
SEED, KILLS, FROM_SECONDS = 0, 20, 0.3
LABELS = "ICSE"


class Command(NamedTuple):
    """A command without its output; `older` are flags that make it leave something else."""

    words: Sequence[str]
    older: Sequence[str]
    output: Path
    inputs: Sequence[Path]

    def start(self, flags: Sequence[str] = ()) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", *self.words, *flags, f"--output={self.output}"]
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def finish(self, flags: Sequence[str] = ()) -> bytes:
        process = self.start(flags)
        _, said = process.communicate()
        if process.returncode:
            sys.exit(f"{self.words}: {said}")
        return self.output.read_bytes()

    def files(self) -> list[Path]:
        """The output and what is called after it."""
        return [path for path in self.output.parent.glob(f"*{self.output.stem}*") if path.is_file()]

    def put(self, contents: dict[Path, bytes]) -> None:
        """Leaves these files as they were, and no other that is called after the output."""
        for path in self.files():
            path.unlink()
        for path, content in contents.items():
            path.write_bytes(content)

    def has_begun(self) -> bool:
        """Whether it has begun to write."""
        folder, name = self.output.parent, self.output.name
        return (folder / f"{name}.parts").exists() or (folder / f".{name}.tmp").exists()


def commands(folder: Path, rows: int) -> dict[str, Command]:
    """Both commands with their inputs."""
    table = synthetic.read(queries=rows // 20, items_per_query=20, seed=5, dirt=0.0).table
    pairs, corrections = folder / "pairs.csv", folder / "corrections.csv"
    pyarrow.csv.write_csv(table.select(["example_id", "query", "title", "label"]), pairs)
    ids = table["example_id"].to_pylist()
    lines = [f"{one},{LABELS[place % 4]}" for place, one in enumerate(ids[::50])]
    corrections.write_text("\n".join(["example_id,corrected_label", *lines, ""]))
    texts = table["query"].to_pylist() + table["title"].to_pylist()
    tokenizer = tokenization.train(texts, vocabulary_size=500)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        id2label=dict(enumerate(LABELS)),
        label2id={label: place for place, label in enumerate(LABELS)},
    )
    model = folder / "model"
    PairClassifier(config, num_labels=len(LABELS), rngs=nnx.Rngs(0)).save_pretrained(model)
    tokenizer.save_pretrained(model)
    Settings((0.0, 0.01, 0.1, 1.0), 32).write(model)
    of_audit = ["sie_jax.audit", f"--pairs={pairs}", f"--labels={','.join(LABELS)}"]
    of_audit += [f"--apply={corrections}", "--example_id=example_id"]
    return {
        "predict": Command(
            ["sie_jax.predict", f"--model={model}", f"--input={pairs}"],
            ["--query=title"],
            folder / "scored.parquet",
            [pairs, model],
        ),
        "audit --apply": Command(
            of_audit, ["--label=title"], folder / "corrected.csv", [pairs, corrections]
        ),
    }


def content(paths: Sequence[Path]) -> list[dict[str, str]]:
    return [digests(path) for path in paths]


def timed(command: Command) -> tuple[float, float, bytes]:
    """The seconds until it writes and from there to its end, in peace; and its output."""
    started = time.perf_counter()
    process = command.start()
    while process.poll() is None and not command.has_begun():
        time.sleep(0.001)
    begun = time.perf_counter()
    _, said = process.communicate()
    if process.returncode:
        sys.exit(f"{command.words}: {said}")
    return begun - started, time.perf_counter() - begun, command.output.read_bytes()


def killed(
    command: Command,
    delay: float,
    number: signal.Signals,
    *,
    working: bool,
    before: dict[Path, bytes],
) -> tuple[dict[str, Any], bytes]:
    """Kills a command once, so long after its start or after it has begun to write; resumes it."""
    command.put(before)
    inputs = content(command.inputs)
    process = command.start()
    while working and process.poll() is None and not command.has_begun():
        time.sleep(0.001)
    try:
        _, said = process.communicate(timeout=delay)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        _, said = process.communicate()
    folder = command.output.with_name(f"{command.output.name}.parts")
    parts = len(list(folder.glob("part-*")))
    after = command.output.read_bytes() if command.output.exists() else None
    untouched = content(command.inputs) == inputs
    final = command.finish()
    states = {"as before": after == before.get(command.output), "new": after == final}
    return {
        "signal": number.name,
        "while": "writing" if working else "starting",
        "after_seconds": round(delay, 3),
        "exit_code": process.returncode,
        "said": said.strip().splitlines(),
        "older_output": bool(before),
        "output": next((state for state, holds in states.items() if holds), "damaged"),
        "parts_kept": parts,
        "inputs_untouched": untouched and content(command.inputs) == inputs,
    }, final


def holds(kill: dict[str, Any]) -> bool:
    """Whether a kill did no harm, and Ctrl-C was answered as it should be."""
    answered = kill["exit_code"] == -signal.SIGKILL
    if kill["exit_code"] == 130:
        answered = len(kill["said"]) == 1
    return (
        answered
        and kill["output"] != "damaged"
        and kill["inputs_untouched"]
        and kill["same_bytes_resumed"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=16_000)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    draw = random.Random(SEED)
    found: dict[str, Any] = {"rows": options.rows, "seed": SEED}
    with tempfile.TemporaryDirectory() as folder:
        for name, command in commands(Path(folder), options.rows).items():
            command.finish(command.older)  # what is compiled is kept
            older = {path: path.read_bytes() for path in command.files()}
            command.put({})
            start, work, wanted = timed(command)
            kills = []
            for turn in range(options.kills):
                working = turn % 4 > 0
                delay = draw.uniform(0, work) if working else draw.uniform(FROM_SECONDS, start)
                number = (signal.SIGKILL, signal.SIGINT)[turn // 4 % 2 ^ turn % 2]
                before = older if turn // 2 % 2 else {}
                kill, final = killed(command, delay, number, working=working, before=before)
                while kill["exit_code"] == 0:  # it was faster than in peace, and had ended
                    delay /= 2
                    kill, final = killed(command, delay, number, working=working, before=before)
                kills.append({**kill, "same_bytes_resumed": final == wanted})
                print(name, kills[-1], flush=True)
            found[name] = {
                "seconds_in_peace": {"starting": round(start, 2), "writing": round(work, 2)},
                "held": sum(map(holds, kills)),
                "kills": kills,
            }
        found |= {**machine(), "commit": commit_of("HEAD")}
    write_json(options.out, found)
    if any(found[name]["held"] < options.kills for name in ("predict", "audit --apply")):
        sys.exit(1)


if __name__ == "__main__":
    main()
