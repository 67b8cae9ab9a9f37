"""The installed package: its files, its documentation, and its examples."""

import doctest
import importlib
import pkgutil
import subprocess
import sys
import sysconfig
import unittest
from importlib import metadata
from pathlib import Path

import graphile_worker
from graphile_worker import _native
from harness import PACKAGE, DatabaseTest

HELLO = PACKAGE / "examples/hello.py"


class InstallTest(unittest.TestCase):
    def test_the_installed_package_is_tested_and_brings_library_and_types(self):
        folder = Path(graphile_worker.__file__).parent
        self.assertEqual(folder.parent, Path(sysconfig.get_path("purelib")))
        self.assertEqual(_native.library_path().parent, folder)
        self.assertTrue((folder / "py.typed").is_file())

    def test_the_wheel_is_for_every_python_of_the_platform(self):
        wheel = metadata.distribution("graphile-worker-native").read_text("WHEEL")
        tag = next(line for line in wheel.splitlines() if line.startswith("Tag:"))
        self.assertRegex(tag, r"^Tag: py3-none-(?!any)\w+$")
        self.assertIn("Root-Is-Purelib: false", wheel)

    def test_it_needs_nothing_else(self):
        self.assertEqual(metadata.distribution("graphile-worker-native").requires or [], [])

    def test_a_library_of_another_version_is_refused_with_both_numbers(self):
        maps = Path("/proc/self/maps").read_text().splitlines()
        libc = next(line.split()[-1] for line in maps if "libc.so.6" in line)
        for library, words in [(libc, "gw_abi_version"), ("/nowhere/lib.so", "GRAPHILE_WORKER_LIBRARY")]:
            answer = subprocess.run(
                [sys.executable, "-c", "import graphile_worker"], capture_output=True, text=True,
                env={"GRAPHILE_WORKER_LIBRARY": library},
            )
            self.assertNotEqual(answer.returncode, 0)
            self.assertIn(words, answer.stderr)


class DocumentationTest(unittest.TestCase):
    def test_every_public_name_says_what_it_is(self):
        without = []
        for name in graphile_worker.__all__:
            value = getattr(graphile_worker, name)
            if name == "Duration":
                continue
            members = vars(value).items() if isinstance(value, type) else ()
            without += [name] if not value.__doc__ else []
            without += [
                f"{name}.{member}" for member, body in members
                if not member.startswith("_") and (callable(body) or isinstance(body, property)) and not body.__doc__
            ]
        self.assertEqual(without, [])

    def test_the_first_program_of_the_readme_is_the_example(self):
        readme = (PACKAGE / "README.md").read_text(encoding="utf-8")
        block = readme.split("```python\n", 1)[1].split("```", 1)[0]
        self.assertEqual(block, HELLO.read_text(encoding="utf-8"))


class ExampleTest(DatabaseTest):
    def test_the_example_greets(self):
        program = self.program(HELLO.read_text(encoding="utf-8"))
        self.assertEqual(program.line(), "Hello, Ada!")
        self.assertEqual(program.ended(), 0, program.errors())


def load_tests(loader, tests, pattern):
    """The examples in the documentation are tests as well."""
    for module in pkgutil.iter_modules(graphile_worker.__path__, "graphile_worker."):
        # The library lies beside the modules, and looks like one that is written in C.
        if not module.name.endswith(("__main__", "libgraphile_worker")):
            tests.addTests(doctest.DocTestSuite(importlib.import_module(module.name)))
    return tests


if __name__ == "__main__":
    unittest.main()
