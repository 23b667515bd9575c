"""The vectorisation gate: every loop of every rule, for every type and instruction set, must be vectorised.

Compiles each file of kernels/tu/ as setup.py does, with the compiler's report on. gcc names the line of a loop but
not the rule it belongs to, so the gate compiles each rule alone: the template is included once, with one `sweep.h`,
and the report must have a remark for each of its loops (with and without zeroing the gradients; the survey's), of the
width of the instruction set. The sums of `rows.h` are compiled in the same way.

    python tools/vectorised.py [--cc gcc] [-j JOBS] [rule ...]
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parent.parent
KERNELS = ROOT / "fastlr" / "kernels"
FLAGS = re.search(r"^FLAGS = \[(.*)\]", (ROOT / "setup.py").read_text(), re.M).group(1).replace('"', "").split(", ")
WIDTH = {"baseline": 16, "avx2": 32, "avx512": 64}  # bytes of a register, x86-64
REMARK = {
    "gcc": (["-fopt-info-vec-optimized"], r"\d+: optimized: loop vectorized using (\d+) byte vectors"),
    "clang": (["-Rpass=loop-vectorize"], r"\d+: remark: vectorized loop \(vectorization width: (\d+)"),
}
# What has loops of its own, and where the table refers to it.
OWN = {
    "rows": ", .add_rows = add_rows, .narrow_row = narrow_row",
    "factored": ", .others = others, .factored = &factored",
}
ROWS = (KERNELS / "rows.h").read_text().count("add_some(n,") + 1  # each a loop, and the one that narrows
FACTORED = r"for \(size_t (k = 0; k < LANES|j = first; j < end|j = 0; j < cols); .\+\+\)( \{)?"


def rules() -> dict[str, str]:
    """Every rule that includes the template, with the parameters it gives it."""
    headers = [*sorted(KERNELS.glob("rules/*.h")), KERNELS / "floor.h"]
    return {
        rule: parameters
        for header in headers
        for rule, parameters in re.findall(r"#define RULE (\w+)\n((?:#define .*\n)*)", header.read_text())
    }


def source(unit: pathlib.Path, rule: str) -> str:
    """The unit with one rule alone in its table, "rows" or "factored": the compiler drops what is static and unused."""
    text = (KERNELS / "kernels.h").read_text()
    table = re.search(r"static const fastlr_rule \*const rules\[\] = \{(.*?)\};", text, re.S)
    text = text[: table.start(1)] + ("" if rule in OWN else f"&{rule}_rule, ") + "NULL" + text[table.end(1) :]
    own = OWN.get(rule, "")
    text = re.sub(r"(TABLE = \{\s*\.rules = rules).*?\};", rf"\1{own}}};", text, flags=re.S)
    return re.sub(r'#include "../kernels.h"', lambda _: text, unit.read_text())


def remarks(cc: str, unit: pathlib.Path, rule: str, place: str, sums: bool, wider: bool = False) -> int:
    """How many vectorised loops at `place`, of the instruction set's full width, the compiler reports."""
    flags, pattern = REMARK["clang" if "clang" in cc else "gcc"]
    full = WIDTH[unit.stem.split("_")[0]]
    with tempfile.NamedTemporaryFile("w", suffix=".c") as file:
        file.write(source(unit, rule))
        file.flush()
        includes = [f"-I{KERNELS}", f"-I{KERNELS.parent / 'include'}"]
        command = [cc, *FLAGS, "-w", *flags, *includes, "-c", file.name, "-o", "/dev/null"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    # gcc says bytes; clang says elements, of which those of a sum are double.
    items = {1} if "clang" not in cc else {8 if unit.stem.endswith("f64") else 4} | ({8} if sums else set())
    return sum(
        (int(width) * item >= full) if wider else (int(width) * item == full)
        for width in re.findall(place + pattern, done.stderr)
        for item in items
    )


def stored(cc: str, unit: pathlib.Path) -> tuple[int, int]:
    """Loops of store.h, and how many of them the compiler reports as vectorised at the full width of float32."""
    flags, pattern = REMARK["clang" if "clang" in cc else "gcc"]
    includes = [f"-I{KERNELS}", f"-I{KERNELS.parent / 'include'}"]
    command = [cc, *FLAGS, "-w", *flags, *includes, "-c", str(unit), "-o", "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    text = (KERNELS / "store.h").read_text()
    loops = len(re.findall(r"^(?:LOAD|SAVE)(?:_BY_CHANCE|_BLOCK)?\(|^    for \(", text, re.M))
    loops += len(re.findall(r"^SAVE_BLOCK\(", text, re.M))  # which call largest_of() of bits.h
    full = WIDTH[unit.stem] // (4 if "clang" in cc else 1)  # clang counts elements
    return loops, sum(int(width) >= full for width in re.findall(r"(?:store|bits)\.h:\d+:" + pattern, done.stderr))


def factored() -> list[int]:
    """The lines of factored.h where a loop over elements starts."""
    lines = (KERNELS / "factored.h").read_text().splitlines()
    return [k for k, line in enumerate(lines, 1) if re.fullmatch(FACTORED, line.strip())]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rules", nargs="*", help="only these; default: all, and what else has loops")
    parser.add_argument("--cc", default="gcc")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count(), help="default: processors")
    arguments = parser.parse_args()
    cc, units = arguments.cc, sorted((KERNELS / "tu").glob("*.c"))

    def of_rule(rule: str, parameters: str) -> list[tuple[int, bool]]:
        # The compiler may make several of one loop, by the loop-invariant conditions, never fewer.
        surveyed = "SURVEY" in parameters or "CAUTIOUS" in parameters
        place = rf"{'rows' if rule == 'rows' else 'sweep'}\.h:\d+:"
        found = [remarks(cc, unit, rule, place, surveyed or "TRAIL" in parameters) for unit in units]
        loops = ROWS if rule == "rows" else 2 + surveyed
        return [(n, n >= loops) for n in found]

    def of_line(line: int) -> list[tuple[int, bool]]:
        found = [remarks(cc, unit, "factored", rf"factored\.h:{line}:", sums=True) for unit in units]
        return [(n, n > 0) for n in found]

    def of_fused(rule: str) -> list[tuple[int, bool]]:
        # For three pairs of parameters and gradients: two loops in 8 bits, one in bfloat16; none in float64.
        narrow = [unit.stem.endswith("f32") for unit in units]
        place = r"fused\.h:\d+:"
        found = [
            remarks(cc, u, rule, place, False, wider=True) if some else 0 for u, some in zip(units, narrow, strict=True)
        ]
        return [(n, n >= 9 * some) for n, some in zip(found, narrow, strict=True)]

    known = {**rules(), "rows": "TRAIL"}  # whose sums are double too
    if unknown := {*arguments.rules} - {*known}:
        parser.error(f"no rule {', '.join(sorted(unknown))}")
    failed = 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        rows = {rule: pool.submit(of_rule, rule, known[rule]) for rule in arguments.rules or known}
        rows |= {f"{rule} fused": pool.submit(of_fused, rule) for rule in [*rows] if "FUSED" in known[rule]}
        if not arguments.rules:
            rows |= {f"factored.h:{line}": pool.submit(of_line, line) for line in factored()}
        for name, row in rows.items():
            cells = [f"{unit.stem} {n}" for unit, (n, _) in zip(units, row.result(), strict=True)]
            print(f"{name:26} {'   '.join(cells)}", flush=True)
            failed += any(not good for _, good in row.result())
    for unit in [] if arguments.rules else sorted((KERNELS / "store").glob("*.c")):
        loops, found = stored(cc, unit)
        print(f"{'store.h':26} {unit.stem} {found} of {loops}", flush=True)
        failed += found < loops
    print(f"{failed} not vectorised" if failed else f"all vectorised by {cc}")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
