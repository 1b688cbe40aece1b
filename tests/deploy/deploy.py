"""Runs the checks of files.py, charts.py, release.py, proxies.py and logs.py, prints one line each, and counts."""

import asyncio
import os
import sys
import time
import traceback
from pathlib import Path

import charts
import files
import logs
import proxies
import proxy_site
import release

ROOT = Path(__file__).resolve().parents[2]


def binary():
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    candidates = [Path(os.environ["CARILLON_BIN"])] if "CARILLON_BIN" in os.environ else [target / "debug/carillon", target / "release/carillon"]
    for path in candidates:
        if path.exists():
            return str(path.resolve())
    sys.exit(f"no program to test with: run `cargo build` or set CARILLON_BIN (looked at {', '.join(map(str, candidates))})")


async def main():
    program = binary()
    passed = failed = 0

    async def one(sentence, body):
        nonlocal passed, failed
        began = time.monotonic()
        try:
            note = await body()
            passed += 1
            print(f"ok    {sentence} ({time.monotonic() - began:.1f} s){': ' + note if note else ''}", flush=True)
        except Exception as error:
            failed += 1
            print(f"FAIL  {sentence} ({time.monotonic() - began:.1f} s): {error}", flush=True)
            if not isinstance(error, AssertionError):
                traceback.print_exc()

    for sentence, body in [*files.checks(program), *charts.checks(program), *release.checks(program)]:
        await one(sentence, body)
    try:
        async with proxy_site.Site(program) as site:
            for sentence, body in proxies.checks(site):
                await one(sentence, body)
            for sentence, body in logs.checks(site, proxy_site.SECRET, proxy_site.request):
                await one(sentence, body)
    except AssertionError as error:
        failed += 1
        print(f"FAIL  Redis and three nodes start: {error}", flush=True)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
