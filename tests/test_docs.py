"""docs/rules.md is what its generator makes, and has every rule."""

from __future__ import annotations

import importlib.util
import inspect
import operator
import pathlib
import re

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
    with pytest.raises(ValueError, match="no rule 'adamw'"):
        _core.rule_info("adamw")
    for cls in rules_page.classes().values():
        for rule, states in rules_page.variants(cls):
            assert _core.rule_info(rule)["states"] == len(states)
        assert cls(np.zeros((2, 2))).rule == rules_page.variants(cls)[0][0]


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
