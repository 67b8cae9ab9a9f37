"""Puts the shared library into the package, and names the wheel after the platform instead of a Python version.

If `GRAPHILE_WORKER_LIBRARY` is set, the library is that file. Otherwise, if `GRAPHILE_WORKER_PREFIX` is set, it is the
library of that installation. Otherwise cargo builds it from the folder `rust`, which a source distribution has, or from
the checkout around this folder.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1
    from wheel.bdist_wheel import bdist_wheel

HERE = Path(__file__).resolve().parent
#: The files and folders of a checkout that cargo needs to build the library.
SOURCES = ("Cargo.toml", "Cargo.lock", "build.rs", "LICENSE", "README.md", "src", "migrations", "include")
LIBRARY = "libgraphile_worker.dylib" if sys.platform == "darwin" else "libgraphile_worker.so"


def library() -> Path:
    """Returns the path of the shared library; builds it if neither variable is set."""
    if given := os.environ.get("GRAPHILE_WORKER_LIBRARY"):
        path = Path(given)
    elif prefix := os.environ.get("GRAPHILE_WORKER_PREFIX"):
        path = Path(prefix) / "lib" / LIBRARY
    else:
        path = built()
    if not path.is_file():
        sys.exit(f"graphile_worker: {path} does not exist; set GRAPHILE_WORKER_LIBRARY to the file {LIBRARY}")
    return path


def sources() -> Path:
    """Returns the folder in which cargo builds the library."""
    for folder in (HERE / "rust", HERE.parent.parent):
        if all((folder / name).exists() for name in SOURCES):
            return folder
    sys.exit(
        "graphile_worker: the library's sources are missing: set GRAPHILE_WORKER_LIBRARY to the built file, or "
        "GRAPHILE_WORKER_PREFIX to the folder it is installed in, or install from a checkout or a source distribution"
    )


def built() -> Path:
    """Builds the library from its sources and returns its path."""
    checkout = sources()
    command = "cargo rustc --locked --profile library --lib --no-default-features --features capi --crate-type cdylib"
    try:
        subprocess.run(command.split(), cwd=checkout, check=True)
    except FileNotFoundError:
        sys.exit("graphile_worker: building the library needs Rust: https://rustup.rs")
    except subprocess.CalledProcessError as error:
        sys.exit(f"graphile_worker: building the library failed with status {error.returncode}; see its output above")
    return Path(os.environ.get("CARGO_TARGET_DIR", checkout / "target")) / "library" / LIBRARY


class BuildWithLibrary(build_py):
    def run(self) -> None:
        super().run()
        package = HERE / "src" if getattr(self, "editable_mode", False) else Path(self.build_lib)
        self.library = package / "graphile_worker" / LIBRARY
        shutil.copyfile(library(), self.library)

    def get_outputs(self, include_bytecode: bool = True) -> list:
        return [*super().get_outputs(include_bytecode), str(self.library)]


class SourcesWithLibrary(sdist):
    def make_release_tree(self, base_dir: str, files: list) -> None:
        # An editable install leaves a library in the sources. It fits one platform only.
        super().make_release_tree(base_dir, [file for file in files if Path(file).name != LIBRARY])
        rust = Path(base_dir) / "rust"
        for name in SOURCES:
            source = sources() / name
            rust.mkdir(exist_ok=True)
            copy = shutil.copytree if source.is_dir() else shutil.copyfile
            copy(source, rust / name)
        # The distribution has no files of tests and benches, so the manifest must not name them.
        manifest = rust / "Cargo.toml"
        text = manifest.read_text(encoding="utf-8")
        manifest.write_text(re.sub(r"\n\[\[(test|bench)\]\]\n(?:[^\n\[].*\n)*", "", text), encoding="utf-8")


class WheelOfPlatform(bdist_wheel):
    def get_tag(self) -> tuple:
        """Returns a tag for every Python 3 of this platform: the package has no code compiled for one version."""
        platform = super().get_tag()[2]
        if platform.startswith("linux_"):
            platform = manylinux(platform) or platform
        return "py3", "none", platform


def manylinux(platform: str) -> str:
    """Returns the tag for the oldest glibc that the library runs with; "" if it was built for another C library."""
    symbols = (HERE / "build").rglob(LIBRARY)
    versions = [int(minor) for file in symbols for minor in re.findall(rb"GLIBC_2\.(\d+)", file.read_bytes())]
    return platform.replace("linux_", f"manylinux_2_{max(versions)}_", 1) if versions else ""


class PlatformDistribution(Distribution):
    def has_ext_modules(self) -> bool:
        return True


setup(
    distclass=PlatformDistribution,
    cmdclass={"build_py": BuildWithLibrary, "sdist": SourcesWithLibrary, "bdist_wheel": WheelOfPlatform},
)
