"""Builds train.pyx. `cimport fastlr` needs the installed package alone: no header, nothing to link."""

from Cython.Build import cythonize
from setuptools import Extension, setup

setup(
    name="train",
    ext_modules=cythonize(Extension("train", ["train.pyx"], extra_compile_args=["-O2", "-ffp-contract=off"])),
)
