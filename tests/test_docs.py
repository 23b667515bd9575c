"""docs/rules.md is what its generator makes, and has every rule."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import operator
import pathlib
import re
import types

import numpy as np
import pytest

import fastlr
from fastlr import _core
from fastlr.schedules.schedule import FORMS

ROOT = pathlib.Path(__file__).resolve().parent.parent


def tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rules_page():
    return tool("rules_page")


def test_the_gallery_shows_every_schedule_and_is_up_to_date():
    pytest.importorskip("matplotlib")
    gallery = tool("gallery")
    assert (ROOT / "docs/schedules.md").read_text(encoding="utf-8") == gallery.page(), "run python tools/gallery.py"
    pictures = {path.name for path in (ROOT / "docs/schedules").iterdir()}
    assert pictures == {gallery.picture(title) for title in gallery.SHOWN}
    shown = " ".join(gallery.SHOWN.values())
    hidden = {name for name, form in FORMS.items() if not form.method and not re.search(rf"\b{name}\(", shown)}
    assert hidden == {"custom", "cyclical_custom"}  # Python functions


def test_the_page_is_up_to_date(rules_page):
    assert rules_page.PAGE.read_text(encoding="utf-8") == rules_page.page(), "run python tools/rules_page.py"


def test_every_exported_optimizer_has_a_row_and_a_section_with_formula_and_source(rules_page):
    page, found = rules_page.page(), rules_page.classes()
    exported = [getattr(fastlr, name) for name in fastlr.__all__]
    optimizers = {x.__name__ for x in exported if inspect.isclass(x) and issubclass(x, fastlr.Optimizer)}
    assert set(found) == optimizers - {"Optimizer"}
    for name, cls in found.items():
        assert page.count(f"| [{name}](#{name.lower()}) |") == 1
        assert page.count(f"\n## {name}\n") == 1
        assert "←" in rules_page.formula(cls), f"{name}: the docstring has no formula"
        assert rules_page.part(cls, "References"), f"{name}: the docstring has no source"


def test_kernels_that_hyper_parameters_choose_are_found(rules_page):
    assert {("sgd", ()), ("momentum", ("b",))} <= set(rules_page.variants(fastlr.SGD))
    assert {rule for rule, _ in rules_page.variants(fastlr.RMSprop)} >= {
        "rmsprop",
        "rmsprop_centered",
        "rmsprop_momentum",
        "rmsprop_centered_momentum",
    }


def test_costs_are_the_kernels(rules_page):
    """AdamW: the gradient read, parameters and two states read and written. Adafactor: three reads of g, three of p."""
    assert _core.rule_info("adam") == {"states": 2, "inputs": 0, "passes": 1, "accesses": 7}
    assert _core.rule_info("sgd") == {"states": 0, "inputs": 0, "passes": 1, "accesses": 3}
    assert _core.rule_info("prodigy") == {"states": 4, "inputs": 0, "passes": 1, "accesses": 10}  # x0 only read
    assert _core.rule_info("muon") == {"states": 1, "inputs": 1, "passes": 1, "accesses": 6}
    assert _core.rule_info("adafactor") == {"states": 3, "inputs": 0, "passes": 3, "accesses": 6}
    assert _core.rule_info("novograd") == {"states": 1, "inputs": 0, "passes": 2, "accesses": 6}  # before, g alone
    assert _core.rule_info("mechanic") == {"states": 2, "inputs": 0, "passes": 1, "accesses": 8}  # then p, δ and x0
    assert _core.rule_info("dadapt_sgd") == {"states": 2, "inputs": 0, "passes": 1, "accesses": 6}  # but the first step
    assert _core.rule_info("lazy_adam") == {"states": 3, "inputs": 0, "passes": 1, "accesses": 7}  # of rows given
    with pytest.raises(ValueError, match="no rule 'adamw'"):
        _core.rule_info("adamw")
    for cls in rules_page.classes().values():
        for rule, states in rules_page.variants(cls):
            assert _core.rule_info(rule)["states"] == len(states)
        assert cls(np.zeros((2, 2))).rule == rules_page.variants(cls)[0][0]


BYTES = re.compile(r"((?:\d+(?:,| or,?| or, in steps with D,) )*\d+) bytes (?:more )?a float32 parameter")


def said(cls):
    """The bytes of the docstring, and how many a cautious step moves beside: 0 if it does not say."""
    text = " ".join(inspect.getdoc(cls).split())
    found = BYTES.findall(text)
    assert len(found) == 1, f"{cls.__name__}: {found}"
    more = re.findall(r"moves (\d+) bytes more\.", text)
    return {int(x) for x in re.findall(r"\d+", found[0])}, int(more[0]) if more else 0


def test_docstrings_say_what_the_kernels_move(rules_page):
    for name, cls in rules_page.classes().items():
        plain, more = said(cls)
        costs = {rule: rules_page.cost(rule)[0] for rule, _ in rules_page.variants(cls)}
        assert {size for rule, size in costs.items() if not rule.endswith("_cautious")} == plain, name
        for rule, size in costs.items():
            if rule.endswith("_cautious"):
                assert size == costs[rule.removesuffix("_cautious")] + more, rule
    assert said(fastlr.mechanize)[0] == {rules_page.cost("mechanic")[0]}


def test_every_optimizers_kernels_have_a_line(rules_page):
    """None of the table is left out but those that are no optimizer's."""
    page = rules_page.page()
    kernels = (ROOT / "fastlr/kernels/kernels.h").read_text(encoding="utf-8")
    table = set(re.findall(r"^    &(\w+)_(?:rule|rows),$", kernels, re.MULTILINE))
    missing = {rule for rule in table if f"`{rule}`" not in page}
    assert missing == {rule for rule in table if rule.startswith("floor_")} | {"schedule_free_x"}


def test_peers_have_what_the_page_says(rules_page):
    torch = pytest.importorskip("torch")
    for name, theirs in rules_page.TORCH.items():
        cls = getattr(torch.optim, theirs)
        fused = "fused" in inspect.signature(cls).parameters
        assert fused == (name in rules_page.FUSED), name
    missing = {name for name in rules_page.classes() if hasattr(torch.optim, name)} - set(rules_page.TORCH)
    assert not missing


def test_optax_has_what_the_page_says(rules_page):
    optax = pytest.importorskip("optax")
    pytest.importorskip("optax.contrib")
    for name in rules_page.OPTAX.values():
        assert callable(operator.attrgetter(name)(optax)), name
    assert set(rules_page.OPTAX) <= {*rules_page.classes(), "mechanize"}


# Optimizers of optax that are no rule of fastlr's, and names of some that are: with decay, or as a wrapper.
OTHERS = {"adamaxw", "fromage", "lbfgs", "noisy_sgd", "optimistic_adam", "optimistic_adam_v2", "sm3"}
OTHERS |= {"optimistic_gradient_descent", "acprop", "cocob", "dpsgd", "galore", "momo", "momo_adam", "schedule_free"}
OTHERS |= {"nadamw", "simplified_ademamix"}


def test_the_page_says_what_optax_has(rules_page):
    optax = pytest.importorskip("optax")
    contrib = pytest.importorskip("optax.contrib")
    found = {"contrib.mechanize"}  # what makes steps has a rate, but for this
    for prefix, module in ("", optax), ("contrib.", contrib):
        for name in vars(module):
            made = getattr(module, name)
            if not isinstance(made, types.FunctionType | functools.partial) or name.startswith(("_", "scale_by")):
                continue
            if "learning_rate" in inspect.signature(made).parameters and name not in OTHERS:
                found.add(prefix + name)
    assert found - set(rules_page.OPTAX.values()) == set()
