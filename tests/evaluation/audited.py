"""Tables with predictions that tests audit."""

from pathlib import Path

from sie_jax.commands import audit as command
from sie_jax.evaluation import audit


def table_with_predictions(path: Path, **changed: str) -> list[str]:
    cells = {"bad": "0.25", "good": "0.75"} | changed
    lines = [
        "query,name,grade,probability_bad,probability_good",
        "red shoes,shoes,bad,0.9,0.1",
        f"red shoes,=lamp,good,{cells['bad']},{cells['good']}",
        "blue hose,hose,good,1,0",
        "blue hose,case,strange,0.5,0.5",
        "blue hose",
    ]
    path.write_text("\n".join(lines))
    return ["--pairs", str(path), "--labels=bad,good", "--title=name", "--label=grade"]


PLAIN = """\
query,title,label,brand,rank,probability_0,probability_1
red shoes,shoes,1.0,a,7,0.9,0.1
red shoes,shoe,0,b,8,0.3,0.7
red shoes,lamp,0,,9,0.6,0.4
blue hose,hose,1,c,1,0.2,0.8
blue hose,hose,0,c,2,0.2,0.8
blue hose,"=case",1,d,3,0.25,0.75
"""


def plain(tmp_path: Path, *flags: str, text: str = PLAIN) -> list[dict[str, str]]:
    """The list of a table whose labels are 0 and 1, which the flags do not name."""
    (tmp_path / "pairs.csv").write_text(text)
    output = tmp_path / "audit.csv"
    done = command.entry(
        ["audit", f"--pairs={tmp_path / 'pairs.csv'}", f"--output={output}", *flags]
    )
    return audit.read(output, most=10) if done == 0 else []
