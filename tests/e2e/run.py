#!/usr/bin/python3 -B
"""tests/e2e/run.py TEST_FILE... - run end-to-end tests; the last line counts them as Check does.

T=text runs only tests whose name (class and method) contains it. A test with failed subtests
counts as one. -v as the first argument names every test with the time it took.
"""

import os
import pathlib
import sys
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent


class Result(unittest.TextTestResult):
    """Counts tests, not subtests, and tells how long each one took."""

    def __init__(self, *args, **how):
        super().__init__(*args, **how)
        self.bad = {"failures": set(), "errors": set()}
        self.began = time.monotonic()

    def startTest(self, test):
        self.began = time.monotonic()
        super().startTest(test)

    def addSuccess(self, test):
        if self.showAll:
            self.stream.write(f"{time.monotonic() - self.began:6.2f} s ")
        super().addSuccess(test)

    def addFailure(self, test, err):
        self.bad["failures"].add(test.id())
        super().addFailure(test, err)

    def addError(self, test, err):
        self.bad["errors"].add(test.id())
        super().addError(test, err)

    def addSubTest(self, test, subtest, err):
        if err:
            kind = "failures" if issubclass(err[0], test.failureException) else "errors"
            self.bad[kind].add(test.id())
        super().addSubTest(test, subtest, err)


def main(args):
    verbose = args[:1] == ["-v"]
    names = [pathlib.Path(arg).stem for arg in args[verbose:]]
    sys.path.insert(0, str(HERE))
    loader = unittest.TestLoader()
    if os.environ.get("T"):
        loader.testNamePatterns = [f"*{os.environ['T']}*"]
    tests = loader.loadTestsFromNames(names or [p.stem for p in sorted(HERE.glob("test_*.py"))])
    runner = unittest.TextTestRunner(stream=sys.stdout, verbosity=2 if verbose else 1,
                                     resultclass=Result)
    result = runner.run(tests)
    failures = len(result.bad["failures"] - result.bad["errors"])
    errors = len(result.bad["errors"])
    ran = max(result.testsRun, failures + errors)  # setUpClass may fail before any test
    print(f"{100 * (ran - failures - errors) // max(ran, 1)}%: Checks: {ran}, "
          f"Failures: {failures}, Errors: {errors}")
    return not result.wasSuccessful()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
