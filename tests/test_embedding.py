"""fastlr inside other programs: C, Cython and Numba build against it, run, and have Python's bits."""

from __future__ import annotations

import ctypes
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

import numpy as np
import pytest

import fastlr
from fastlr import _core
from tests import cases

ROOT = pathlib.Path(__file__).resolve().parent.parent
STEPS = 120
WARNINGS = ["-Wall", "-Wextra", "-Wdouble-promotion", "-Werror"]
C = ["-std=c11", "-g", "-O2", "-ffp-contract=off", *WARNINGS]
CYTHON = {  # what modules compiled against fastlr compare when they are imported: never to be changed, only added to
    "abi": "int (void)",
    "describe": "int (char const *, int, int *, int *, int *, int *)",
    "message": "char const *(int)",
    "scratch_size": "size_t (size_t, size_t const *)",
    "update": "int (char const *, int, size_t, size_t const *, void **, void **, void **, PY_LONG_LONG, double, "
    "double, double, double, double, double const *, size_t, double *, int, int, int, void *, size_t, double *)",
    "update_array": "int (char const *, int, size_t, void *, void *, void *, void *, void *, void *, void *, "
    "PY_LONG_LONG, double, double, double, double, double const *, size_t, double *, void *, size_t)",
}


def tool(name: str) -> str:
    """A program that the continuous integration has, and others may not."""
    path = shutil.which(name)
    if path is None and not os.environ.get("CI"):
        pytest.skip(f"needs {name}")
    assert path, f"{name} must be installed where CI is set"
    return path


def run(*command: object, **kwargs: object) -> str:
    done = subprocess.run([str(x) for x in command], capture_output=True, text=True, timeout=600, **kwargs)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def hinge():
    pytest.importorskip("sklearn")
    from examples import hinge

    return hinge


@pytest.fixture(scope="module")
def expected(hinge):
    return np.concatenate(hinge.train(hinge.path(), STEPS))


# ---- C --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["package", "gcc", "clang"])
def library(request, tmp_path_factory):
    """A compiler and what to link with: the package's archive, and what `make lib` makes, by clang without threads."""
    if request.param == "package":
        return tool("gcc"), pathlib.Path(fastlr.get_library_dir())
    if not (ROOT / "Makefile").exists():
        pytest.skip("needs the repository")
    cc, out = tool(request.param), tmp_path_factory.mktemp(request.param)
    threads = "no" if request.param == "clang" else "yes"
    cached = f"ccache {cc}" if shutil.which("ccache") else cc
    flags = " ".join(WARNINGS)
    run("make", "-C", ROOT, "-j2", "lib", f"CC={cached}", f"LIB={out}", f"THREADS={threads}", f"CFLAGS={flags}")
    return cc, out


def link(cc: str, library: pathlib.Path, source: pathlib.Path, out: pathlib.Path) -> dict[str, pathlib.Path]:
    """The program with each of the libraries that there are."""
    programs = {}
    for kind, flags in {
        "libfastlr.a": [library / "libfastlr.a"],
        "libfastlr.so": [f"-L{library}", "-lfastlr", f"-Wl,-rpath,{library}"],
    }.items():
        if (library / kind).exists():
            programs[kind] = out / kind.replace(".", "_")
            include = f"-I{fastlr.get_include()}"
            run(cc, *C, include, source, *flags, "-lm", "-pthread", "-o", programs[kind])
    return programs


def test_the_c_example_has_pythons_bits(library, hinge, expected, tmp_path):
    cc, directory = library
    programs = link(cc, directory, ROOT / "examples" / "c" / "train.c", tmp_path)
    assert set(programs) == {x.name for x in directory.glob("libfastlr.*")}
    for kind, program in programs.items():
        lines = run(program, hinge.path(), STEPS).splitlines()
        assert lines[-2].startswith("step  100  loss 0.1316"), kind
        found = np.array([float.fromhex(x) for x in lines[-1].split()], np.float32)
        np.testing.assert_array_equal(found, expected, err_msg=kind)


def test_the_c_example_runs_under_valgrind(hinge, tmp_path):
    valgrind = tool("valgrind")
    programs = link(tool("gcc"), pathlib.Path(fastlr.get_library_dir()), ROOT / "examples" / "c" / "train.c", tmp_path)
    check = [valgrind, "-q", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"]
    run(*check, programs["libfastlr.a"], hinge.path(), 3)


def test_a_call_is_the_functions_that_it_is_made_of(library, tmp_path):
    """And what is wrong with one is said, and changes nothing: tests/c/embed.c, for every rule."""
    cc, directory = library
    for program in link(cc, directory, ROOT / "tests" / "c" / "embed.c", tmp_path).values():
        updates, refused = run(program).split(" updates, ")
        assert int(updates) >= 4 * 50
        assert int(refused.split()[0]) >= 20


def test_valgrind_finds_nothing_in_a_call(tmp_path):
    valgrind = tool("valgrind")
    program = link(tool("gcc"), pathlib.Path(fastlr.get_library_dir()), ROOT / "tests" / "c" / "embed.c", tmp_path)
    run(valgrind, "-q", "--error-exitcode=9", "--leak-check=full", program["libfastlr.a"])


@pytest.mark.parametrize("language", [["gcc", "-std=c11", "-xc", "-Wpedantic"], ["g++", "-std=c++17", "-xc++"]])
def test_the_header_is_c_and_cxx(language, tmp_path):
    source = tmp_path / "header.c"
    source.write_text("#include <fastlr.h>\nint main(void) { return fastlr_get_api()->abi != FASTLR_ABI; }\n")
    run(tool(language[0]), *language[1:], *WARNINGS, f"-I{fastlr.get_include()}", "-fsyntax-only", source)


def test_the_shared_library_exports_the_header_and_nothing_else(library):
    _, directory = library
    if not (directory / "libfastlr.so").exists():
        pytest.skip("the package has no shared library")
    found = run(tool("nm"), "-D", "--defined-only", directory / "libfastlr.so").splitlines()
    names = {line.split()[-1] for line in found} - {"_init", "_fini"}
    header = (pathlib.Path(fastlr.get_include()) / "fastlr.h").read_text()
    assert {"fastlr_update", "fastlr_find", "fastlr_schedule"} <= names
    assert {name for name in names if f"{name}(" not in header} == set()


# ---- the table in the capsule ---------------------------------------------------------------------------------------


def test_the_capsule_has_the_table():
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    address = get(_core._C_API, b"fastlr._core._C_API")
    abi, size = (ctypes.c_uint32 * 2).from_address(address)
    assert abi == 1
    assert size >= 8 + 12 * ctypes.sizeof(ctypes.c_void_p)  # append-only: what version 1 began with
    functions = (ctypes.c_void_p * 12).from_address(address + 8)
    assert all(functions)
    message = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_int)(functions[3])
    assert message(0) == b"done"
    rule_name = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_int)(functions[4])
    assert rule_name(0) == b"adabelief"


# ---- Cython ---------------------------------------------------------------------------------------------------------


def test_the_module_is_small():
    """Below 8 MB, all rules for all types and instruction sets."""
    module = pathlib.Path(_core.__file__).read_bytes()
    if b".debug_info" in module or b"__asan_init" in module or b"__tsan_init" in module:
        pytest.skip("built for debugging, which is as large again")
    assert 1e6 < len(module) < 8e6


def test_exported_signatures_are_frozen():
    """Cython compares these texts when a module that was compiled with others is imported."""
    capsules = _core.__pyx_capi__
    assert {name: repr(x).split('"')[1] for name, x in capsules.items()} == CYTHON


def test_the_cython_example_has_pythons_bits(hinge, expected, tmp_path):
    """Built in another directory against the package that is imported, without its header and with nothing to link."""
    pytest.importorskip("Cython")
    tool("gcc")
    for source in ("setup.py", "train.pyx"):
        shutil.copy(ROOT / "examples" / "cython" / source, tmp_path)
    package = pathlib.Path(fastlr.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(package)}
    run(sys.executable, "setup.py", "-q", "build_ext", "--inplace", cwd=tmp_path, env=environment)
    assert (tmp_path / f"train{sysconfig.get_config_var('EXT_SUFFIX')}").exists()
    program = (
        "import sys; sys.path.insert(0, '.'); import numpy as np, train; x, y = map(np.load, ('x.npy', 'y.npy'))\n"
        f"np.save('p.npy', train.train(x, y, {STEPS}))\n"
        "try:\n    train.train(x, y, 1, float('inf'))\nexcept ValueError as error:\n    print(error)\n"
    )
    for name, array in zip("xy", hinge.load(hinge.path()), strict=True):
        np.save(tmp_path / f"{name}.npy", array)
    refused = run(sys.executable, "-c", program, cwd=tmp_path, env=environment)
    assert refused.startswith("lr, scale, l2, decay and clip_norm must be finite")
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), expected)


# ---- Numba ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def jit():
    pytest.importorskip("numba")
    import fastlr.jit

    return fastlr.jit


def test_the_numba_example_has_pythons_bits(jit, hinge):
    from examples.numba import train

    found = train.run()
    np.testing.assert_array_equal(found["params"], np.concatenate(hinge.train(hinge.path(), train.STEPS, None)))
    assert found["right"] > 0.97


COMPILED = ("SGD", "SGD-nesterov", "AdamW-decay-odd", "AMSGrad", "RMSprop-centered-momentum", "Lion", "LAMB")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("id", COMPILED)
def test_kernels_in_compiled_loops_have_pythons_bits(jit, id, dtype):
    import numba

    case = next(c for c in cases.CASES if c.id == id)
    kwargs = {key: x for key, x in case.kwargs.items() if key != "lr"}
    step = jit.update(case.optimizer, **kwargs)
    random = np.random.default_rng(0)
    p, gradients = random.standard_normal(9000).astype(dtype), random.standard_normal((3, 9000)).astype(dtype)

    @numba.njit
    def train(p, gradients, s):
        for t in range(len(gradients)):
            step(p, gradients[t], s, t + 1, 0.05, 0.5)

    mine, s = p.copy(), tuple(np.zeros_like(p) for _ in case.states)
    train(mine, gradients, s)
    opt = case.optimizer(p, lr=0.05, **kwargs)
    for g in gradients:
        opt.step(g, grad_scale=0.5)
    np.testing.assert_array_equal(mine, p)
    for key, x in zip(opt.states, s, strict=True):
        np.testing.assert_array_equal(x, opt.state[key])


def test_wrong_arrays_are_refused_in_compiled_loops(jit):
    import numba

    step = jit.update(fastlr.AdamW)
    p, short = np.ones(5), np.ones(4)
    for arguments, message in (
        ((p, short, (p.copy(), p.copy()), 1, 0.1), "p, g and the states must have one size"),
        ((p, p.copy(), (p.copy(), short), 1, 0.1), "p, g and the states must have one size"),
        ((p, p.copy(), (p.copy(),), 1, 0.1), "s must be a tuple with each of the rule's states"),
        ((p, p.copy(), (p.copy(), p.copy()), 0, 0.1), "t must be >= 1"),
        ((p, p.copy(), (p.copy(), p.copy()), 1, np.inf), "lr and scale finite"),
    ):
        with pytest.raises(ValueError, match=message):
            step(*arguments)
        np.testing.assert_array_equal(p, 1)
    for wrong in (np.ones(10)[::2], np.ones(5, np.float32), np.ones(5, int), [1.0] * 5):
        with pytest.raises(numba.errors.TypingError, match="must be C-contiguous arrays of one type"):
            step(p, wrong, (p.copy(), p.copy()), 1, 0.1)


def test_what_compiled_loops_cannot_have_is_refused(jit):
    for optimizer in (fastlr.Prodigy, fastlr.Adafactor, fastlr.Muon, fastlr.LazyAdam):
        with pytest.raises(TypeError, match=f"one pass over p, g and states, got {optimizer.__name__}"):
            jit.update(optimizer)
    with pytest.raises(TypeError, match="eps must be a number"):
        jit.update(fastlr.Adam, eps=fastlr.schedules.linear(1e-8, 1e-6, 10))
    with pytest.raises(ValueError, match=r"betas\[0\] must be in \[0, 1\), got 1.0"):
        jit.update(fastlr.Adam, betas=(1.0, 0.9))
