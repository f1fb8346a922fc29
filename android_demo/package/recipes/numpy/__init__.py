"""
numpy for python-for-android, with OpenBLAS on 32-bit phones.

There is no ExecuTorch for them: numpy trains there, and its matrix products are most of the work. python-for-android
builds numpy without BLAS. 64-bit phones keep that: ExecuTorch does the work there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pythonforandroid.recipe import Recipe
from pythonforandroid.recipes.numpy import NumpyRecipe

NUMPY_ALONE = ["-Csetup-args=-Dblas=none", "-Csetup-args=-Dlapack=none"]
WITH_OPENBLAS = ["-Csetup-args=-Dblas=openblas", "-Csetup-args=-Dlapack=openblas"]


class OpenBlasNumpyRecipe(NumpyRecipe):  # type: ignore[misc]
    """python-for-android's own recipe, and a library for one ABI."""

    depends = [*NumpyRecipe.depends, "libopenblas"]  # noqa: RUF012

    def get_recipe_meson_options(self, arch: Any) -> dict[str, Any]:
        """The cross file's sections; meson finds the library by a pkg-config file of ours."""
        options: dict[str, Any] = super().get_recipe_meson_options(arch)
        wanted = WITH_OPENBLAS if arch.arch == "armeabi-v7a" else NUMPY_ALONE
        others = [word for word in self.extra_build_args if word not in NUMPY_ALONE + WITH_OPENBLAS]
        self.extra_build_args = [*wanted, *others]
        if wanted is WITH_OPENBLAS:
            blas = Recipe.get_recipe("libopenblas", self.ctx)
            options["binaries"]["pkg-config"] = "pkg-config"
            options["properties"]["pkg_config_libdir"] = str(self._describe(blas, arch))
        return options

    def _describe(self, blas: Any, arch: Any) -> Path:
        """Write ``openblas.pc``; returns its folder."""
        build = Path(blas.get_build_dir(arch.arch)) / "build"
        folder = build / "pkgconfig"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "openblas.pc").write_text(
            f"Name: openblas\nDescription: BLAS and LAPACK\nVersion: {blas.version}\n"
            f"Libs: -L{self.ctx.get_libs_dir(arch.arch)} -lopenblas\nCflags: -I{build} -I{build.parent}\n"
        )
        return folder


recipe = OpenBlasNumpyRecipe()
