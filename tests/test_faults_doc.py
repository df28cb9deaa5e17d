"""docs/faults.md promises nothing without a test: every test that it names exists, and every row names one."""

import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
ROWS = [line for line in (PROJECT / "docs/faults.md").read_text().splitlines() if line.startswith("| ")]
TESTS = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_row_names_tests_that_exist():
    rows = [row for row in ROWS if not row.startswith("| injected")]
    assert rows
    for row in rows:
        found = TESTS.findall(row.split("|")[3])
        assert found, row
        for file, name in found:
            assert f"def {name}(" in (PROJECT / file).read_text(), (file, name)
