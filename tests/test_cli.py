"""The commands on an objective of the user's."""

import os
import subprocess
import sys

import pytest

from fastlr.__main__ import main
from fastlr.demo import cases

BOWL = """
import numpy as np, fastlr

class Bowl:
    def __init__(self):
        self.params = np.array([3.0, 4.0])

    def __call__(self, w, step):
        h = np.array([1.0, 10.0])
        return float(0.5 * w @ (h * w)), h * w

bowl = Bowl()

def pair():
    return Bowl(), np.array([1.0, 1.0])

number = 3

def nothing():
    return None
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "user_model.py").write_text(BOWL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    sys.modules.pop("user_model", None)
    yield tmp_path
    sys.modules.pop("user_model", None)


def run(capsys, *arguments):
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("entry", ["user_model:bowl", "user_model:Bowl", "user_model:pair"])
def test_curvature(entry, here, capsys):
    code, out, _ = run(capsys, "curvature", entry)
    assert code == 0
    lines = dict(line.rsplit(maxsplit=1) for line in out.splitlines() if not line.endswith(":"))
    assert float(lines["largest eigenvalue"]) == pytest.approx(10, rel=1e-5)
    assert float(lines["smallest eigenvalue"]) == pytest.approx(1, rel=1e-5)
    assert float(lines["  gradient descent"]) == pytest.approx(0.2, rel=1e-5)
    assert float(lines["  momentum 0.9"]) == pytest.approx(0.38, rel=1e-5)


def test_range_test(here, capsys):
    code, out, _ = run(capsys, "range-test", "fastlr.demo.cases:diabetes", "--rule", "sgd", "--png", "r.png")
    assert code == 0
    suggestion = float(out.split()[1])
    assert 0.05 < suggestion < 2 / cases.diabetes().lipschitz
    assert (here / "r.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("entry", ["user_model:bowl", "user_model:Bowl"])
def test_search_and_its_resumption(entry, here, capsys):
    command = ("search", entry, "--rule", "sgd", "--budget", "6", "--steps", "30", "--method", "grid")
    code, out, _ = run(capsys, *command)
    assert code == 0
    assert out.splitlines()[-1].startswith("best: lr 0.1, loss ")
    assert (here / "fastlr-search.db").exists()
    code, again, _ = run(capsys, *command, "--png", "s.png")
    assert "6 of these were in fastlr-search.db already" in again
    assert (here / "s.png").exists()


def test_search_in_processes(here, capsys):
    code, out, _ = run(
        capsys, "search", "fastlr.demo.cases:diabetes", "--rule", "sgd", "--budget", "3", "--steps", "5", "--jobs", "2"
    )
    assert code == 0
    assert "best: lr" in out


def test_compare_prints_every_kind(capsys):
    code, out, _ = run(capsys, "compare", "--epochs", "2")
    assert code == 0
    lines = out.splitlines()
    assert {"fixed", "decay", "cyclical", "adaptive", "LR-free"} <= set(" ".join(lines[1:]).split())
    assert all("%" in line for line in lines[1:])
    assert len(lines) > 8


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("user_model", "entry must be module:name, got 'user_model'"),
        ("no_such_module:x", "there is no module 'no_such_module'"),
        ("user_model:missing", "module 'user_model' has no 'missing'"),
        ("user_model:number", "must be callable, got int"),
        ("user_model:nothing", "must return an objective with .params"),
    ],
)
@pytest.mark.parametrize("command", ["curvature", "range-test", "search"])
def test_bad_entries_are_one_line(command, entry, message, here, capsys):
    code, out, err = run(capsys, command, entry)
    assert (code, out) == (1, "")
    assert err.startswith(f"fastlr {command}: entry")
    assert message in err
    assert err.count("\n") == 1


def test_bad_numbers_and_storage_are_one_line(here, capsys):
    code, _, err = run(capsys, "range-test", "user_model:bowl", "--low", "1", "--high", "0.1")
    assert (code, err) == (1, "fastlr range-test: low must be below high, got low=1.0 and high=0.1\n")
    code, _, err = run(capsys, "search", "user_model:bowl", "--storage", "none/s.db")
    assert code == 1
    assert err.startswith("fastlr search: storage must lie in a directory that exists")


def test_the_current_directory_is_searched(here):
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}
    code = "import sys; from fastlr.__main__ import main; sys.path.remove(''); sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "curvature", "user_model:bowl"],
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
