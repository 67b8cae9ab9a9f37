"""The installed package: its files, its documentation, and its examples."""

import doctest
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import unittest
from importlib import metadata
from pathlib import Path

import graphile_worker
from graphile_worker import _native
from harness import CHECKOUT, PACKAGE, DatabaseTest

HELLO = PACKAGE / "examples/hello.py"


class InstallTest(unittest.TestCase):
    def test_the_installed_package_has_the_library_and_types(self):
        folder = Path(graphile_worker.__file__).parent
        self.assertEqual(folder.parent, Path(sysconfig.get_path("purelib")))
        self.assertEqual(_native.library_path().parent, folder)
        self.assertTrue((folder / "py.typed").is_file())

    def test_the_wheel_is_for_every_python_of_the_platform(self):
        wheel = metadata.distribution("graphile-worker-native").read_text("WHEEL")
        tag = next(line for line in wheel.splitlines() if line.startswith("Tag:"))
        self.assertRegex(tag, r"^Tag: py3-none-(?!any)\w+$")
        self.assertIn("Root-Is-Purelib: false", wheel)

    def test_the_package_has_no_dependencies(self):
        self.assertEqual(metadata.distribution("graphile-worker-native").requires or [], [])

    def test_a_wrong_or_missing_library_is_refused(self):
        maps = Path("/proc/self/maps").read_text().splitlines()
        libc = next(line.split()[-1] for line in maps if "libc.so.6" in line)
        for library, words in [(libc, "gw_abi_version"), ("/nowhere/lib.so", "GRAPHILE_WORKER_LIBRARY")]:
            answer = subprocess.run(
                [sys.executable, "-c", "import graphile_worker"], capture_output=True, text=True,
                env={"GRAPHILE_WORKER_LIBRARY": library},
            )
            self.assertNotEqual(answer.returncode, 0)
            self.assertIn(words, answer.stderr)


class SourceDistributionTest(unittest.TestCase):
    """The source distribution of `python -m build --sdist` must build on a machine without a checkout."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        made = f"import setuptools.build_meta as backend; print(backend.build_sdist({folder.name!r}))"
        answer = subprocess.run([sys.executable, "-c", made], cwd=PACKAGE, capture_output=True, text=True)
        self.assertEqual(answer.returncode, 0, answer.stderr)
        with tarfile.open(Path(folder.name, answer.stdout.split()[-1])) as archive:
            archive.extractall(folder.name)
        (self.rust,) = Path(folder.name).glob("*/rust")

    def test_it_has_every_file_that_cargo_reads(self):
        def files(root):
            return {
                str(path.relative_to(root)) for name in ("src", "migrations", "include")
                for path in (root / name).rglob("*") if path.is_file()
            }

        self.assertEqual(files(self.rust), files(CHECKOUT))
        self.assertEqual((self.rust / "Cargo.lock").read_bytes(), (CHECKOUT / "Cargo.lock").read_bytes())
        for source in self.rust.rglob("*.rs"):
            if source.name == "tests.rs":
                continue  # not compiled into the library
            for included in re.findall(r'include_str!\("([^"]+)"\)', source.read_text(encoding="utf-8")):
                self.assertTrue((source.parent / included).is_file(), f"{source}: {included}")

    @unittest.skipUnless(shutil.which("cargo"), "cargo is not installed")
    def test_cargo_accepts_the_manifest(self):
        command = ["cargo", "metadata", "--no-deps", "--offline", "--format-version=1", "--manifest-path"]
        answer = subprocess.run([*command, str(self.rust / "Cargo.toml")], capture_output=True, text=True)
        self.assertEqual(answer.returncode, 0, answer.stderr)
        (package,) = json.loads(answer.stdout)["packages"]
        for target in package["targets"]:
            self.assertTrue(Path(target["src_path"]).is_file(), target)

    def test_without_sources_the_error_names_the_variable(self):
        shutil.rmtree(self.rust)
        answer = subprocess.run(
            [sys.executable, "setup.py", "build_py"], cwd=self.rust.parent, capture_output=True, text=True,
            env={"PATH": os.environ["PATH"]},
        )
        self.assertNotEqual(answer.returncode, 0)
        self.assertIn("GRAPHILE_WORKER_PREFIX", answer.stderr)
        self.assertNotIn("Traceback", answer.stderr)


class DocumentationTest(unittest.TestCase):
    def test_every_public_name_has_a_docstring(self):
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

    def test_the_first_readme_program_is_the_example(self):
        readme = (PACKAGE / "README.md").read_text(encoding="utf-8")
        block = readme.split("```python\n", 1)[1].split("```", 1)[0]
        self.assertEqual(block, HELLO.read_text(encoding="utf-8"))


class ExampleTest(DatabaseTest):
    def test_the_example_greets(self):
        program = self.program(HELLO.read_text(encoding="utf-8"))
        self.assertEqual(program.line(), "Hello, Ada!")
        self.assertEqual(program.ended(), 0, program.errors())


def load_tests(loader, tests, pattern):
    """Adds the examples of the docstrings to the tests."""
    for file in sorted(Path(graphile_worker.__file__).parent.glob("_[a-z]*.py")):
        tests.addTests(doctest.DocTestSuite(importlib.import_module(f"graphile_worker.{file.stem}")))
    return tests


if __name__ == "__main__":
    unittest.main()
