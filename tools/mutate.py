"""Whether the tests can see a wrong rule: changes each sign, factor, comparison and name of kernels/rules by itself.

    python tools/mutate.py [-j JOBS] [--list] [--sample N --seed S] [text]

A mutant is one change in one line of code: + to −, × to ÷, == to !=, || to &&, > to <, 1 to 0, the arms of ?:
exchanged, a name replaced by its sibling (b1 by b2, m by v and so on) or two fields exchanged of a struct that is
filled by place. For each, the rules of that file are compiled for the baseline, in both types, and put in the place of
the original ones in a process that has collected the tests: judge.py. They must fail. `text` keeps the mutants whose
line of output contains it. Ends with 1 if one survives.

No mutant here is equivalent to the original, and none is left out by name. What is not mutated, and why: comments,
preprocessor lines and (void) casts, which are no arithmetic; pointers, which are not products; a name whose sibling
is unknown in its function, which does not compile; parameter lists, since a body that does not use the names as meant
is mutated where it uses them.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Queue

ROOT = pathlib.Path(__file__).resolve().parent.parent
RULES = "fastlr/kernels/rules"
CC = "clang" if shutil.which("clang") else "cc"  # gcc takes eight times as long over rules that are not used
COMPILE = [CC, "-std=c11", "-D_DEFAULT_SOURCE", "-O0", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-w"]
MUTATED = ["fastlr/kernels/tu/baseline_f32.c", "fastlr/kernels/tu/baseline_f64.c"]
BESIDE = ["fastlr/kernels/prefetch.c", "tools/mutation/install.c"]
TESTS = ["tests/test_rules.py", "tests/test_rows.py", "tests/test_schedule_free.py", "tests/test_matrix.py"]
TESTS += ["tests/test_mechanic.py", "tests/test_elementary.py"]
# Whose tests see a file's rules first.
FAMILIES = {
    "adabelief.h": ["AdaBelief"],
    "adafactor.h": ["Adafactor"],
    "adagrad.h": ["Adagrad"],
    "adam.h": ["Adam", "AMSGrad"],
    "adahessian.h": ["AdaHessian"],
    "dadapt.h": ["DAdapt"],
    "distance.h": ["DoG", "DoWG"],
    "hypergradient.h": ["HD"],
    "lamb.h": ["LAMB"],
    "lars.h": ["LARS"],
    "madgrad.h": ["MADGRAD"],
    "mechanic.h": ["Mechanic", "mechanic"],
    "novograd.h": ["NovoGrad"],
    "muon.h": ["Muon"],
    "prodigy.h": ["Prodigy"],
    "adan.h": ["Adan"],
    "ademamix.h": ["AdEMAMix"],
    "asgd.h": ["ASGD", "asgd"],
    "ftrl.h": ["Ftrl"],
    "schedule_free.h": ["ScheduleFree"],
    "adopt.h": ["Adopt"],
    "laprop.h": ["LaProp"],
    "nadam.h": ["NAdam"],
    "lazy_adam.h": ["LazyAdam"],
    "row_adagrad.h": ["RowAdagrad"],
    "qhadam.h": ["QHAdam"],
    "qhm.h": ["QHM"],
    "sophia.h": ["Sophia"],
    "radam.h": ["RAdam"],
    "rectify.h": ["RAdam", "AdaBelief"],
    "rmsprop.h": ["RMSprop"],
    "rprop.h": ["Rprop"],
    "sgd.h": ["SGD"],
    "sign.h": ["Sign", "Lion"],
    "stable_adamw.h": ["StableAdamW"],
    "yogi.h": ["Yogi"],
}

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
    for struct in re.finditer(r"typedef struct \{.*?\} (\w+);", code, re.S):
        if re.search(rf"{struct[1]}(\)| \w+ = )\{{\s*\.", code):  # filled by name: in any order
            continue
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
    """A copy of package and tests, with all of its C compiled as it is and open to other libraries."""

    def __init__(self, where: pathlib.Path) -> None:
        self.where = where
        for part in ("fastlr", "tests", "tools/mutation", "conftest.py", "pyproject.toml"):
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, where / part, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
            else:
                shutil.copy(source, where / part)

    def compile(self, sources: list[str], *options: str) -> None:
        include = [f"-I{self.where / part}" for part in ("fastlr/include", "fastlr/kernels")]
        include.append(f"-I{sysconfig.get_path('include')}")
        run([*COMPILE, *include, *sources, *options], self.where)

    def build(self) -> None:
        run([sys.executable, "-m", "cython", "-3", "fastlr/_core.pyx", "-o", "core.c"], self.where)
        kernels = sorted(str(path.relative_to(self.where)) for path in (self.where / "fastlr/kernels").rglob("*.c"))
        objects = {source: source.replace("/", "-")[:-2] + ".o" for source in ["core.c", *kernels]}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda source: self.compile([source], "-c", "-o", objects[source]), objects))
        module = f"fastlr/_core{sysconfig.get_config_var('EXT_SUFFIX')}"
        self.compile([*objects.values()], "-shared", "-o", module, "-pthread", "-lm")

    def build_library(self) -> pathlib.Path:
        """The rules of the table, to be put in the place of those that are loaded."""
        library = self.where / "mutant.so"
        sources = [*MUTATED, *BESIDE]
        self.compile(sources, "-fvisibility=hidden", "-shared", "-o", str(library), "-lm")
        return library

    def build_mutant(self, mutant: Mutant) -> pathlib.Path:
        """The same with the mutant's rules alone in the table, which takes a tenth of the time."""
        rule, header = self.where / RULES / mutant.file, self.where / "fastlr/kernels/kernels.h"
        originals = {path: path.read_text() for path in (rule, header)}
        own = re.findall(r"^#define RULE (\w+)", mutant.text, re.M)
        if own:
            only = "".join(f"&{name}_rule, " for name in own if f" &{name}_rule," in originals[header])
            table = rf"\1{only}NULL}};"
            header.write_text(re.sub(r"(\*const rules\[\] = \{).*?\};", table, originals[header], count=1, flags=re.S))
        rule.write_text(mutant.text)
        try:
            return self.build_library()
        finally:
            for path, text in originals.items():
                path.write_text(text)


class Worker:
    """A tree of its own to compile mutants in, and a process that has collected the tests of the first tree."""

    def __init__(self, place: Tree, first: Tree) -> None:
        self.place = place
        quick = {"FASTLR_ISA": "baseline", "FASTLR_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        own = {"PYTHONPATH": str(first.where), "PYTHONDONTWRITEBYTECODE": "1"}
        self.judge = subprocess.Popen(
            [sys.executable, "tools/mutation/judge.py", *TESTS],
            cwd=first.where,
            env={**os.environ, **own, **quick},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def first_failure(self, library: pathlib.Path, words: list[str], everywhere: bool) -> str:
        """The first test that fails, if one does: of those with one of the words, or then of all."""
        job = [str(library), words, everywhere]
        assert self.judge.stdin
        assert self.judge.stdout
        self.judge.stdin.write(json.dumps(job) + "\n")
        self.judge.stdin.flush()
        if not (answer := self.judge.stdout.readline()):
            raise RuntimeError("the process that runs the tests has ended")
        return answer.strip()

    def killer(self, mutant: Mutant) -> str:
        """What sees the mutant, if anything does."""
        try:
            library = self.place.build_mutant(mutant)
        except subprocess.CalledProcessError:
            return "the compiler"
        return self.first_failure(library, words_of(mutant), True)


def words_of(mutant: Mutant) -> list[str]:
    return FAMILIES.get(mutant.file, [mutant.file[:-2]])


def run(command: list[str], where: pathlib.Path) -> None:
    subprocess.run(command, cwd=where, check=True, capture_output=True, text=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("text", nargs="?", default="", help="only mutants whose line contains this")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="default: processors")
    parser.add_argument("--list", action="store_true", help="print the mutants and stop")
    parser.add_argument("--sample", type=int, help="only so many of them, chosen at random")
    parser.add_argument("--seed", type=int, default=0, help="of the choice")
    arguments = parser.parse_args()
    chosen = [m for m in mutants() if arguments.text in str(m)]
    if arguments.sample is not None and arguments.sample < len(chosen):
        chosen = random.Random(arguments.seed).sample(chosen, arguments.sample)
    if arguments.list:
        print(*chosen, sep="\n")
        return 0

    with tempfile.TemporaryDirectory(prefix="fastlr-mutate-") as scratch:
        trees = [Tree(pathlib.Path(scratch, str(k))) for k in range(arguments.jobs)]
        trees[0].build()
        workers = [Worker(tree, trees[0]) for tree in trees]
        free: Queue[Worker] = Queue()
        for worker in workers:
            free.put(worker)

        def killer_of(mutant: Mutant) -> str:
            worker = free.get()
            try:
                killer = worker.killer(mutant)
            finally:
                free.put(worker)
            print(f"{mutant}  {f'killed by {killer}' if killer else 'SURVIVED'}", flush=True)
            return killer

        with ThreadPoolExecutor(arguments.jobs) as pool:
            killers = list(pool.map(killer_of, chosen))
        # What killed must pass on the rules as they are, compiled and put in place as a mutant is.
        tests = sorted({killer for killer in killers if killer.startswith("test_")})
        if failed := workers[0].first_failure(trees[0].build_library(), tests, False):
            raise RuntimeError(f"{failed} fails without any mutation too")
        for worker in workers:
            worker.judge.communicate()
    survived = killers.count("")
    print(f"{len(killers)} mutants, {len(killers) - survived} killed, {survived} survived")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
