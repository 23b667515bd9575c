"""The vectorisation gate: every loop of every rule, for every type and instruction set, must be vectorised.

Compiles each file of kernels/tu/ as setup.py does, with the compiler's report on. gcc names the line of a loop but
not the rule it belongs to, so the gate compiles each rule alone: the template is included once, with one `sweep.h`,
and the report must have a remark for each of its two loops (with and without zeroing the gradients), of the width of
the instruction set.

    python tools/vectorised.py [--cc gcc]
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
KERNELS = ROOT / "fastlr" / "kernels"
FLAGS = re.search(r"^FLAGS = \[(.*)\]", (ROOT / "setup.py").read_text(), re.M).group(1).replace('"', "").split(", ")
WIDTH = {"baseline": 16, "avx2": 32, "avx512": 64}  # bytes of a register, x86-64
REMARK = {
    "gcc": (["-fopt-info-vec-optimized"], r"sweep\.h:\d+:\d+: optimized: loop vectorized using (\d+) byte vectors"),
    "clang": (["-Rpass=loop-vectorize"], r"sweep\.h:\d+:\d+: remark: vectorized loop \(vectorization width: (\d+)"),
}


def rules() -> list[str]:
    """Every rule that includes the template."""
    headers = [*sorted(KERNELS.glob("rules/*.h")), KERNELS / "floor.h"]
    return [rule for header in headers for rule in re.findall(r"#define RULE (\w+)", header.read_text())]


def source(unit: pathlib.Path, rule: str) -> str:
    """The unit with one rule alone in its table: the compiler drops what is static and unused."""
    text = (KERNELS / "kernels.h").read_text()
    table = re.search(r"static const fastlr_rule \*const rules\[\] = \{(.*?)\};", text, re.S)
    text = text[: table.start(1)] + f"&{rule}_rule, NULL" + text[table.end(1) :]
    text = text.replace(".gauge = gauge, .number = number", "")
    return re.sub(r'#include "../kernels.h"', lambda _: text, unit.read_text())


def widths(cc: str, unit: pathlib.Path, rule: str) -> list[int]:
    """The register width in bytes of every vectorised loop of sweep.h that the compiler reports."""
    flags, pattern = REMARK["clang" if "clang" in cc else "gcc"]
    item = 8 if unit.stem.endswith("f64") else 4
    with tempfile.NamedTemporaryFile("w", suffix=".c") as file:
        file.write(source(unit, rule))
        file.flush()
        includes = [f"-I{KERNELS}", f"-I{KERNELS.parent / 'include'}"]
        command = [cc, *FLAGS, "-w", *flags, *includes, "-c", file.name, "-o", "/dev/null"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    scale = item if "clang" in cc else 1
    return [int(width) * scale for width in re.findall(pattern, done.stderr)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cc", default="gcc")
    cc = parser.parse_args().cc
    units = sorted((KERNELS / "tu").glob("*.c"))
    failed = 0
    for rule in rules():
        row = []
        for unit in units:
            # Two loops; the compiler may make several of one, by the loop-invariant conditions, never fewer.
            found = widths(cc, unit, rule).count(WIDTH[unit.stem.split("_")[0]])
            row.append(f"{unit.stem} {found}")
            failed += found < 2
        print(f"{rule:26} {'   '.join(row)}")
    print(f"{failed} rules not vectorised" if failed else f"every rule vectorised by {cc}")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
