"""docs/conformance.md names a test for every rule, and every test that it names exists."""

import re
import unittest

from hub import ROOT

DOC = ROOT / "docs" / "conformance.md"
NAMED = re.compile(r"`(\w+) (\w+)`")


def tests_in(path):
    found = re.findall(r"^    (?:async )?def (test_\w+)\(|^RH_TEST\(\w+, (\w+)\)",
                       path.read_text() if path.exists() else "", re.MULTILINE)
    return {python or c for python, c in found}


def tests_of(file):
    """Of all files that a short name may stand for."""
    return set().union(*map(tests_in, [
        ROOT / f"tests/e2e/test_conformance_{file}.py", ROOT / f"tests/e2e/test_{file}.py",
        *ROOT.glob(f"tests/*/test_{file}.c")]))


class Table(unittest.TestCase):

    def rows(self):
        for number, line in enumerate(DOC.read_text().splitlines(), 1):
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if line.startswith("|") and not set(line) <= set("|- ") and cells[0] != "section":
                yield number, cells

    def test_every_row_is_whole(self):
        rows = list(self.rows())
        self.assertGreater(len(rows), 80)
        for number, cells in rows:
            with self.subTest(line=number):
                self.assertEqual(len(cells), 4)
                self.assertTrue(all(cells), cells)

    def test_every_rule_names_tests_that_exist(self):
        for number, cells in self.rows():
            named = NAMED.findall(cells[3])
            with self.subTest(line=number):
                self.assertTrue(named, cells[0])
                self.assertEqual(NAMED.sub("", cells[3]).strip(), "", "something that is no test")
                for file, name in named:
                    self.assertIn(name, tests_of(file), f"in {file}")

    def test_every_test_of_the_conformance_files_stands_for_a_rule(self):
        named = {name for _, name in NAMED.findall(DOC.read_text())}
        for path in sorted(ROOT.glob("tests/e2e/test_conformance_*.py")):
            if path.stem != "test_conformance_doc":
                with self.subTest(path.name):
                    self.assertEqual(sorted(tests_in(path) - named), [])


if __name__ == "__main__":
    unittest.main()
