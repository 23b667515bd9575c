"""The vectorisation gate: every loop of every rule, for every type and instruction set, must be vectorised.

Compiles each file of kernels/tu/ as setup.py does, with the compiler's report on. Compilers name the file and the line
of a loop but not the rule it belongs to, so the files are compiled in a copy of the kernels where each rule includes a
template of its own: `sweep-adam.h` is `sweep.h`. The report must have a remark for each loop of a rule (with and
without zeroing the gradients, of whole strides and of what is left; the survey's), of the width of the instruction set.
The sums of `rows.h`, the loops of `factored.h` and those of store/*.c are looked for in the same way.

    python tools/vectorised.py [--cc gcc] [-j JOBS] [rule ...]
"""

from __future__ import annotations

import argparse
import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
KERNELS = ROOT / "fastlr" / "kernels"
FLAGS = re.search(r"^FLAGS = \[(.*)\]", (ROOT / "setup.py").read_text(), re.M).group(1).replace('"', "").split(", ")
WIDTH = {"baseline": 16, "avx2": 32, "avx512": 64}  # bytes of a register, x86-64
REMARK = {
    "gcc": (
        ["-fopt-info-vec-missed", "-fopt-info-loop-optimized"],
        r"optimized: loop vectorized using (\d+) byte vectors",
    ),
    "clang": (["-Rpass=loop-vectorize"], r"remark: vectorized loop \(vectorization width: (\d+)"),
}
LEFT = r"(?:missed: couldn't vectorize loop|optimized: loop with \d+ iterations completely unrolled)"  # by gcc
FACTORED = r"for \(size_t (k = 0; k < LANES|j = first; j < end|j = 0; j < cols); .\+\+\)( \{)?"


class Remark(NamedTuple):
    file: str
    line: int
    width: int  # bytes by gcc, elements by clang; 0: not vectorised


class Loops(NamedTuple):
    """Loops of one file, and how many remarks there must be of them in each of some units.

    The compiler may make several of one loop, by the loop-invariant conditions, never fewer.
    """

    name: str
    file: str
    least: int
    line: int | None = None
    units: str = "tu/*.c"
    sums: bool = False  # which are double
    wider: bool = False  # in registers of several sizes, where numbers of fewer bits are widened
    few: bool = False  # where no more REGISTERS are defined: marked !ONCE in pairs.h
    by_hand: bool | None = None  # whether only where VECTORS is defined, or only elsewhere
    every: bool = False  # the compiler must leave none

    def made(self, unit: pathlib.Path) -> bool:
        """Whether a unit has them."""
        if not unit.match(self.units) or (self.few and "#define REGISTERS" in unit.read_text()):
            return False
        return self.by_hand in (None, "#define VECTORS" in unit.read_text())

    def found(self, cc: str, unit: pathlib.Path, report: list[Remark]) -> int:
        """The remarks of a unit that are of these loops, of the instruction set's full width."""
        full, sizes = WIDTH[unit.stem.split("_")[0]], {1}
        if "clang" in cc:
            sizes = {8 if unit.stem.endswith("f64") else 4} | ({8} if self.sums else set())
        own = [x for x in report if re.fullmatch(self.file, x.file) and self.line in (None, x.line)]
        if self.every and any(remark.width == 0 for remark in own):
            return 0
        return sum(
            any(remark.width * size == full or (self.wider and remark.width * size > full) for size in sizes)
            for remark in own
        )


def rules(text: str) -> dict[str, str]:
    """Every rule of a header that includes the template, with the parameters it gives it."""
    return dict(re.findall(r"#define RULE (\w+)\n((?:#define .*\n)*)", text))


def headers(kernels: pathlib.Path) -> list[pathlib.Path]:
    return [*sorted(kernels.glob("rules/*.h")), kernels / "floor.h"]


def own_name(file: str, rule: str) -> str:
    """A rule's own copy of a template."""
    return f"{pathlib.Path(file).stem}-{rule}.h"


def name_templates(kernels: pathlib.Path) -> None:
    """Gives each rule templates of its own, named after it."""
    files = ["sweep.h", "fused.h", "fused/lanes.h", "fused/pairs.h"]
    for header in headers(kernels):
        text = header.read_text()
        for rule in rules(text):
            own = rf"(#define RULE {rule}\n(?:#define .*\n)*#include \"(?:\.\./)?)sweep\.h"
            text, found = re.subn(own, rf"\1sweep-{rule}.h", text)
            assert found == 1, (header, rule)
            for file in files:
                template = (kernels / file).read_text()
                for other in files:
                    template = template.replace(f'"{other}"', f'"{own_name(other, rule)}"')
                (kernels / own_name(file, rule)).write_text(template)
        header.write_text(text)


def fill_table(names: list[str], kernels: pathlib.Path) -> None:
    """Has the table hold these rules: the compiler drops what is static and unused, and of rows.c's rules one loop."""
    header = kernels / "kernels.h"
    table = "".join(f"&{name}_rule, " for name in names)
    header.write_text(re.sub(r"(\*const rules\[\] = \{).*?\};", rf"\1{table}NULL}};", header.read_text(), flags=re.S))


def remarks(cc: str, kernels: pathlib.Path, unit: pathlib.Path) -> list[Remark]:
    """The loops of a file that the compiler says it has vectorised."""
    flags, pattern = REMARK["clang" if "clang" in cc else "gcc"]
    includes = [f"-I{kernels}", f"-I{KERNELS.parent / 'include'}"]
    command = [cc, *FLAGS, "-w", *flags, *includes, "-c", str(unit), "-o", os.devnull]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    found = re.findall(rf"([\w-]+\.h):(\d+):\d+: (?:{pattern}|{LEFT})", done.stderr)
    return [Remark(file, int(line), int(width or 0)) for file, line, width in found]


def marked(file: str, mark: str) -> list[tuple[int, str]]:
    """The lines after those that have only this, and their numbers."""
    lines = (KERNELS / "fused" / file).read_text().splitlines()
    return [(k, x) for k, x in enumerate(lines[1:], 2) if lines[k - 2].strip() == mark]


def loops_of(rule: str, given: str, cc: str) -> list[Loops]:
    """Those that a rule has by its parameters."""
    surveyed = "SURVEY" in given or "CAUTIOUS" in given
    trailed = "TRAIL" in given  # by lanes; others by strides, and what is left
    found = [Loops(rule, f"sweep-{rule}.h", (2 if trailed else 4) + surveyed, sums=surveyed or trailed)]
    if "FUSED" in given:  # three pairs of parameters and gradients, plain ones and others
        own = functools.partial(Loops, units="tu/*_f32.c", wider=True)
        # With vectors of their own gcc's are by lanes: twice for bfloat16 state, four times for 8-bit state.
        lanes = "clang" not in cc
        for k, x in marked("pairs.h", "INDEPENDENT"):
            elsewhere = False if lanes else None
            found.append(own(f"{rule} pairs:{k}", f"pairs-{rule}.h", 6, k, few="!ONCE" in x, by_hand=elsewhere))
        for k, _ in marked("lanes.h", "BY_LANE") if lanes else []:
            found.append(own(f"{rule} lanes:{k}", f"lanes-{rule}.h", 36, k, by_hand=True, every=True))
    return found


def row_loops() -> Loops:
    """Those of rows.h: two for each count, and the one that narrows; of doubles, two of them are memcpy()."""
    count = 2 * len(re.findall(r"^ +ADD\(", (KERNELS / "rows.h").read_text(), re.M)) - 1
    return Loops("rows", "rows.h", count, sums=True)


def other_loops() -> list[Loops]:
    """Those of factored.h, a line each, and of store.h."""
    lines = enumerate((KERNELS / "factored.h").read_text().splitlines(), 1)
    found = [
        Loops(f"factored.h:{k}", "factored.h", 1, k, sums=True) for k, x in lines if re.fullmatch(FACTORED, x.strip())
    ]
    for by_hand, name in (False, "store.h"), (True, "store.h by hand"):
        floats, doubles = store_loops(by_hand)
        store = functools.partial(Loops, file="store.h|bits.h", units="store/*.c", wider=True, by_hand=by_hand)
        found += [store(name, least=floats), store(f"{name}, doubles", least=floats + doubles, sums=True)]
    return found


def store_loops(by_hand: bool) -> tuple[int, int]:
    """How many loops store.h has with VECTORS or without, but for those by lanes; and how many more of doubles."""
    text = (KERNELS / "store.h").read_text()
    text = re.sub(r"#ifdef VECTORS\n(.*?)(?:#else\n(.*?))?#endif\n", rf"\{1 if by_hand else 2}", text, flags=re.S)
    blocks = "LANE_COUNT" not in text  # the first of a block's calls largest_of() of bits.h
    several = {"LOAD_BLOCK": blocks, "SAVE_BLOCK": 1 + blocks, "KAHAN": 2, "EXTRAS": 3}
    names = "LOAD|SAVE|LOAD_BLOCK|SAVE_BLOCK|SAVE_BY_CHANCE|KAHAN|EXTRAS"
    made = [
        (several.get(name, 1), "double" in given)
        for name, given in re.findall(rf"^({names})\((.*)\)$|^    for \((?!.*(?:LANE_COUNT|DUO|\\$))", text, re.M)
    ]
    return sum(n for n, wide in made if not wide), sum(n for n, wide in made if wide)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rules", nargs="*", help="only these; default: all, and what else has loops")
    parser.add_argument("--cc", default="gcc")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count(), help="default: processors")
    arguments = parser.parse_args()
    cc, chosen = arguments.cc, arguments.rules
    if not shutil.which(cc):
        parser.error(f"there is no {cc}: install it, or name another by --cc")
    known = {rule: given for header in headers(KERNELS) for rule, given in rules(header.read_text()).items()}
    if unknown := {*chosen} - {*known, "rows"}:
        parser.error(f"no rule {', '.join(sorted(unknown))}")
    some = [rule for rule in chosen or known if rule != "rows"]
    expected = [loops for rule in some for loops in loops_of(rule, known[rule], cc)]
    expected += [row_loops()] if not chosen or "rows" in chosen else []
    expected += [] if chosen else other_loops()

    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(arguments.jobs) as pool:
        kernels = pathlib.Path(directory, "kernels")
        shutil.copytree(KERNELS, kernels)
        name_templates(kernels)
        fill_table(some, kernels)
        compiled = dict.fromkeys(unit for loops in expected for unit in sorted(kernels.glob(loops.units)))
        reports = dict(zip(compiled, pool.map(lambda unit: remarks(cc, kernels, unit), compiled), strict=True))
        places = [[unit for unit in reports if loops.made(unit)] for loops in expected]

    failed = 0
    for loops, units in zip(expected, places, strict=True):
        found = {unit.stem: loops.found(cc, unit, reports[unit]) for unit in units}
        good = min(found.values()) >= loops.least
        cells = "   ".join(f"{unit} {count}" for unit, count in found.items())
        print(f"{loops.name:26} {cells}{'' if good else f'   of {loops.least}'}")
        failed += not good
    print(f"{failed} not vectorised" if failed else f"all vectorised by {cc}")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
