"""Every test of docs/security.md, with the defence that it is about taken out: it must fail then, and pass before.

The tree is copied, a switch is written into the copy at each defence (the product itself has none: nobody can build a
Carillon that is open by mistake), the tests are built once, and each is run with each of its defences switched off.
A defence counts as noticed only where the test was run and failed: a name that no test has, a test that was left out,
one that never ended and a program that cannot be started are faults of this list, and are reported as such.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

from catalogue import DEFENCES, K, P

ROOT = Path(__file__).resolve().parents[2]
# Apart from other builds: no other part may meet a program whose defences can be taken out.
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "mutants"
COPY = TARGET / "defences"
OUTPUT = COPY / "tests/output/outside"
# What a test may take, seconds: the machine may be busy, and without a defence some wait for their own deadlines.
PATIENCE = 600
PASSED, FAILED = "passed", "failed"


def switched():
    """The source files with their switches, by path; and the defences that are not where they are expected."""
    texts, missing = {}, []
    for defence in DEFENCES:
        text = texts.get(defence.file)
        if text is None:
            path = ROOT / defence.file
            text = path.read_text() if path.exists() else ""
        if text.count(defence.was) != 1:
            missing.append(f"{defence.name}: {defence.file} has {text.count(defence.was)} times, and not once: {defence.was}")
        texts[defence.file] = text.replace(defence.was, defence.becomes)
    return texts, missing


def written(text):
    """The names of defences in the tables of a page."""
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    # In brackets, alone or several; `resync` (`invalid`) is a message and its reason.
    groups = [group for row in rows for group in re.findall(r"\(((?:`[a-z0-9-]+`(?:, )?)+)\)", row)]
    return {name for group in groups for name in re.findall(r"`([a-z0-9-]+)`", group)} - {"invalid"}


def check():
    """What is wrong with the list itself: defences that moved, names that the page lacks, tests that are nowhere."""
    _, wrong = switched()
    page = written((ROOT / "docs/security.md").read_text())
    wrong += [f"{defence.name}: docs/security.md does not name it" for defence in DEFENCES if defence.name not in page]
    wrong += [f"{name}: docs/security.md names it, and there is no switch" for name in sorted(page - {defence.name for defence in DEFENCES})]
    beside = "".join(path.read_text() for path in ROOT.glob("src/**/*.rs"))
    for place, name in sorted({test for defence in DEFENCES for test in defence.tests}):
        if place == P:
            file, name = name.split("::")
            text = (ROOT / "tests/acceptance" / file).read_text()
        else:
            text = beside if place == K else (ROOT / f"tests/integration/{place}.rs").read_text()
        if not re.search(rf"\b(?:fn|def) {name}\(", text):
            wrong.append(f"{place}::{name}: there is no such test")
    return wrong


def put(source, target, text=None):
    """Copies a file, or writes its text, where the copy has another: what is as before is not built again."""
    data = source.read_bytes() if text is None else text.encode()
    if target.exists() and target.read_bytes() == data:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    shutil.copymode(source, target)


def copy():
    """The tree with a switch at every defence, in a folder of the target directory."""
    texts, missing = switched()
    if missing:
        sys.exit("these defences are not where they were; look whether they are still there, and tell tests/defences/catalogue.py:\n" + "\n".join(missing))
    listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True).stdout
    files = {name for name in listed.decode().split("\0") if name and (ROOT / name).is_file() and not name.startswith("fuzz/")}
    for name in files:
        put(ROOT / name, COPY / name, texts.get(name))
    # What was deleted or renamed must not be built.
    for path in COPY.glob("**/*.rs"):
        if str(path.relative_to(COPY)) not in files:
            path.unlink()
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    tools = COPY / "tests/.tools"
    if not tools.is_symlink():
        tools.symlink_to(ROOT / "tests/.tools")


def call(command, cwd, off=None, patience=None):
    """Runs a command with a defence off: its exit code (None: it did not end), and what it printed."""
    env = {**os.environ, "CARGO_TARGET_DIR": str(TARGET), "CARILLON_BIN": str(TARGET / "debug/carillon"), "CARILLON_TEST_OUTPUT": str(OUTPUT)}
    env.pop("CARILLON_MUTANT", None)
    if off:
        env["CARILLON_MUTANT"] = off
    process = subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)
    try:
        printed, _ = process.communicate(timeout=patience)
        return process.returncode, printed
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        printed, _ = process.communicate()
        return None, printed


class Built:
    """The programs of the tests, and the full names of the tests in them."""

    def __init__(self):
        command = ["cargo", "test", "--no-run", "--locked", "--features", "mutants", "--lib", "--test", "integration", "--message-format", "json-render-diagnostics"]
        code, printed = call(command, COPY)
        if code != 0:
            sys.exit(printed)
        self.programs, self.names = {}, {}
        for line in printed.splitlines():
            artifact = json.loads(line) if line.startswith("{") else {}
            if artifact.get("executable") and artifact["profile"]["test"]:
                target = artifact["target"]
                if target["name"] in ("carillon", "integration"):
                    self.programs[K if "lib" in target["kind"] else "integration"] = artifact["executable"]
        for place, program in self.programs.items():
            _, listed = call([program, "--list"], COPY)
            self.names[place] = [line.removesuffix(": test") for line in listed.splitlines() if line.endswith(": test")]

    def full_name(self, place, name):
        """A test's name in its program: a module of the integration tests, or anywhere in the library."""
        if place != K:
            return f"{place}::{name}" if f"{place}::{name}" in self.names["integration"] else None
        found = [full for full in self.names[K] if full.endswith(f"::{name}")]
        return found[0] if len(found) == 1 else None

    def run(self, tests, off=None):
        """Runs tests of cargo and of pytest: what became of each, in one word or more, and what was printed."""
        verdicts, printed = {}, ""
        for kind in (K, "integration"):
            these = [test for test in tests if test[0] != P and (test[0] == K) == (kind == K)]
            names = {test: self.full_name(*test) for test in these}
            verdicts |= {test: "there is no such test" for test in these if not names[test]}
            wanted = sorted({name for name in names.values() if name})
            if wanted:
                code, more = call([self.programs[kind], "--exact", *wanted], COPY, off, PATIENCE + 30 * len(wanted))
                printed += more
                for test in these:
                    if names[test]:
                        verdicts[test] = libtest(names[test], more, code, alone=len(wanted) == 1)
        outside = sorted({test for test in tests if test[0] == P})
        if outside:
            code, more = call([ROOT / "tests/acceptance/run", *(f"tests/acceptance/{name}" for _, name in outside)], ROOT, off, PATIENCE + 120 * len(outside))
            printed += more
            verdicts |= pytest(outside, code)
        return verdicts, printed


def libtest(name, printed, code, alone):
    """What became of a test, by the report of its program."""
    if code is None:
        return "it did not end"
    if alone:
        # By the sum: what the test's own programs print may stand in the middle of its line.
        said = re.search(r"^test result: \w+\. (\d+) passed; (\d+) failed;", printed, re.MULTILINE)
        if said and (said[1], said[2]) in (("1", "0"), ("0", "1")):
            return PASSED if said[1] == "1" else FAILED
        # It may also bring its own program down: a stack that overflows, memory that ends.
        return FAILED if code < 0 and "running 1 test" in printed else "it was not run"
    said = re.search(rf"^test {re.escape(name)} \.\.\. (ok|FAILED)$", printed, re.MULTILINE)
    return {"ok": PASSED, "FAILED": FAILED}[said[1]] if said else "it was not run"


def pytest(tests, code):
    """What became of tests, by the JUnit report of this run."""
    report = OUTPUT.with_name(OUTPUT.name + ".xml")
    cases = xml.parse(report).getroot().iter("testcase") if code is not None and report.exists() else ()
    cases = [(case.get("name").split("[")[0], {child.tag for child in case}) for case in cases]
    verdicts = {}
    for test in tests:
        mine = [tags for name, tags in cases if name == test[1].split("::")[1]]
        if code is None or not mine:
            verdicts[test] = "it did not end" if code is None else "it was not run"
        elif any("error" in tags for tags in mine):
            verdicts[test] = "it could not be set up or cleared away"
        elif any("failure" in tags for tags in mine):
            verdicts[test] = FAILED
        else:
            verdicts[test] = "it was left out" if any("skipped" in tags for tags in mine) else PASSED
    return verdicts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("defences", nargs="*", help="these only")
    parser.add_argument("--list", action="store_true", help="print defences and tests, and do nothing")
    parser.add_argument("--check", action="store_true", help="only look whether sources, page and tests are as this list says")
    options = parser.parse_args()
    unknown = set(options.defences) - {defence.name for defence in DEFENCES}
    if unknown:
        sys.exit(f"there is no defence {', '.join(sorted(unknown))} (--list names them)")
    chosen = [defence for defence in DEFENCES if not options.defences or defence.name in options.defences]
    if options.list:
        for defence in chosen:
            print(f"{defence.name:<18} {defence.file:<26} " + ", ".join(f"{place}::{name}" for place, name in defence.tests))
        return 0
    wrong = check()
    if options.check or wrong:
        print("\n".join(wrong) or f"{len(DEFENCES)} defences are where they should be, and docs/security.md names them")
        return 1 if wrong else 0
    copy()
    built = Built()
    verdicts, printed = built.run([test for defence in chosen for test in defence.tests])
    bad = {test: verdict for test, verdict in verdicts.items() if verdict != PASSED}
    print("all defences in place: " + ("passed" if not bad else "; ".join(f"{place}::{name}: {verdict}" for (place, name), verdict in bad.items())), flush=True)
    if bad:
        print(printed)
    failed = 1 if bad else 0
    for defence in chosen:
        # Each test by itself: every one of them must notice.
        slept = []
        for test in defence.tests:
            verdict = built.run([test], defence.name)[0][test]
            slept += [] if verdict == FAILED else [f"{test[1]} ({verdict})"]
        print(f"without {defence.name:<18} " + (f"NOT NOTICED by {', '.join(slept)}" if slept else "noticed by " + ", ".join(name for _, name in defence.tests)), flush=True)
        failed += bool(slept)
    print(f"{len(chosen) + 1 - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
