"""Writes the README's generated tables: the coverage from the built package, the benchmarks from the stored JSONs.

usage: python tools/readme_tables.py [--check]        (--check: say whether the README is up to date, change nothing)
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
sys.path.insert(0, str(ROOT))


def coverage() -> str:
    """Every name with a kernel of ours, by the torch module it lives in."""
    from tensorops import info

    rows = [
        f"| `{place}` | {len(names)} | {' '.join(f'`{name}`' for name in names)} |"
        for place, names in info.coverage().items()
    ]
    return "\n".join(["| where torch has it | names | ours |", "|---|--:|---|", *rows])


def benchmarks() -> str:
    """The stored runs on CPUs, the latest first: families, headline rows, pictures."""
    from benchmarks import report

    documents = {path.stem: report.read(path) for path in RESULTS.glob("cpu*.json")}
    latest_first = sorted(documents.items(), key=lambda item: item[1]["machine"]["date"], reverse=True)
    tables = [report.markdown(document, stem).strip() for stem, document in latest_first]
    return "\n\n".join(tables) or "No run of this version is stored yet."


def main() -> None:
    """Replaces what stands between <!-- NAME --> and <!-- /NAME -->."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the README is not up to date")
    options = parser.parse_args()
    before = text = README.read_text()
    for name, table in (("coverage", coverage()), ("benchmarks", benchmarks())):
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(text):
            sys.exit(f"{README} has no place for {name}")
        text = pattern.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)
    if options.check:
        sys.exit("README.md: run python tools/readme_tables.py" if text != before else 0)
    README.write_text(text)


if __name__ == "__main__":
    main()
