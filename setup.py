"""Builds fastlr._core, the Cython shim and the C kernels, and fastlr/lib. All else is in pyproject.toml.

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
ARCHIVE = "fastlr/lib/libfastlr.a"


class ParallelBuild(build_ext):
    """Compiles the files of the extension side by side, and makes lib/libfastlr.a of those without Python."""

    def build_extension(self, ext):
        def compile(source):
            calls_alone = [] if "kernels" in pathlib.Path(source).parts else ["-O2"]
            flags = [*ext.extra_compile_args, *calls_alone]
            return self.compiler.compile([source], self.build_temp, include_dirs=ext.include_dirs, extra_postargs=flags)

        ext.sources, sources = [], ext.sources
        ext.depends = [*ext.depends, *sources]
        sources = sorted(sources, key=lambda source: pathlib.Path(source).parent.name != "tu")  # the longest first
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ext.extra_objects = [o for objects in pool.map(compile, sources) for o in objects]
        super().build_extension(ext)
        pure = [o for o in ext.extra_objects if "kernels" in pathlib.Path(o).parts]
        archive = pathlib.Path(self.build_lib, ARCHIVE)
        archive.unlink(missing_ok=True)  # which would keep what is no longer there
        self.compiler.create_static_lib(pure, "fastlr", output_dir=str(archive.parent))

    def copy_extensions_to_source(self):
        super().copy_extensions_to_source()
        self.mkpath(str(pathlib.Path(ARCHIVE).parent))
        self.copy_file(str(pathlib.Path(self.build_lib, ARCHIVE)), ARCHIVE)


kernels = pathlib.Path("fastlr/kernels")
setup(
    ext_modules=cythonize(
        Extension(
            "fastlr._core",
            ["fastlr/_core.pyx", *sorted(map(str, [*kernels.rglob("*.c")]))],
            include_dirs=["fastlr/include", "fastlr/kernels"],
            depends=sorted(
                map(
                    str,
                    [
                        *kernels.rglob("*.h"),
                        *pathlib.Path("fastlr").glob("include/*.h"),
                        *pathlib.Path("fastlr").glob("*.px[di]"),
                    ],
                )
            ),
            extra_compile_args=FLAGS,
            extra_link_args=["-pthread"],
            libraries=["m"],
        ),
        build_dir="build",
    ),
    cmdclass={"build_ext": ParallelBuild},
)
