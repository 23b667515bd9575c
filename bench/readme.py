"""`python -m bench.readme`: runs the comparison and writes its table into README.md, between two markers.

`python -m bench.storage --readme` writes its own between two others.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench import machine
from bench.cases import Case, show_size
from bench.compare import Result, parser, render, run, show_time, write_csv

README = Path(__file__).parent.parent / "README.md"
PEERS = ("torch fused", "torch foreach", "torch for-loop", "torch compile", "deepspeed", "optax jit", "numba", "numpy")


def cell(result: Result, name: str) -> str:
    """The engine's median, and its time as a multiple of fastlr's."""
    if name in result.times:
        t = result.times[name]
        return f"{show_time(t.median)} ({t.over(result.times['fastlr']):.1f}x)"
    return "DISAGREES" if "DISAGREES" in result.excuses.get(name, "") else "–"


def table(results: Sequence[Result]) -> str:
    columns = ("rule", "elements", "fastlr", "of the floor", *PEERS)
    rows = [
        (
            r.case.rule.replace("_", " "),
            show_size(r.case.size),
            show_time(r.times["fastlr"].median),
            f"{1 / r.times['fastlr'].over(r.times['floor']):.2f}",
            *(cell(r, name) for name in PEERS),
        )
        for r in results
    ]
    return render(columns, rows, markdown=True)


def section(results: Sequence[Result], command: str) -> str:
    case = results[0].case
    return (
        f"{table(results)}\n\n"
        f"Median time of a step, {case.dtype}, {case.threads} threads; in brackets the multiple of fastlr's in the "
        "same round (median over the rounds). Every engine was checked against the reference before it was timed.\n"
        + made(command)
    )


def markers(name: str) -> tuple[str, str]:
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def split(path: Path, name: str = "bench") -> tuple[str, str]:
    """What stands before and after the place of a table, markers included."""
    text, (begin, end) = path.read_text(encoding="utf-8"), markers(name)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise SystemExit(
            f"{path} must hold the lines {begin} and {end} once each, in this order; add them for the table"
        )
    return text[: text.index(begin) + len(begin)], text[text.index(end) :]


def made(command: str) -> str:
    """Where and how a table was measured."""
    return f"{machine.describe()}. Made by `{command}`; how: [bench/METHODOLOGY.md](bench/METHODOLOGY.md).\n"


def rewrite(path: Path, text: str, name: str = "bench") -> None:
    head, tail = split(path, name)
    path.write_text(f"{head}\n{text}{tail}", encoding="utf-8")


def main() -> None:
    p = parser(rules="adamw,adam,amsgrad,adagrad,rmsprop,momentum,sgd", size="1000,100Ki,48Mi")
    p.add_argument("--file", type=Path, default=README, help="what to rewrite")
    a = p.parse_args()
    # AdamW at each size; the other rules at the largest, where the bytes they move tell them apart.
    cases = [
        Case(rule, size, a.dtype, a.threads)
        for rule in a.rules
        for size in a.size
        if rule == a.rules[0] or size == max(a.size)
    ]
    split(a.file)  # fails before the minutes of measuring, not after
    results, _ = run(cases, a.engines, a.rounds)
    rewrite(a.file, section(results, " ".join(["python -m bench.readme", *sys.argv[1:]])))
    for path in filter(None, (a.csv, machine.RECORD / f"{machine.slug()}.csv" if a.record else None)):
        write_csv(path, results)


if __name__ == "__main__":
    main()
