"""Rebuilds the gains of every policy from the shops' numbers alone, and compares with the page.

    python benchmarks/check_sie_bench.py

By another route than the page: it reads benchmarks/results/sie_bench.json and the table in
docs/sie_bench.md, imports nothing of the bench, and pairs, averages and corrects anew. It ends with
1 and names the cells that differ.
"""

import json
import re
import sys
from pathlib import Path

from scipy import stats

ROOT = Path(__file__).parent.parent
PART = r"<!-- generated: sie-bench policies -->\n(.*?)\n<!-- end -->"


def main() -> None:
    found = json.loads((ROOT / "benchmarks/results/sie_bench.json").read_text())["weight"]
    p_of, gain_of = {}, {}
    for fault, measured in found.items():
        for access, each in measured["accesses"].items():
            plain = each["arms"]["uniform"]["test"]
            rows = {name: arm["test"] for name, arm in each["arms"].items() if "gain" in arm}
            rows["chosen"] = [a + b for a, b in zip(plain, each["chosen"]["gains"], strict=True)]
            for name, row in rows.items():
                pairs = [(a, b) for a, b in zip(row, plain, strict=True) if a is not None]
                same = all(a == b for a, b in pairs)
                p = 1.0 if same else stats.ttest_rel(*zip(*pairs, strict=True)).pvalue
                p_of[fault, access, name] = float(p)
                gain_of[fault, access, name] = sum(a - b for a, b in pairs) / len(pairs)
    bold, worst = {}, 0.0  # Holm, step by step
    for place, key in enumerate(sorted(p_of, key=p_of.__getitem__)):
        worst = max(worst, (len(p_of) - place) * p_of[key])
        bold[key] = worst < 0.05
    page = (ROOT / "docs" / "sie_bench.md").read_text("utf-8")
    table = re.search(PART, page, re.DOTALL)[1].splitlines()
    order = [fault for fault in ORDER if fault in found]
    differ = 0
    for line in table[2:]:
        name, *told = (cell.strip(" `") for cell in line.strip("|").split("|"))
        for fault, cell in zip(order, told, strict=True):
            key = (fault, "b", name)
            if key in gain_of:
                value = float(cell.strip("*").replace("−", "-"))
                if abs(value - gain_of[key]) > 6e-4 or cell.startswith("**") != bold[key]:
                    differ += 1
                    print(f"{name}, {fault}: the page has {cell}, here {gain_of[key]:+.4f}")
    print(f"{len(table) - 2} policies under {len(order)} faults: {differ} cells differ")
    sys.exit(differ > 0)


ORDER = ["missing_positive", "confusion", "annotator", "sellers", "position", "mixed", "none"]
if __name__ == "__main__":
    main()
