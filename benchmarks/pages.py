"""Writes the generated parts of docs/: measured tables, the config's fields, pictures.

    python benchmarks/pages.py            # rewrites the pages in place
    python benchmarks/pages.py --check    # names what would change, and ends with 1 if any would

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`; the rest of a page is written
by hand. Measured tables are made from the result files in benchmarks/results. The tables of fields
are made from the config's dataclasses and the comments beside their fields. tests/test_docs.py
checks that the committed pages are what this script writes.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import importance_page
import page_audit
import page_costs
import page_fields
import page_finding
import page_quality
import page_sie_bench
import page_tables

ROOT = Path(__file__).resolve().parent.parent
PART = re.compile(r"<!-- generated: (?P<name>[^>]+) -->\n(?P<body>.*?)<!-- end -->", re.DOTALL)
PARTS: dict[str, Callable[[], str]] = {
    **page_fields.PARTS,
    **page_tables.PARTS,
    **page_audit.PARTS,
    **page_quality.PARTS,
    **page_costs.PARTS,
    **page_sie_bench.PARTS,
    **page_finding.PARTS,
    **importance_page.PARTS,
}
"""What each generated part holds, by the name in its marker."""
PICTURES = (importance_page.PICTURE, page_sie_bench.PICTURE)


def pages() -> list[Path]:
    """All pages that may have generated parts."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def names(text: str) -> list[str]:
    """The names of a page's generated parts."""
    return [part["name"] for part in PART.finditer(text)]


def written(text: str) -> str:
    """The page with each of its generated parts made anew."""
    return PART.sub(
        lambda part: f"<!-- generated: {part['name']} -->\n{PARTS[part['name']]()}\n<!-- end -->",
        text,
    )


def outdated() -> Iterator[tuple[Path, str, list[str]]]:
    """Each page that differs from what would be written, with that, and the names of the parts."""
    for page in pages():
        text = page.read_text("utf-8")
        made = written(text)
        if made != text:
            pairs = zip(PART.finditer(text), PART.finditer(made), strict=True)
            yield page, made, [old["name"] for old, new in pairs if old["body"] != new["body"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    verb, changes = "outdated" if check else "written", 0
    for page, made, parts in outdated():
        changes += 1
        print(f"{verb}: {page.relative_to(ROOT)}: {', '.join(parts)}")
        if not check:
            page.write_text(made, "utf-8")
    for picture in PICTURES:
        if picture.outdated():
            changes += 1
            print(f"{verb}: {picture.path.relative_to(ROOT)}")
            if not check:
                picture.draw()
    sys.exit(1 if check and changes else 0)


if __name__ == "__main__":
    main()
