"""`python -m bench.by_hand`: what the loops written by hand gain over those that gcc makes of plain C.

Compiles an instruction set's file of kernels/tu/ and of store/ twice, as they are and with PLAIN (fused/pairs.h for
fused/lanes.h), and times AdamW's loops and the conversions of tiles in the same rounds, on one thread and in the second
cache. All bits must agree. Not measured: other compilers, threads, rules of another cost.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from bench import clock, machine
from bench.cases import Array, parse_size, show_size
from bench.compare import render, show_time
from bench.memory import placed
from fastlr import _core
from fastlr.buffers import allocate
from fastlr.precision import to_bfloat16

ROOT = pathlib.Path(__file__).resolve().parent.parent
KERNELS = ROOT / "fastlr" / "kernels"
ISAS = ("avx512", "avx2")  # that have a header of vectors
BUILDS: dict[str, list[str]] = {"by hand": [], "plain": ["-DPLAIN"]}
STORAGES = [  # whether parameters and gradients are bfloat16; bytes of a state's element
    ("float32/float32/bfloat16", False, False, 2),
    ("float32/bfloat16/bfloat16", False, True, 2),
    ("bfloat16/bfloat16/bfloat16", True, True, 2),
    ("float32/float32/int8", False, False, 1),
    ("float32/bfloat16/int8", False, True, 1),
    ("bfloat16/bfloat16/int8", True, True, 1),
]
FORMATS = {"bfloat16": 2, "int8": 1, "uint8": 1}  # bytes of a code
QUANTUM = 256


def build(cc: str, isa: str, name: str, more: list[str], directory: str) -> ctypes.CDLL:
    flags = re.search(r"^FLAGS = \[(.*)\]", (ROOT / "setup.py").read_text(), re.M)
    assert flags
    library = os.path.join(directory, f"{name.replace(' ', '_')}.so")
    kernels = f"tu/{isa}_f32.c", f"store/{isa}.c", "prefetch.c"
    sources = [str(ROOT / "bench" / "by_hand.c"), *(str(KERNELS / source) for source in kernels)]
    more = [*more, f"-DRULES=fastlr_{isa}_f32", f"-DSTORE=fastlr_store_{isa}"]
    includes = [f"-I{KERNELS}", f"-I{KERNELS.parent / 'include'}"]
    exported = [x for x in flags[1].replace('"', "").split(", ") if x != "-fvisibility=hidden"]
    command = [cc, *exported, "-fPIC", "-shared", *more, *includes, *sources, "-o", library, "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return ctypes.CDLL(library)


def address(x: Array | None) -> ctypes.c_void_p | None:
    return None if x is None else ctypes.c_void_p(x.ctypes.data)


def stepper(library: ctypes.CDLL, n: int, half_p: bool, half_g: bool, size: int) -> tuple[list[Array], Any]:
    """Buffers of its own, and AdamW's step on them."""
    rng = np.random.default_rng(20240229)
    p, g = 0.1 * rng.standard_normal(n, np.float32), 0.01 * rng.standard_normal(n, np.float32)
    buffers = [placed(to_bfloat16(x) if half else x) for x, half in ((p, half_p), (g, half_g))]
    buffers += [allocate(n * size, np.uint8) for _ in range(2)]
    buffers += [allocate(n // QUANTUM, np.float32) for _ in range(2)] if size == 1 else []
    at_p, at_g, m, v, *scales = map(address, buffers)
    arguments = ctypes.c_size_t(n), int(half_p), at_p, int(half_g), at_g, m, v, *(scales or [None, None])
    return buffers, lambda: library.by_hand_step(*arguments)


def converter(library: ctypes.CDLL, n: int, name: str) -> tuple[list[Array], Any]:
    """Buffers of its own, and a way from codes to float32 and back."""
    size = FORMATS[name]
    codes = placed(np.random.default_rng(1).integers(1, 120, n * size).astype(np.uint8))
    numbers, scales = allocate(n, np.float32), placed(np.ones(n // QUANTUM, np.float32))
    arguments = ctypes.c_size_t(n), name.encode(), address(numbers), address(codes), address(scales)
    return [codes, numbers, scales], lambda: library.by_hand_convert(*arguments)


def measure(libraries: dict[str, ctypes.CDLL], what: str, make: Callable[..., Any], rounds: int) -> tuple[str, ...]:
    made = {name: make(library) for name, library in libraries.items()}
    for _ in range(3):
        for _, step in made.values():
            step()
    hand, plain = (buffers for buffers, _ in made.values())
    for x, y in zip(hand, plain, strict=True):
        np.testing.assert_array_equal(x.view(np.uint8), y.view(np.uint8), err_msg=what)
    times = clock.interleave({name: step for name, (_, step) in made.items()}, rounds)
    by_hand, other = times["by hand"], times["plain"]
    return what, show_time(by_hand.median), show_time(other.median), f"{by_hand.over(other):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=parse_size, default=parse_size("64Ki"), help="elements, a multiple of 256")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--cc", default="gcc")
    runs = [isa for isa in ISAS if _core.isas().get(isa)]
    if not runs:
        parser.error(f"this processor runs none of {', '.join(ISAS)}")
    parser.add_argument("--isa", choices=runs, default=runs[0], help="default: %(default)s")
    a = parser.parse_args()
    if a.size % QUANTUM:
        parser.error(f"--size must be a multiple of {QUANTUM}")
    print(machine.describe())
    with tempfile.TemporaryDirectory() as directory:
        with ThreadPoolExecutor() as pool:
            built = pool.map(lambda x: build(a.cc, a.isa, *x, directory), BUILDS.items())
            libraries = dict(zip(BUILDS, built, strict=True))
        table = [
            measure(libraries, what, lambda library, kind=kind: stepper(library, a.size, *kind), a.rounds)
            for what, *kind in STORAGES
        ]
        table += [
            measure(libraries, f"{name} there and back", lambda x, name=name: converter(x, a.size, name), a.rounds)
            for name in FORMATS
        ]
    print(f"\n{a.isa}, {show_size(a.size)} elements, one thread, {a.rounds} rounds\n")
    print(render(("AdamW's storage; conversion", *BUILDS, "by hand / plain"), table))


if __name__ == "__main__":
    main()
