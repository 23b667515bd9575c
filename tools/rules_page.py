"""Writes docs/rules.md: every rule with its formula, state, cost and source, from the classes and the kernels' table.

    python tools/rules_page.py [--check]

Nothing about a rule is typed here but which peers have it. Formula, summary and source are the docstring's; states, and
the kernels that a class chooses among, are what it chooses; passes and bytes are the kernels' own: _core.rule_info().
tests/test_docs.py compares them with what the docstrings say.
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import itertools
import pathlib
import re
import sys
from typing import Any

import fastlr
from fastlr import _core
from fastlr.groups import Group
from fastlr.optimizer import Optimizer
from fastlr.plain import overrides
from fastlr.rules.mechanic import OWN

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "rules.md"
SIZE = 4  # bytes of a float32

# Which peers have a rule compiled for the CPU. tests/test_docs.py compares with those that are installed.
FUSED = {
    "SGD",
    "Adam",
    "AdamW",
    "AMSGrad",
    "Adagrad",
}  # torch 2.13, fused=True: aten/src/ATen/native/cpu/Fused*Kernel.cpp
DEEPSPEED = {"Adam", "AdamW", "Adagrad", "Lion"}  # 0.19, csrc/adam, csrc/adagrad, csrc/lion
# torch.compile of torch.optim's, by Inductor
TORCH = {"SparseAdam": "SparseAdam", "AMSGrad": "Adam"} | {
    name: name
    for name in (
        *("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Muon", "NAdam", "RAdam", "RMSprop"),
        *("Rprop", "SGD"),
    )
}
# jax.jit of optax' 0.2.8, by XLA; some of other semantics: see the docstrings
OPTAX = {
    "AMSGrad": "amsgrad",
    "AdEMAMix": "contrib.ademamix",
    "AdaBelief": "adabelief",
    "Adadelta": "adadelta",
    "Adafactor": "adafactor",
    "Adagrad": "adagrad",
    "Adam": "adam",
    "AdamW": "adamw",
    "Adamax": "adamax",
    "Adan": "adan",
    "Adopt": "contrib.adopt",
    "DAdaptAdam": "contrib.dadapt_adamw",
    "DoG": "contrib.dog",
    "DoWG": "contrib.dowg",
    "LAMB": "lamb",
    "LARS": "lars",
    "Lion": "lion",
    "MADGRAD": "contrib.madgrad",
    "Muon": "contrib.muon",
    "NAdam": "nadam",
    "NovoGrad": "novograd",
    "Prodigy": "contrib.prodigy",
    "RAdam": "radam",
    "RMSprop": "rmsprop",
    "Rprop": "rprop",
    "SGD": "sgd",
    "ScheduleFreeAdamW": "contrib.schedule_free_adamw",
    "ScheduleFreeSGD": "contrib.schedule_free_sgd",
    "SignSGD": "sign_sgd",
    "Signum": "signum",
    "Sophia": "contrib.sophia",
    "Yogi": "yogi",
    "mechanize": "contrib.mechanize",
}

HEAD = """\
# The rules

Made by `python tools/rules_page.py` from the classes and the kernels' table; not to be edited.

*Bytes* are what a step after the first moves for each float32 parameter: everything that it reads or writes, gradients,
parameters, state; float64 moves twice as many. *Passes* is how often it reads the gradients; with two, decay that is
added to the gradient is 4 bytes more. `clip_norm` and a policy for `nonfinite` read the gradients once more. Where a
class has several kernels, its hyper-parameters choose, or whether a step is given a Hessian: one line each. `step_rows`
moves as much for each parameter of the rows given; LazyAdam and RowAdagrad have no other step. What has a star needs
more memory or work, or less, than the kernel says: see its section. *Elsewhere* has the peers that have the rule
compiled for CPUs: torch's `fused=True`, DeepSpeed, and, compiled when first called, optax under `jax.jit` (XLA) and
torch.optim under `torch.compile` (Inductor). Their ε and bias corrections may differ: see `help(fastlr.Adam)`.

State with a † stays float32 whatever `state_dtype` says; where a rule has no other, it refuses to be asked for less.
With a ‡ it may be bfloat16, not 8 bits, for its sign is all that counts.
`python -m bench.kept` measures what sums, means of parameters and the like would lose in bfloat16 or 8 bits.

[mechanize](#mechanize), below the rules, makes of nearly any of them one that finds its rate; the table has what it
adds. `fastlr.functional` has a function of each, and of what mechanize makes.
"""


def classes() -> dict[str, type[Optimizer]]:
    """Every optimizer that the package exports."""
    found = {name: getattr(fastlr, name) for name in fastlr.__all__}
    return {
        name: cls
        for name, cls in sorted(found.items(), key=lambda item: item[0].casefold())
        if inspect.isclass(cls) and issubclass(cls, Optimizer) and not inspect.isabstract(cls)
    }


def variants(cls: type[Optimizer]) -> list[tuple[str, tuple[str, ...]]]:
    """(kernel, states) of each kernel that the class chooses for its defaults with up to two switched on or off.

    And last of that for steps with a Hessian, if it has one of its own.
    """
    own = inspect.signature(cls).parameters
    checks = cls.checks()
    defaults = {name: x.default for name, x in own.items() if name in checks} | {"lr_scale": 1.0}
    off = {name: x for name, x in defaults.items() if x is None or x == 0}
    switches = {name: not x if isinstance(x, bool) else 0.5 for name, x in off.items()}
    switches |= {name: False for name, x in defaults.items() if x is True}
    found: dict[str, tuple[str, ...]] = {}
    for names in itertools.chain.from_iterable(itertools.combinations(switches, n) for n in range(3)):
        group = Group("", checks, {**defaults, **{name: switches[name] for name in names}}, [False])
        try:
            group.check()
            cls.kernel(group)
            rule, states = cls.variant([group])
        except (TypeError, ValueError):  # a value or a combination that the rule refuses
            continue
        found.setdefault(rule, states)
    if cls.informed is not None:
        found.setdefault(cls.informed, cls.states)
    return list(found.items())


def special(cls: type[Optimizer]) -> bool:
    """Whether state or cost is not what the kernel's entry says: states of other shapes, inputs made by the step."""
    return any(overrides(cls, method) for method in ("layout", "derived"))


def elsewhere(name: str) -> str:
    peers = [("torch fused", FUSED), ("DeepSpeed", DEEPSPEED), ("optax jit", OPTAX), ("torch.compile", TORCH)]
    return ", ".join(peer for peer, has in peers if name in has) or "–"


def part(cls: Any, title: str) -> str:
    """A section of the docstring, without its heading."""
    found = re.search(rf"^{title}\n-+\n(.*?)(?=^\w[^\n]*\n-+\n|\Z)", inspect.getdoc(cls) or "", re.S | re.M)
    return found[1].strip() if found else ""


def formula(cls: Any) -> str:
    lines = (inspect.getdoc(cls) or "").partition("\nParameters\n")[0].splitlines()
    block = [line for line in lines if line.startswith("    ") or not line]
    return inspect.cleandoc("\n".join(block)).strip()


def state_of(cls: type[Optimizer], rule: str, states: tuple[str, ...]) -> str:
    _, precise = _core.state_bits(rule)
    kept = [bool(precise >> j & 1) or not cls.narrows for j in range(len(states))]
    marks = ["" if not stays else "‡" if key in cls.signs else "†" for key, stays in zip(states, kept, strict=True)]
    found = ", ".join(f"`{key}`{mark}" for key, mark in zip(states, marks, strict=True))
    return (found or "none") + ("\\*" if special(cls) else "")


def cost(rule: str) -> tuple[int, int]:
    """Bytes that a kernel moves for each float32 parameter, and its passes."""
    info = _core.rule_info(rule)
    return SIZE * info["accesses"], info["passes"]


def row(name: str, kernels: list[tuple[str, str]], *, star: str = "", plus: str = "") -> str:
    """The line of the table of a rule with these kernels, and the states of each."""
    costs = [cost(rule) for rule, _ in kernels]
    cells = (
        f"[{name}](#{name.lower()})",
        "<br>".join(f"`{rule}`" for rule, _ in kernels),
        "<br>".join(states for _, states in kernels),
        "<br>".join(f"{plus}{size}{star}" for size, _ in costs),
        "<br>".join(f"{plus}{passes}{star}" for _, passes in costs),
        elsewhere(name),
    )
    return f"| {' | '.join(cells)} |"


def row_of(name: str, cls: type[Optimizer]) -> str:
    kernels = [(rule, state_of(cls, rule, states)) for rule, states in variants(cls)]
    return row(name, kernels, star="\\*" if special(cls) else "")


def section(name: str, cls: Any) -> str:
    summary = (inspect.getdoc(cls) or "").splitlines()[0]
    lines = [f"## {name}", summary, f"```text\n{formula(cls)}\n```"]
    if inspect.isclass(cls) and special(cls):
        lines.append("\\* " + " ".join(part(cls, "Notes").split()))
    lines.append("Source: " + " ".join(part(cls, "References").split()))
    return "\n\n".join(lines)


def page() -> str:
    rules = classes()
    table = [
        "| rule | kernel | state | bytes | passes | elsewhere |",
        "| ---- | ------ | ----- | ----: | -----: | --------- |",
        *(row_of(name, cls) for name, cls in rules.items()),
        row("mechanize", [("mechanic", ", ".join(f"`{key}`" for key in OWN))], plus="+"),
    ]
    sections = [section(name, cls) for name, cls in [*rules.items(), ("mechanize", fastlr.mechanize)]]
    return "\n".join([HEAD, *table, "", "\n\n".join(sections), ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if the page is not up to date")
    made = page()
    if not parser.parse_args().check:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(made, encoding="utf-8")
        return 0
    old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    sys.stdout.writelines(difflib.unified_diff(old.splitlines(True), made.splitlines(True), "committed", "made"))
    return int(made != old)


if __name__ == "__main__":
    sys.exit(main())
