"""What the second run of CI leaves out, and what it must not."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

from tests.again import Watch

ROOT = pathlib.Path(__file__).resolve().parent.parent
SUITE = {
    "test_one.py": """
import importlib.util, subprocess, sys
import pytest

def test_plain(): pass
def test_needs(): pytest.importorskip("late")
def test_goes_on_without(): importlib.util.find_spec("late")
def test_in_a_process(): subprocess.run([sys.executable, "-c", "pass"], check=True)
def test_of_a_fixture(fresh): pass

@pytest.fixture
def fresh(): return importlib.util.find_spec("late")

def test_fails(): assert importlib.sys.flags.optimize
""",
    "test_fixture.py": """
import importlib.util
import pytest

@pytest.fixture(scope="module")
def shared(): return importlib.util.find_spec("late")

def test_first(shared): pass
def test_second(shared): pass
""",
    "test_file.py": """
import importlib.util
HAVE = importlib.util.find_spec("late")

def test_whole(): pass
""",
}
LATER = {
    *(f"test_one.py::test_{name}" for name in ("needs", "goes_on_without", "in_a_process", "of_a_fixture", "fails")),
    *("test_fixture.py::test_first", "test_fixture.py::test_second", "test_file.py::test_whole"),
}


def ran(place, *options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(place / "libraries")])}
    command = [sys.executable, "-m", "pytest", "-v", "-p", "tests.again", "-p", "no:cacheprovider", *options]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=120)
    lines = [line.split() for line in done.stdout.splitlines()]
    return {x[0] for x in lines if len(x) > 1 and x[1] in ("PASSED", "SKIPPED", "FAILED")}, done.stdout + done.stderr


@pytest.fixture
def suite(tmp_path):
    for name, text in SUITE.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "libraries").mkdir()
    first, printed = ran(tmp_path, "--note", "note")
    assert first == {*LATER, "test_one.py::test_plain"}, printed
    (tmp_path / "libraries" / "late.py").write_text("")
    return tmp_path


def test_only_what_could_not_be_another_is_left_out(suite):
    again, printed = ran(suite, "--beyond", "note")
    assert again == LATER, printed
    assert "not again: 1 tests" in printed
    assert "1 deselected" in printed


def test_other_versions_bring_all_back(suite):
    note = suite / "note"
    note.write_text(note.read_text().replace(pytest.__version__, "0.1"))
    again, printed = ran(suite, "--beyond", "note")
    assert again == {*LATER, "test_one.py::test_plain"}
    assert "not again: 0 tests, for other versions of pytest" in printed


def test_a_note_must_be_there(tmp_path):
    _, printed = ran(tmp_path, "--beyond", "note")
    assert "--beyond must be what --note wrote, got note: No such file or directory" in printed


def test_a_shared_module_that_went_on_without_is_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    watch = Watch()
    for name in ("tests.goes_on", "elsewhere.goes_on"):
        path = tmp_path / f"{name}.py"
        path.write_text("import importlib.util\nimportlib.util.find_spec('not_there')\n")
        spec = importlib.util.spec_from_file_location(name, path)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert watch.modules == {"tests.goes_on"}
    assert watch.take() == {"not_there"}
