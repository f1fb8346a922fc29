"""
What pyproject.toml cannot say: where ExecuTorch has a runtime the wheel holds a compiled library for every CPython 3.

On other systems, and with ``FTTE_NATIVE=0``, it holds Python alone, and devices run the interpreted engine.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from setuptools import Distribution, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
BUILD_ONLY = {("mobile_sdk", "setup"), ("mobile_sdk.native", "build")}


def load(path):
    """A module of ours without its package, which needs what is not installed yet."""
    spec = importlib.util.spec_from_file_location(f"ftte_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


native = load(HERE / "native" / "build.py")
support = load(HERE / "system" / "support.py")

# For another system than this one, FTTE_EXECUTORCH names its ExecuTorch.
WITH_RUNTIME = os.environ.get("FTTE_NATIVE", "1") != "0" and (
    support.runs_native_programs() or "FTTE_EXECUTORCH" in os.environ
)

# Leftovers of an earlier build would end up in the wheel, and the source folder stays clean.
build_base = tempfile.mkdtemp(prefix="ftte-build-")
atexit.register(shutil.rmtree, build_base, ignore_errors=True)


class BuildWithRuntime(build_py):
    """Python files, and the runtime beside them if there is one; an editable install gets it in the source folder."""

    def run(self):
        if WITH_RUNTIME:
            native.build(self.output, fetch=True)  # first, so that what is missing is all that is said
        super().run()

    @property
    def output(self):
        return native.OUTPUT if self.editable_mode else Path(self.build_lib) / "mobile_sdk" / "native" / "lib"

    def find_package_modules(self, package, package_dir):
        """All but what only builds."""
        modules = super().find_package_modules(package, package_dir)
        return [found for found in modules if found[:2] not in BUILD_ONLY]

    def get_outputs(self, include_bytecode=True):
        built = [] if self.editable_mode else [str(path) for path in self.output.rglob("*") if path.is_file()]
        return [*super().get_outputs(include_bytecode), *built]


class PlatformWheel(bdist_wheel):
    """Bound to the platform but, since ctypes loads the library, to no version of CPython."""

    def finalize_options(self):
        super().finalize_options()
        self.root_is_pure = not WITH_RUNTIME

    def get_tag(self):
        if not WITH_RUNTIME:
            return "py3", "none", "any"
        return "py3", "none", native.platform_tag(self.get_finalized_command("build_py").output)


class BinaryDistribution(Distribution):
    def has_ext_modules(self):
        return WITH_RUNTIME


try:
    setup(
        packages=["mobile_sdk", *(f"mobile_sdk.{name}" for name in find_packages(str(HERE)))],
        distclass=BinaryDistribution,
        # pip fetches it into the build's environment.
        setup_requires=[native.ZIGLANG] if WITH_RUNTIME and support.is_macos() and not native.has_compiler() else [],
        cmdclass={"build_py": BuildWithRuntime, "bdist_wheel": PlatformWheel},
        options={"build": {"build_base": build_base}},
    )
except native.BuildError as error:
    raise SystemExit(f"error: {error}") from None
