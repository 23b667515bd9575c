"""The machine: environment variables, threads, imports, the command line. Mostly in processes of their own."""

import os
import subprocess
import sys

import pytest

import fastlr
from fastlr import _core


def python(code, **env):
    """Runs code in a fresh interpreter with these environment variables; (exit code, stdout, stderr)."""
    keep = {k: v for k, v in os.environ.items() if k not in ("FASTLR_ISA", "FASTLR_NUM_THREADS", "OMP_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**keep, **env}, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout.strip(), done.stderr


@pytest.mark.parametrize("name", [name for name, runs in _core.isas().items() if runs])
def test_isa_from_the_environment(name):
    assert python("import fastlr; print(fastlr.isa())", FASTLR_ISA=name)[1] == name


def test_isa_defaults_to_the_widest():
    widest = [name for name, runs in _core.isas().items() if runs][-1]
    assert python("import fastlr; print(fastlr.isa())")[1] == widest


@pytest.mark.parametrize("name", ["avx3", "AVX2", "none"])
def test_unknown_isa_is_an_error_with_the_choices(name):
    code, _, err = python("import fastlr", FASTLR_ISA=name)
    assert code == 1
    assert "FASTLR_ISA must name an instruction set of this machine (baseline" in err
    assert repr(name) in err


def test_an_isa_that_the_machine_lacks_is_refused():
    with pytest.raises(ValueError, match="unsupported"):
        _core.use_isa("avx1024")


@pytest.mark.parametrize(
    ("env", "threads"),
    [
        ({"FASTLR_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "5"}, 5),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
        ({"OMP_NUM_THREADS": "many"}, None),
        ({"OMP_NUM_THREADS": "100000"}, _core.MAX_THREADS),
        ({"FASTLR_NUM_THREADS": "1", "OMP_NUM_THREADS": "5"}, 1),
        ({}, None),
    ],
)
def test_threads_from_the_environment(env, threads):
    found = python("import fastlr; print(fastlr.get_num_threads())", **env)[1]
    assert int(found) == (threads or _core.processors())


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "257"])
def test_bad_threads_in_the_environment(value):
    code, _, err = python("import fastlr", FASTLR_NUM_THREADS=value)
    assert code == 1
    assert "FASTLR_NUM_THREADS must be an integer in [1, 256]" in err
    assert repr(value) in err


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_processors_follow_affinity():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "import fastlr; print(fastlr.get_num_threads())"
    )
    assert python(code)[1] == "1"


def test_set_num_threads():
    before = fastlr.get_num_threads()
    with fastlr.num_threads(7):
        assert fastlr.get_num_threads() == 7
        with pytest.raises(RuntimeError), fastlr.num_threads(2):
            raise RuntimeError
        assert fastlr.get_num_threads() == 7
    assert fastlr.get_num_threads() == before
    for bad, error in ((0, ValueError), (257, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match="n must be"):
            fastlr.set_num_threads(bad)
    assert fastlr.get_num_threads() == before


def test_import_needs_numpy_alone_and_starts_nothing():
    code = (
        "import sys, threading, fastlr\n"
        "heavy = {'torch', 'numba', 'scipy', 'matplotlib', 'sklearn', 'rich', 'jax', 'optax', 'Cython'}\n"
        "print(sorted(heavy & sys.modules.keys()), len(__import__('os').listdir('/proc/self/task')))"
    )
    assert python(code, OPENBLAS_NUM_THREADS="1")[1] == "[] 1"


def test_import_does_not_flush_denormals():
    assert python("import fastlr; print(5e-324 != 0, 1e-310 * 0.5 != 0)")[1] == "True True"


def test_info():
    done = subprocess.run(
        [sys.executable, "-m", "fastlr", "info"], capture_output=True, text=True, timeout=60, check=True
    )
    found = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if not line.startswith("isa available"))
    assert found["fastlr"] == fastlr.__version__
    assert found["isa"] in _core.isas()
    assert int(found["threads"]) >= 1
    assert {"python", "numpy", "platform", "processors"} <= found.keys()
