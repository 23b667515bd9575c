"""What a run of the suite with more libraries installed need not do again. A plugin; .ci/run is what uses it.

    pytest -p tests.again --note FILE      writes what a later run may leave out
    pytest -p tests.again --beyond FILE    leaves that out

A test may be left out if it passed and nothing asked, in vain, for a module: not the test, its fixtures, the collection
of its file, nor what they called. That is seen by a finder that comes after all others. Nothing is seen in other
processes, so a test that starts one is not left out. And none is, where it cannot be told which tests see a difference:
if a module of this project went on without what it asked for while it was imported, or if a library of the first run
has another version now.
"""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
import resource
import sys
from collections import defaultdict

import pytest

PROCESS = "what another process finds"
STARTS = {"subprocess.Popen", "os.fork", "os.posix_spawn", "os.system"}  # events of `sys.audit`


def versions():
    return {x.name: x.version for x in importlib.metadata.distributions()}


def ended_processes():
    """A number that grows with each: not every way to start one is told to `sys.audit`."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt


def importing():
    """The module of this project that asks for another while it is imported, if one does."""
    frame = sys._getframe(2)
    while frame:
        module = frame.f_globals.get("__name__", "")
        ours = module.partition(".")[0] in ("fastlr", "tests")
        if ours and frame.f_code.co_name == "<module>":
            return module
        if not ours and not module.removeprefix("_frozen_").startswith("importlib"):
            return None
        frame = frame.f_back
    return None


class Watch:
    """What is asked for in vain, where tests run: in each worker of xdist, if there are some."""

    def __init__(self):
        self.asked = set()  # since it was last taken
        self.shared = defaultdict(set)  # by what has a file or a fixture in common: the start of the tests' names
        self.modules = set()  # that asked while they were imported
        self.ended = ended_processes()
        sys.meta_path.append(self)
        sys.addaudithook(lambda event, _: event in STARTS and self.asked.add(PROCESS))

    def find_spec(self, name, path=None, target=None):
        """Called for what no finder before has found."""
        self.asked.add(name)
        if module := importing():
            self.modules.add(module)

    def take(self):
        if self.ended != (ended := ended_processes()):
            self.ended = ended
            self.asked.add(PROCESS)
        asked, self.asked = self.asked, set()
        return asked

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector):
        self.take()
        report = yield
        self.shared[collector.nodeid] |= self.take()
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef, request):
        before = self.take()
        try:
            return (yield)
        finally:
            asked = self.take()
            if fixturedef.scope != "function":
                self.shared[request.node.nodeid] |= asked
            self.asked = before | asked

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        asked = self.take().union(*(names for start, names in self.shared.items() if item.nodeid.startswith(start)))
        item.user_properties += [("asked", name) for name in sorted(asked)]
        item.user_properties += [("imported without", module) for module in self.modules if module in sys.modules]
        return (yield)


class Note:
    """Writes what `Watch` saw, once all tests have run."""

    def __init__(self, path):
        self.path, self.clean, self.other, self.modules = path, {}, set(), set()

    def pytest_runtest_logreport(self, report):
        properties = dict(map(tuple, report.user_properties))
        if module := properties.get("imported without"):
            self.modules.add(module)
        if report.outcome != "passed" or properties:
            self.other.add(report.nodeid)
        self.clean[report.nodeid] = report.nodeid not in self.other and report.when == "teardown"

    def pytest_sessionfinish(self, session):
        passed = [] if self.modules else sorted(name for name, clean in self.clean.items() if clean)
        self.path.write_text(json.dumps({"versions": versions(), "passed": passed, "modules": sorted(self.modules)}))


class Beyond:
    """Leaves out what is in the note."""

    def __init__(self, path):
        try:
            noted = json.loads(path.read_text())
        except OSError as error:
            raise pytest.UsageError(f"--beyond must be what --note wrote, got {path}: {error.strerror}") from None
        now = versions()
        self.passed, self.why = set(noted["passed"]), ""
        if other := [name for name, version in noted["versions"].items() if now.get(name) != version]:
            self.passed, self.why = set(), f"other versions of {', '.join(sorted(other))}"
        elif noted["modules"]:
            self.why = f"what {', '.join(noted['modules'])} asked for when imported matters to any test"

    def pytest_report_header(self):
        return f"not again: {len(self.passed)} tests{self.why and f', for {self.why}'}"

    def pytest_collection_modifyitems(self, config, items):
        left_out = [item for item in items if item.nodeid in self.passed]
        items[:] = [item for item in items if item.nodeid not in self.passed]
        config.hook.pytest_deselected(items=left_out)


def pytest_addoption(parser):
    group = parser.getgroup("again")
    group.addoption("--note", type=pathlib.Path, help="where to write what a run with more libraries may leave out")
    group.addoption("--beyond", type=pathlib.Path, help="leave out what --note wrote there")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config):
    if early_config.known_args_namespace.note is not None:  # before they import what tests share
        early_config.pluginmanager.register(Watch())


def pytest_configure(config):
    if (note := config.getoption("note")) is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Note(note))
    if (beyond := config.getoption("beyond")) is not None:
        config.pluginmanager.register(Beyond(beyond))
