"""Searches everything that the suite printed for the secrets and tokens that it used.

What was printed: tests/output, with the logs of the parts and, under tests/output/acceptance, those of every node and
Redis of the last run. Secrets: every constant of the tests whose name says so. Tokens: whatever looks like one. To show
that it would find something, it first plants one of each.
"""

import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "tests/output"
TOKEN = re.compile(rb"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}")
CONSTANT = re.compile(r"\b([A-Z_]*(?:SECRET|PASSWORD|PUBLISH_TOKEN|PREVIOUS))\b(?::\s*&(?:'static )?str)?\s*=\s*['\"]([^'\"]{12,})['\"]")


def secrets():
    """What the tests' sources call a secret."""
    found = {}
    for suffix in ("py", "rs", "js", "cjs"):
        for folder in ("tests", "src"):
            for file in (ROOT / folder).rglob(f"*.{suffix}"):
                if "node_modules" in file.parts or ".tools" in file.parts:
                    continue
                for name, value in CONSTANT.findall(file.read_text(errors="replace")):
                    found[value.encode()] = f"{name} of {file.relative_to(ROOT)}"
    return found


def search(folder, known):
    """`(file, what)` for every finding; also how many files were read."""
    findings, read = [], 0
    for file in sorted(folder.rglob("*")):
        if not file.is_file() or file.suffix not in (".log", ".xml", ".txt", ".json", ".jsonl"):
            continue
        read += 1
        text = file.read_bytes()
        findings += [(file, name) for value, name in known.items() if value in text]
        # `carillon dev` prints a token of its own on purpose, for whoever tries it out.
        tokens = set() if file.name == "dev.log" else set(TOKEN.findall(text))
        findings += [(file, f"a token ({token[:12].decode()}…)") for token in tokens]
    return findings, read


def planted(known):
    """Whether what was put into a log on purpose is found."""
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "node-1" / "node.log"
        log.parent.mkdir()
        secret = next(iter(known))
        log.write_bytes(b"INFO a session came ?token=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm5hIn0.c2lnbmF0dXJl\nWARN " + secret + b"\n")
        return len(search(Path(place), known)[0]) == 2


def main():
    known = secrets()
    findings, read = search(OUTPUT, known)
    failed = []
    if len(known) < 5 or not planted(known):
        failed.append("the search does not find what was planted")
    if read == 0:
        failed.append(f"nothing was printed: {OUTPUT.relative_to(ROOT)} is empty")
    for file, what in findings:
        print(f"{file.relative_to(ROOT)}: {what}")
    if findings:
        failed.append("secrets or tokens were printed")
    print(f"searched {read} files for {len(known)} secrets and for tokens: {len(findings)} findings")
    for what in failed:
        print(f"FAILED: {what}")
    print(f"{2 - min(2, len(failed))} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
