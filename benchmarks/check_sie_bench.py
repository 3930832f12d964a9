"""Rebuilds the gains of every policy from the shops' numbers alone, and compares with the page.

    python benchmarks/check_sie_bench.py

It imports nothing of the bench: it reads benchmarks/results/sie_bench.json and the table in
docs/sie_bench.md, pairs, averages and corrects anew, names cells that differ and ends with 1.
"""

import json
import re
import sys
from pathlib import Path

from scipy import stats

ROOT = Path(__file__).parent.parent
PART = r"<!-- generated: sie-bench policies -->\n(.*?)\n<!-- end -->"
ORDER = [
    "missing_positive",
    "confusion",
    "annotator",
    "sellers",
    "position",
    "mixed",
    "mild",
    "none",
]

found = json.loads((ROOT / "benchmarks/results/sie_bench.json").read_text())["weight"]
p_of, gain_of = {}, {}
for fault, measured in found.items():
    for access, each in measured["accesses"].items():
        plain = each["arms"]["uniform"]["test"]
        rows = {name: arm["test"] for name, arm in each["arms"].items() if "gain" in arm}
        rows["chosen"] = [a + b for a, b in zip(plain, each["chosen"]["gains"], strict=True)]
        for name, row in rows.items():
            pairs = [(a, b) for a, b in zip(row, plain, strict=True) if a is not None]
            still = all(a == b for a, b in pairs)
            p_of[fault, access, name] = (
                1.0 if still else stats.ttest_1samp([a - b for a, b in pairs], 0).pvalue
            )
            gain_of[fault, access, name] = sum(a - b for a, b in pairs) / len(pairs)
bold, worst = {}, 0.0  # Holm, step by step
for place, key in enumerate(sorted(p_of, key=p_of.__getitem__)):
    worst = max(worst, (len(p_of) - place) * p_of[key])
    bold[key] = worst < 0.05
table = re.search(PART, (ROOT / "docs/sie_bench.md").read_text("utf-8"), re.DOTALL)
lines, differ = table[1].splitlines()[2:] if table else [], 0
for line in lines:
    name, *told, _, _ = (cell.strip(" `") for cell in line.strip("|").split("|"))
    for fault, cell in zip([one for one in ORDER if one in found], told, strict=True):
        key = (fault, "b", name)
        if key in gain_of:
            value = float(cell.strip("*").replace("−", "-"))
            if abs(value - gain_of[key]) > 6e-4 or cell.startswith("**") != bold[key]:
                differ += 1
                print(f"{name}, {fault}: the page has {cell}, here {gain_of[key]:+.4f}")
print(f"{len(lines)} policies under {len(found)} faults: {differ} cells differ")
sys.exit(bool(differ or not lines))
