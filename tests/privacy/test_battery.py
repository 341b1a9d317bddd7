"""The table of checks in docs/privacy.md and the tests are about the same."""

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
IDS = re.compile(r"[A-H]\d{1,2}(?:, [A-Z]\d{1,2})*(?=[:.,; ])")
BEGUN = re.compile(r'"""\s*[A-H]\d')  # a text without it has no docstring that begins with an id
LETTERS = "ABCDGH"  # accounting, mechanism, choice of rows and sites, audits, security, words
ROW = re.compile(rf"^\| ([{LETTERS}]\d{{1,2}}) \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
NEEDED = {
    f"{letter}{number}"
    for letter, last in (("A", 11), ("B", 13), ("C", 3), ("D", 8), ("G", 7), ("H", 3))
    for number in range(1, last + 1)
}


@cache
def ids_in_tests() -> dict[str, set[str]]:
    """Return {id: the files with a test whose docstring begins with it}."""
    found = defaultdict(set)
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text("utf-8")
        if not BEGUN.search(text):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (match := IDS.match(ast.get_docstring(node) or "")):
                assert node.name.startswith("test_"), node.name
                for name in match[0].split(", "):
                    found[name].add(str(path.relative_to(ROOT)))
    return {name: files for name, files in found.items() if name[0] in LETTERS}


def rows_in_docs() -> dict[str, set[str]]:
    """Return {id: the files its row names}."""
    text = (ROOT / "docs" / "privacy.md").read_text("utf-8")
    return {row[1]: set(re.findall(r"`(tests/[^`]+)`", row[4])) for row in ROW.finditer(text)}


def test_the_table_of_checks_is_that_of_the_tests():
    """Each id has a test and a row, and the row names the files that have it."""
    assert rows_in_docs() == ids_in_tests()


def test_no_check_is_missing():
    assert set(ids_in_tests()) >= NEEDED
