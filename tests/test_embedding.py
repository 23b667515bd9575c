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
from fastlr.schedules import tree
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


def test_the_c_example_runs_under_valgrind(library, hinge, tmp_path):
    valgrind = tool("valgrind")
    check = [valgrind, "-q", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"]
    *_, program = link(*library, ROOT / "examples" / "c" / "train.c", tmp_path).values()
    run(*check, program, hinge.path(), 3)


def test_a_call_is_the_functions_that_it_is_made_of(library, tmp_path):
    """And what is wrong with one is said, and changes nothing: tests/c/embed.c, for every rule."""
    cc, directory = library
    for program in link(cc, directory, ROOT / "tests" / "c" / "embed.c", tmp_path).values():
        updates, refused = run(program).split(" updates, ")
        assert int(updates) >= 4 * 50
        assert int(refused.split()[0]) >= 20


def test_valgrind_finds_nothing_in_a_call(library, tmp_path):
    """With the package's archive, and the shared libraries that are made without it."""
    valgrind = tool("valgrind")
    *_, program = link(*library, ROOT / "tests" / "c" / "embed.c", tmp_path).values()
    run(valgrind, "-q", "--error-exitcode=9", "--leak-check=full", program)


def test_a_later_library_serves_programs_compiled_today(tmp_path):
    """tests/c/embed.c with a library in which every structure has one member more, at its end."""
    header = (pathlib.Path(fastlr.get_include()) / "fastlr.h").read_text()
    for name in ("call", "tensor", "found", "description"):
        assert header.count(f"}} fastlr_{name};") == 1
        header = header.replace(f"}} fastlr_{name};", f"    double later;\n}} fastlr_{name};")
    (tmp_path / "fastlr.h").write_text(header)
    gcc, later, program = tool("gcc"), tmp_path / "later.o", tmp_path / "program"
    for source in ("abi.c", "embed.c"):
        run(gcc, *C, f"-I{tmp_path}", "-c", ROOT / "fastlr" / "kernels" / source, "-o", later)
    include, archive = f"-I{fastlr.get_include()}", pathlib.Path(fastlr.get_library_dir()) / "libfastlr.a"
    run(gcc, *C, include, ROOT / "tests" / "c" / "embed.c", later, archive, "-lm", "-pthread", "-o", program)
    assert int(run(program).split()[0]) >= 4 * 50


def test_the_header_has_the_packages_version():
    header = (pathlib.Path(fastlr.get_include()) / "fastlr.h").read_text()
    n = int(header.partition("#define FASTLR_VERSION ")[2].split()[0])
    assert f"{n // 10000}.{n // 100 % 100}.{n % 100}" == fastlr.__version__


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


class Tensor(ctypes.Structure):
    _fields_ = [("n", ctypes.c_size_t), ("p", ctypes.c_void_p), ("g", ctypes.c_void_p), ("s", ctypes.c_void_p * 5)]


class Call(ctypes.Structure):
    _fields_ = [
        *[("size", ctypes.c_size_t), ("rule", ctypes.c_char_p), ("dtype", ctypes.c_int), ("threads", ctypes.c_int)],
        ("t", ctypes.c_int64),
        *[(name, ctypes.c_double) for name in ("lr", "scale", "l2", "decay", "clip_norm")],
        *[("hyper", ctypes.POINTER(ctypes.c_double)), ("hypers", ctypes.c_size_t)],
        *[("tensors", ctypes.POINTER(Tensor)), ("count", ctypes.c_size_t), ("stride", ctypes.c_size_t)],
        *[("carry", ctypes.c_void_p), ("scratch", ctypes.c_void_p), ("room", ctypes.c_size_t)],
        *[("zero", ctypes.c_bool), ("skip", ctypes.c_bool)],
    ]


class Found(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("norm", ctypes.c_double)]


class Description(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        *[(name, ctypes.c_int) for name in ("states", "inputs", "hypers", "carry", "passes", "accesses", "scope")],
    ]


TASK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
_int, _text, _size, _of = ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.CFUNCTYPE


class Table(ctypes.Structure):
    """That of version 1: never to be changed, only added to."""

    _fields_ = [
        *[("abi", ctypes.c_uint32), ("size", ctypes.c_uint32)],
        ("describe", _of(_int, _text, _int, ctypes.POINTER(Description))),
        ("scratch", _of(_size, ctypes.POINTER(Call))),
        ("update", _of(_int, ctypes.POINTER(Call), ctypes.POINTER(Found))),
        ("message", _of(_text, _int)),
        ("rule_name", _of(_text, _int)),
        ("isa_name", _of(_text, _int)),
        ("isa_runs", _of(ctypes.c_bool, _int)),
        ("isa", _of(_int)),
        ("use_isa", _of(None, _int)),
        ("processors", _of(_int)),
        ("parallel", _of(None, _size, _int, TASK, ctypes.c_void_p)),
        ("schedule", _of(_int, ctypes.c_void_p, _size, ctypes.c_void_p, ctypes.c_void_p)),
    ]


@pytest.fixture
def table():
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return Table.from_address(get(_core._C_API, b"fastlr._core._C_API"))


def call(table, rule, p, g, states, hyper, lr, t=1, clip_norm=0.0):
    """The status of a step of one array, and the norm that was found."""
    tensor = Tensor(len(p), p.ctypes.data, g.ctypes.data, (ctypes.c_void_p * 5)(*(s.ctypes.data for s in states)))
    c = Call(ctypes.sizeof(Call), rule.encode(), p.dtype == np.float64, 1, t, lr, 1, 0, 0, clip_norm)
    c.hyper, c.hypers = (ctypes.c_double * len(hyper))(*hyper), len(hyper)
    c.tensors, c.count, c.stride = ctypes.pointer(tensor), 1, ctypes.sizeof(Tensor)
    memory, found = np.empty(table.scratch(c), np.uint8), Found(ctypes.sizeof(Found))
    c.scratch, c.room = memory.ctypes.data, len(memory)
    return table.update(c, found), found.norm


def test_the_capsule_has_the_table(table):
    """Each of its entries does what its name says."""
    assert table.abi == 1
    assert table.size >= ctypes.sizeof(Table)
    d = Description(ctypes.sizeof(Description))
    assert table.describe(b"adam", 0, d) == 0
    assert (d.states, d.inputs, d.hypers, d.carry, d.passes, d.scope) == (2, 0, 4, 0, 1, 0)
    names = [table.rule_name(n) for n in range(20)]
    assert names == sorted(names)
    assert table.message(0) == b"done"
    isas = [table.isa_name(n).decode() for n in range(2) if table.isa_runs(n)]
    assert isas[0] == "baseline"
    assert table.isa_name(table.isa()).decode() == fastlr.isa()
    before = table.isa()
    table.use_isa(0)
    assert fastlr.isa() == "baseline"
    table.use_isa(before)
    assert table.processors() >= 1
    seen = []
    table.parallel(10, 1, TASK(lambda ctx, first, last: seen.extend(range(first, last))), None)
    assert seen == list(range(10))
    p, g = np.ones(3), np.array([3.0, 0.0, 4.0])
    status, norm = call(table, "sgd", p, g, [], [0.0, 0.0, 0.0], 0.5, clip_norm=1.0)
    assert (status, norm) == (0, 5.0)
    np.testing.assert_allclose(p, [0.7, 1, 0.6], rtol=1e-6)
    assert call(table, "sgd", p, g, [], [0.0], 0.5)[0] == 4  # fewer hyper-parameters than it has
    segments, _ = tree.table_of(fastlr.schedules.linear(1.0, 0.5, 10)._lowered.node)
    x, y = np.array([0.0, 5.0, 20.0]), np.empty(3)
    assert table.schedule(segments, 3, x.ctypes.data, y.ctypes.data) == 0
    np.testing.assert_array_equal(y, [1, 0.75, 0.5])


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_users_rules_in_compiled_loops_have_pythons_bits(jit, dtype):
    """Of a class that has made no optimizer yet: its kernels for both types are compiled when the step is made."""
    Heavy = heavy()
    step, p = jit.update(Heavy, momentum=0.5), np.linspace(-1, 1, 9).astype(dtype)
    mine, b = p.copy(), np.zeros_like(p)
    opt = Heavy(p, momentum=0.5, lr=0.25)
    for t in range(1, 4):
        g = np.sin(p)
        step(mine, g, (b,), t, 0.25)
        opt.step(g)
    np.testing.assert_array_equal(mine, p)
    np.testing.assert_array_equal(b, opt.state["b"])


def heavy():
    @fastlr.rule(states=("b",), momentum=0.9)
    def Heavy(g, b, momentum):
        b = momentum * b + g
        return b, b

    return Heavy


def test_a_rule_without_a_kernel_is_no_rule(jit, table):
    """A user's is in the kernels' table before it is compiled, and may be compiled for one type alone."""
    Heavy, wrong = heavy(), table.message(3)
    assert b"rule must be one of" in wrong
    Heavy.variant(())

    def status(dtype):
        p = np.ones(3, dtype)
        return table.message(call(table, Heavy.rule, p, p.copy(), [np.zeros_like(p)], [0.9], 0.1)[0])

    assert [status(np.float32), status(np.float64)] == [wrong, wrong]
    Heavy(np.ones(3))
    assert [status(np.float32), status(np.float64)] == [wrong, b"done"]


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
