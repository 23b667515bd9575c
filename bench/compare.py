"""`python -m bench.compare`: every engine, checked, then timed in interleaved rounds in one process."""

from __future__ import annotations

import argparse
import csv
import gc
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import clock, machine
from bench.cases import RULES, Case, Data, parse_size, show_size
from bench.check import OF_PATH, norm_error, verify
from bench.clock import Times
from bench.engines import AUTHORS, first_line, limit_threads, load
from bench.engines.base import Engine


@dataclass
class Result:
    """What a case gave: times, for the engines without one the reason, and what else is to be said of one."""

    case: Case
    times: dict[str, Times] = field(default_factory=dict)
    excuses: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    start: dict[str, float] = field(default_factory=dict)  # seconds until its first steps were made: compiling


def rounds_for(case: Case) -> int:
    return 15 if case.size >= 1 << 23 else 51


def measure(case: Case, engines: dict[str, type[Engine]], rounds: int | None = None) -> Result:
    """Sets all up, checks each, times those that agree, and lets go of their memory."""
    result, data = Result(case), Data.of(case)
    running, steps, sign = {}, {}, {}
    for name, cls in engines.items():
        if not cls.supports(case):
            result.excuses[name] = "has no such rule"
            continue
        begin = time.perf_counter()
        try:
            engine = cls()
            step = engine.setup(case, data.p, data.g)
            excess = verify(case, engine, step, data.g)
        except Exception as error:  # one engine that fails must not stop the others
            result.excuses[name] = f"failed: {type(error).__name__}: {first_line(error)}"
            continue
        result.start[name] = time.perf_counter() - begin
        if (off := norm_error(case, engine)) > OF_PATH[case.dtype]:
            result.notes[name] = f"its norm of the tensor is off by {off:.1e}; checked with that norm"
        if excess <= 1:
            running[name], steps[name], sign[name] = engine, step, False
        else:
            result.excuses[name] = f"DISAGREES: off by {excess:.3g} times the tolerance"
        gc.collect()

    def turn(name: str) -> None:
        """Gradients change sign from sample to sample, or the variance in centered RMSprop would round to nothing."""
        sign[name] = not sign[name]
        running[name].gradient(data.g if sign[name] else data.minus_g)

    if steps:
        result.times = clock.interleave(steps, rounds or rounds_for(case), turn)
    return result


def show_time(ns: float) -> str:
    """
    >>> [show_time(x) for x in (812.4, 24_310.0, 18_400_000.0)]
    ['0.81 us', '24.3 us', '18.4 ms']
    """
    value, unit = (ns / 1e6, "ms") if ns >= 1e6 else (ns / 1e3, "us")
    return f"{value:.{2 if value < 10 else 1 if value < 1000 else 0}f} {unit}"


COLUMNS = ("engine", "median", "min", "ns/param", "GB/s", "x fastlr", "by round", "of floor", "by round", "first")


def rows(result: Result) -> list[tuple[str, ...]]:
    ours, floor = result.times.get("fastlr"), result.times.get("floor")
    table = []
    for name, t in sorted(result.times.items(), key=lambda item: item[1].median):
        table.append(
            (
                name,
                show_time(t.median),
                show_time(t.min),
                f"{t.median / result.case.size:.3f}",
                f"{result.case.nbytes / t.median:.1f}",
                f"{t.median / ours.median:.2f}" if ours else "",
                f"{t.over(ours):.2f}" if ours else "",
                f"{floor.median / t.median:.2f}" if floor else "",
                f"{1 / t.over(floor):.2f}" if floor else "",
                f"{result.start[name]:.1f} s",
            )
        )
    return table


def render(columns: Sequence[str], table: Sequence[Sequence[str]], markdown: bool = False) -> str:
    widths = [max(len(row[k]) for row in (columns, *table)) for k in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        cells = [c.ljust(w) if k == 0 else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True))]
        return f"| {' | '.join(cells)} |" if markdown else "  ".join(cells).rstrip()

    rule = ["-" * (w - 1) + ("-" if k == 0 or not markdown else ":") for k, w in enumerate(widths)]
    return "\n".join(line(row) for row in (columns, rule, *table))


def show(result: Result, markdown: bool = False) -> str:
    case, first = result.case, next(iter(result.times.values()), Times())
    threads = f"{case.threads} thread{'s' * (case.threads > 1)}"
    title = f"{case.rule} {case.dtype}, {show_size(case.size)} elements, {threads}, {len(first.samples)} rounds"
    lines = [f"### {title}\n" if markdown else title, render(COLUMNS, rows(result), markdown)]
    said = [*result.notes.items(), *result.excuses.items()]
    lines += [f"{'- ' * markdown}{name}: {what}" for name, what in said]
    return "\n".join(lines)


SUMMARY = ("rule", "elements", "fastlr", "of floor", "x torch", "x compile", "compiling", "x authors")


def summary(results: Sequence[Result], markdown: bool = False) -> str:
    """One line a rule: fastlr's time, its part of the floor, and the peers' times as multiples of it, within rounds.

    "torch" is the faster of the for-loop and foreach, "authors" the package of the rule's own authors.
    """

    def times(r: Result, *names: str) -> str:
        found = [r.times[name].over(r.times["fastlr"]) for name in names if {name, "fastlr"} <= r.times.keys()]
        return f"{min(found):.2f}" if found else "–"

    table = [
        (
            r.case.rule,
            show_size(r.case.size),
            show_time(r.times["fastlr"].median) if "fastlr" in r.times else r.excuses.get("fastlr", "–"),
            f"{1 / r.times['fastlr'].over(r.times['floor']):.2f}" if {"fastlr", "floor"} <= r.times.keys() else "–",
            times(r, "torch for-loop", "torch foreach"),
            times(r, "torch compile"),
            f"{r.start['torch compile']:.1f} s" if "torch compile" in r.times else "–",
            times(r, *AUTHORS),
        )
        for r in results
    ]
    return render(SUMMARY, table, markdown)


def write_csv(path: Path, results: Sequence[Result]) -> None:
    """Raw samples, appended."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        if new:
            out.writerow(("date", "rule", "size", "dtype", "threads", "engine", "round", "ns_per_step"))
        for r in results:
            case = (machine.date(), r.case.rule, r.case.size, r.case.dtype, r.case.threads)
            for name, times in r.times.items():
                out.writerows((*case, name, k, f"{ns:.1f}") for k, ns in enumerate(times.samples))


def run(
    cases: Sequence[Case], names: list[str] | None = None, rounds: int | None = None
) -> tuple[list[Result], dict[str, str]]:
    """(results, {engine: why it is missing}) of cases of one number of threads; progress goes to stderr."""
    limit_threads(cases[0].threads)
    engines, missing = load(names)
    results = []
    for case in cases:
        print(f"{case} ...", file=sys.stderr, flush=True)
        results.append(measure(case, engines, rounds))
        gc.collect()
    return results, missing


def names_of(text: str, known: Sequence[str]) -> list[str]:
    names = list(known) if text == "all" else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"must be among {', '.join(known)}, got {name!r}")
    return names


def parser(rules: str = "adamw", size: str = "48Mi,100Ki,1000") -> argparse.ArgumentParser:
    from bench.engines import ENGINES

    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--rules", type=lambda x: names_of(x, list(RULES)), default=rules, help='names, or "all"')
    p.add_argument("--size", type=lambda x: [parse_size(n) for n in x.split(",")], default=size, help="elements")
    p.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="of every buffer")
    p.add_argument("--threads", type=int, default=2, help="of every engine")
    p.add_argument("--rounds", type=int, help="default: 15 from 8 Mi elements on, 51 below")
    p.add_argument("--engines", type=lambda x: names_of(x, list(ENGINES)), default="all", help="names")
    p.add_argument("--csv", type=Path, help="append raw samples to this file")
    p.add_argument("--record", action="store_true", help="append them to bench/record/<date>-<cpu>.csv")
    return p


def main() -> None:
    p = parser()
    p.add_argument("--markdown", action="store_true", help="tables in Markdown")
    a = p.parse_args()
    cases = [Case(rule, size, a.dtype, a.threads) for rule in a.rules for size in a.size]
    print(machine.describe())
    results, missing = run(cases, a.engines, a.rounds)
    for result in results:
        print("\n" + show(result, a.markdown))
    if len(results) > 1:
        print("\n" + summary(results, a.markdown))
    for name, reason in missing.items():
        print(f"\n{name}: {reason}")
    for path in filter(None, (a.csv, machine.RECORD / f"{machine.slug()}.csv" if a.record else None)):
        write_csv(path, results)


if __name__ == "__main__":
    main()
