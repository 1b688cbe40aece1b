"""The closing line of a part that pytest runs, from its JUnit report: `N passed, N failed`. No report is a failure."""

import sys
import xml.etree.ElementTree as tree

try:
    suite = tree.parse(sys.argv[1]).getroot().find("testsuite")
    count = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
except (OSError, tree.ParseError, AttributeError):
    count = {"tests": 1, "failures": 1, "errors": 0, "skipped": 0}
bad = count["failures"] + count["errors"]
print(f"{max(0, count['tests'] - bad - count['skipped'])} passed, {bad} failed")
