"""Whether the tests can see a wrong rule: changes each sign, factor, comparison and name of kernels/rules by itself.

    python tools/mutate.py [-j JOBS] [--list] [--sample N --seed S] [text]

A mutant is one change in one line of code: + to −, × to ÷, == to !=, || to &&, > to <, 1 to 0, the arms of ?:
exchanged, a name replaced by its sibling (b1 by b2, m by v and so on) or two fields of a struct exchanged. For each,
the baseline kernels of both types are compiled and linked into a copy of the package outside the repository, and
tests/test_rules.py runs on it. It must fail. `text` keeps the mutants whose line of output contains it. Ends with 1
if one survives.

No mutant here is equivalent to the original, and none is left out by name. What is not mutated, and why: comments,
preprocessor lines and (void) casts, which are no arithmetic; pointers, which are not products; a name whose sibling
is unknown in its function, which does not compile; parameter lists, since a body that does not use the names as meant
is mutated where it uses them.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Queue

ROOT = pathlib.Path(__file__).resolve().parent.parent
RULES = "fastlr/kernels/rules"
COMPILE = ["cc", "-std=c11", "-O0", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden", "-w"]
MUTATED = ["tu/baseline_f32", "tu/baseline_f64"]
TESTS = ["tests/test_rules.py", "tests/test_rows.py", "tests/test_schedule_free.py", "tests/test_matrix.py"]
TESTS += ["tests/test_mechanic.py", "tests/test_elementary.py"]
FAMILIES = {
    "adabelief.h": "AdaBelief",
    "adafactor.h": "Adafactor",
    "adagrad.h": "Adagrad",
    "adam.h": "Adam or AMSGrad",
    "adahessian.h": "AdaHessian",
    "dadapt.h": "DAdapt",
    "distance.h": "DoG or DoWG",
    "hypergradient.h": "HD",
    "lamb.h": "LAMB",
    "lars.h": "LARS",
    "madgrad.h": "MADGRAD",
    "mechanic.h": "Mechanic or mechanic",
    "novograd.h": "NovoGrad",
    "muon.h": "Muon",
    "prodigy.h": "Prodigy",
    "adan.h": "Adan",
    "ademamix.h": "AdEMAMix",
    "asgd.h": "ASGD or asgd",
    "ftrl.h": "Ftrl",
    "schedule_free.h": "ScheduleFree",
    "adopt.h": "Adopt",
    "laprop.h": "LaProp",
    "nadam.h": "NAdam",
    "lazy_adam.h": "LazyAdam",
    "row_adagrad.h": "RowAdagrad",
    "qhadam.h": "QHAdam",
    "qhm.h": "QHM",
    "sophia.h": "Sophia",
    "radam.h": "RAdam",
    "rectify.h": "RAdam or AdaBelief",
    "rmsprop.h": "RMSprop",
    "rprop.h": "Rprop",
    "sgd.h": "SGD",
    "sign.h": "Sign or Lion",
    "stable_adamw.h": "StableAdamW",
    "yogi.h": "Yogi",
}
NO_TESTS = 5  # pytest's exit code

OPERATORS = {
    r"(?<= )\+(?= )": "-",
    r"(?<= )-(?= )": "+",
    r"(?<= )\*(?= )": "/",
    r"(?<= )/(?= )": "*",
    r"\*=": "/=",
    r"/=": "*=",
    r"==": "!=",
    r"!=": "==",
    r"\|\|": "&&",
    r"(?<= )>(?= )": "<",
    r"(?<= )<(?= )": ">",
    r"(?<![\w.])1(?![\w.])": "0",
}
SIBLINGS = ["b1 b2", "a1 a2", "c1 c2", "m v", "v x", "v a", "a b", "mu gain", "alpha mu", "lr_decay eps", "s0 s1"]
SIBLINGS += ["s1 s2", "inside outside", "nu1 nu2", "k1 k2", "n1 n2", "m s", "v q", "eps hat", "t rho", "ahead paced"]
SIBLINGS += ["m n", "m d", "g l", "s l", "less more", "least most", "now next", "b2 b3", "a2 a3", "l rate", "slow s"]
SIBLINGS += ["a1 a3", "p x0", "r most", "corrected safeguard", "d0 growth", "rho eps", "m diagonal", "s diagonal"]


@dataclass(frozen=True)
class Mutant:
    file: str
    line: int
    before: str
    after: str
    text: str  # the whole file, mutated

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.before} -> {self.after}"


def code_of(text: str) -> str:
    """`text` with spaces for all that is not mutated, so that places stay the same."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    for other in (r"/\*.*?\*/", r"//[^\n]*", r"^#[^\n]*", r"\(void\)\w+(, )?"):
        text = re.sub(other, blank, text, flags=re.S | re.M)
    return text


def changes(code: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, replacement) of each change."""
    for struct in re.finditer(r"typedef struct \{.*?\}", code, re.S):
        for fields in re.finditer(r"(?<= )(\w+(?:, \w+)+);", struct[0]):
            names = fields[1].split(", ")
            for k in range(len(names) - 1):
                swapped = [*names[:k], names[k + 1], names[k], *names[k + 2 :]]
                at = struct.start() + fields.start(1)
                yield at, at + len(fields[1]), ", ".join(swapped)
    for function in re.finditer(r"^PER_\w+ [^{]*\{(.*?)^\}", code, re.S | re.M):
        body, start = function[1], function.start(1)
        for pattern, new in OPERATORS.items():
            for found in re.finditer(pattern, body):
                yield start + found.start(), start + found.end(), new
        for arms in re.finditer(r"\? ([^:?;]+) : ([^:?,;]+)", body):
            yield start + arms.start(), start + arms.end(), f"? {arms[2]} : {arms[1]}"
        known = set(re.findall(r"\w+", function[0]))
        members = set(re.findall(r"\w+", code))
        for pair in SIBLINGS:
            for old, new in (pair.split(), pair.split()[::-1]):
                for found in re.finditer(rf"(\.|->)?\b{old}\b", body):
                    if new in (members if found[1] else known):
                        yield start + found.end() - len(old), start + found.end(), new


def mutants() -> list[Mutant]:
    found = []
    for path in sorted((ROOT / RULES).glob("*.h")):
        text = path.read_text()
        for start, end, new in sorted(changes(code_of(text))):
            first, last = text.rfind("\n", 0, start) + 1, text.find("\n", end)
            line = text[first:last]
            mutated = text[:start] + new + text[end:]
            changed = line[: start - first] + new + line[end - first :]
            found.append(Mutant(path.name, text.count("\n", 0, start) + 1, line.strip(), changed.strip(), mutated))
    return found


class Tree:
    """A copy of package and tests in which one mutant at a time is built and tested."""

    def __init__(self, where: pathlib.Path, original: Tree | None = None) -> None:
        self.where = where
        for part in ("fastlr", "tests", "pyproject.toml"):
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, where / part, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
            else:
                shutil.copy(source, where / part)
        self.objects = {} if original is None else dict(original.objects)
        if original is None:
            self.build_all()
        self.originals = {name: self.objects[name] for name in MUTATED}

    def compile(self, source: pathlib.Path, kind: str = "") -> pathlib.Path:
        target = self.where / f"{source.parent.name}-{source.stem}{kind}.o"
        include = [f"-I{self.where / part}" for part in ("fastlr/include", "fastlr/kernels")]
        include.append(f"-I{sysconfig.get_path('include')}")
        run([*COMPILE, *include, "-c", str(source), "-o", str(target)], self.where)
        return target

    def build_all(self) -> None:
        cython = [sys.executable, "-m", "cython", "-3", "fastlr/_core.pyx", "-o", "core.c"]
        run(cython, self.where)
        kernels = self.where / "fastlr/kernels"
        sources = [self.where / "core.c", *kernels.rglob("*.c")]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            made = pool.map(self.compile, sources)
            self.objects = {f"{s.parent.name}/{s.stem}": o for s, o in zip(sources, made, strict=True)}

    def build(self, units: Sequence[str] = MUTATED) -> str | None:
        """Compiles what a rule changes, and links; what the compiler says, if it refuses."""
        for name in units:
            try:
                self.objects[name] = self.compile(self.where / f"fastlr/kernels/{name}.c", "-mutant")
            except subprocess.CalledProcessError as error:
                return str(error.stderr)
        module = self.where / f"fastlr/_core{sysconfig.get_config_var('EXT_SUFFIX')}"
        module.unlink(missing_ok=True)
        run(["cc", "-shared", "-o", str(module), *map(str, self.objects.values()), "-pthread", "-lm"], self.where)
        return None

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        paths = {"PYTHONPATH": str(self.where), "PYTHONDONTWRITEBYTECODE": "1"}
        quick = {"FASTLR_ISA": "baseline", "FASTLR_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        environment = {**os.environ, **paths, **quick}
        return subprocess.run(
            [sys.executable, *arguments], cwd=self.where, env=environment, capture_output=True, text=True, timeout=600
        )

    def test(self, words: str = "", files: Sequence[str] = TESTS) -> subprocess.CompletedProcess[str]:
        chosen = ["-k", words] if words else []
        return self.python(
            "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=no", *chosen, *files
        )

    def try_mutant(self, mutant: Mutant) -> str:
        rule = self.where / RULES / mutant.file
        rule.write_text(mutant.text)
        try:
            if self.build(MUTATED[:1]) is not None:
                return "killed, does not compile"
            # What comes to a verdict soonest first, and only a failure is one: float32 by the family's own cases, then
            # both types by all that names it, then everything.
            words = FAMILIES.get(mutant.file, "")
            result = self.test(f"({words}) and not float64" if words else "not float64", TESTS[:1])
            if result.returncode in (0, NO_TESTS):
                self.build(MUTATED[1:])
                result = self.test(words)
            if result.returncode in (0, NO_TESTS):
                result = self.test()
        except subprocess.TimeoutExpired:
            return "killed, never ends"
        finally:
            shutil.copy(ROOT / RULES / mutant.file, rule)
            self.objects.update(self.originals)
        if result.returncode == 0:
            return "SURVIVED"
        failed = re.search(r"^FAILED \S+::(\S+)", result.stdout, re.M)
        # A crash is a kill; tests that could not start are none.
        if not failed and result.returncode > 0:
            raise RuntimeError(f"{mutant}: pytest did not run\n{result.stdout}\n{result.stderr}")
        return f"killed by {failed[1]}" if failed else f"killed, signal {-result.returncode}"


def run(command: list[str], where: pathlib.Path) -> None:
    subprocess.run(command, cwd=where, check=True, capture_output=True, text=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("text", nargs="?", default="", help="only mutants whose line contains this")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="default: processors")
    parser.add_argument("--list", action="store_true", help="print the mutants and stop")
    parser.add_argument("--sample", type=int, help="only so many of them, chosen at random: all take hours")
    parser.add_argument("--seed", type=int, default=0, help="of the choice")
    arguments = parser.parse_args()
    chosen = [m for m in mutants() if arguments.text in str(m)]
    if arguments.sample is not None and arguments.sample < len(chosen):
        chosen = random.Random(arguments.seed).sample(chosen, arguments.sample)
    if arguments.list:
        print(*chosen, sep="\n")
        return 0

    with tempfile.TemporaryDirectory(prefix="fastlr-mutate-") as scratch:
        first = Tree(pathlib.Path(scratch, "0"))
        if error := first.build():
            raise RuntimeError(error)
        place = first.python("-c", "import fastlr._core as c; print(c.__file__, c.isa())").stdout
        if not place.startswith(scratch) or not place.split()[-1] == "baseline":
            raise RuntimeError(f"the copy is not what Python imports: {place}")
        families = sorted({FAMILIES.get(m.file, "") for m in chosen})
        for words in families:
            if (result := first.test(words)).returncode not in (0, NO_TESTS):
                raise RuntimeError(f"the tests fail without any mutation\n{result.stdout}")

        trees: Queue[Tree] = Queue()
        trees.put(first)
        for k in range(1, arguments.jobs):
            trees.put(Tree(pathlib.Path(scratch, str(k)), first))

        def attempt(mutant: Mutant) -> bool:
            tree = trees.get()
            try:
                verdict = tree.try_mutant(mutant)
            finally:
                trees.put(tree)
            print(f"{mutant}  {verdict}", flush=True)
            return verdict != "SURVIVED"

        with ThreadPoolExecutor(arguments.jobs) as pool:
            killed = list(pool.map(attempt, chosen))
    print(f"{len(killed)} mutants, {sum(killed)} killed, {len(killed) - sum(killed)} survived")
    return 0 if all(killed) else 1


if __name__ == "__main__":
    sys.exit(main())
