"""`python -m bench.readme`: runs the comparison and writes its table into README.md, between the two markers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench import machine
from bench.cases import Case, show_size
from bench.compare import Result, parser, render, run, show_time, write_csv

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
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
        f"{machine.describe()}. Made by `{command}`; how: [bench/METHODOLOGY.md](bench/METHODOLOGY.md).\n"
    )


def split(path: Path) -> tuple[str, str]:
    """What stands before and after the place of the table, markers included."""
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise SystemExit(
            f"{path} must hold the lines {BEGIN} and {END} once each, in this order; add them for the table"
        )
    return text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]


def rewrite(path: Path, text: str) -> None:
    head, tail = split(path)
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
