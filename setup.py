"""Builds fastlr._core: the Cython shim and the C kernels. All else is in pyproject.toml.

No flag here names an instruction set: kernels/tu/*.c do, each for itself, so the module runs on any machine of its
kind.
"""

import os
import pathlib
from concurrent.futures import ThreadPoolExecutor

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FLAGS = ["-std=c11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fvisibility=hidden", "-g0"]


class ParallelBuild(build_ext):
    """Compiles the files of the extension side by side."""

    def build_extension(self, ext):
        def compile(source):
            return self.compiler.compile(
                [source], self.build_temp, include_dirs=ext.include_dirs, extra_postargs=ext.extra_compile_args
            )

        ext.sources, sources = [], ext.sources
        ext.depends = [*ext.depends, *sources]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ext.extra_objects = [o for objects in pool.map(compile, sources) for o in objects]
        super().build_extension(ext)


kernels = pathlib.Path("fastlr/kernels")
setup(
    ext_modules=cythonize(
        Extension(
            "fastlr._core",
            ["fastlr/_core.pyx", *sorted(map(str, [*kernels.rglob("*.c")]))],
            include_dirs=["fastlr/include", "fastlr/kernels"],
            depends=sorted(map(str, [*kernels.rglob("*.h"), *pathlib.Path("fastlr/include").glob("*.h")])),
            extra_compile_args=FLAGS,
            extra_link_args=["-pthread"],
            libraries=["m"],
        ),
        build_dir="build",
    ),
    cmdclass={"build_ext": ParallelBuild},
)
