"""Hyper-parameters that are schedules: what an optimizer does with them, against setting numbers by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastlr
from fastlr import schedules as S
from fastlr.hyper import Scheduled, nonnegative
from tests.cases import CASES

STEPS = 12


def gradients(steps=STEPS, size=50):
    return np.random.default_rng(1).standard_normal((steps, size)).astype(np.float32)


def by_hand(make, sets):
    """The parameters after steps before each of which `sets(group, n)` changes hyper-parameters to numbers."""
    p = np.ones(50, np.float32)
    opt = make(p)
    for n, g in enumerate(gradients()):
        sets(opt.groups[0], n)
        opt.step(g)
    return p


def followed(make):
    p = np.ones(50, np.float32)
    opt = make(p)
    reports = [opt.step(g) for g in gradients()]
    return p, reports


LR = S.cosine(0.1, 0.01, 10).warmup(3)
DECAY = S.linear(0.3, 0.0, 8)
BETA = S.linear(0.5, 0.9, 10)


@pytest.mark.parametrize("case", CASES)
def test_every_rule_follows_schedules(case):
    def make(p):
        return case.build(p, lr=LR, weight_decay=DECAY)

    def sets(group, n):
        group.lr, group.weight_decay = LR(n), DECAY(n)

    p, reports = followed(make)
    assert np.array_equal(p, by_hand(lambda p: case.build(p, lr=0.1, weight_decay=0.3), sets))
    assert [r.lr for r in reports] == [LR(n) for n in range(STEPS)]


def test_betas_momentum_eps_and_scales():
    def make(p):
        return fastlr.AdamW(p, lr=0.1, betas=(BETA, 0.99), eps=S.exponential(1e-2, 0.5), lr_scale=S.linear(1, 0.5, 10))

    def sets(group, n):
        group.betas, group.eps, group.lr_scale = (BETA(n), 0.99), S.exponential(1e-2, 0.5)(n), S.linear(1, 0.5, 10)(n)

    p, _ = followed(make)
    assert np.array_equal(p, by_hand(lambda p: fastlr.AdamW(p, lr=0.1), sets))

    p, _ = followed(lambda p: fastlr.SGD(p, lr=LR, lr_scale=S.constant(0.5), momentum=BETA))

    def sets(group, n):
        group.lr, group.momentum = 0.5 * LR(n), BETA(n)

    assert np.array_equal(p, by_hand(lambda p: fastlr.SGD(p, momentum=0.5), sets))


def test_groups_and_hyper_schedules():
    h = S.HyperSchedule(lr=LR, weight_decay=DECAY, betas=(BETA, 0.99), groups={"a": {"lr": 0.1}})
    params = {"a": np.ones(5, np.float32), "b": np.ones(5, np.float32)}
    opt = fastlr.AdamW(params, groups=[{"match": "a", **h.group("a")}], **h)
    for n in range(5):
        report = opt.step({"a": np.ones(5, np.float32), "b": np.ones(5, np.float32)})
        assert report.lrs == (0.1 * LR(n), LR(n))
    assert opt.groups[1].lr is LR
    opt.groups[1].lr = 0.25
    assert opt.step({"a": params["a"] * 0, "b": params["b"] * 0}).lrs == (0.1 * LR(5), 0.25)
    opt.groups[1].lr = DECAY
    assert opt.step({"a": params["a"] * 0, "b": params["b"] * 0}).lrs[1] == DECAY(6)


def test_nothing_of_python_runs_per_step(monkeypatch):
    p = np.ones(50, np.float32)
    opt = fastlr.AdamW(p, lr=LR, weight_decay=DECAY, betas=(BETA, 0.9))
    opt.step(gradients()[0])
    assert (opt._called, opt._computed) == ([], [])

    def forbidden(*args):
        raise AssertionError("Python was asked")

    for name in ("kernel", "decay", "_refresh"):
        monkeypatch.setattr(fastlr.AdamW, name, forbidden)
    monkeypatch.setattr(fastlr.Group, "at", forbidden)
    monkeypatch.setattr(fastlr.Group, "check", forbidden)
    for g in gradients()[1:]:
        opt.step(g)


class Halved(fastlr.SGD):
    """Its kernel computes something from a hyper-parameter."""

    @staticmethod
    def kernel(group):
        return group.momentum / 2, group.dampening, 0.0


def test_what_is_computed_is_computed_at_every_step():
    p, _ = followed(lambda p: Halved(p, lr=LR, momentum=BETA))

    def sets(group, n):
        group.lr, group.momentum = LR(n), BETA(n) / 2

    assert np.array_equal(p, by_hand(lambda p: fastlr.SGD(p, momentum=0.5), sets))


def test_a_value_knows_what_was_done_with_it():
    x = Scheduled(LR, 3, "lr", nonnegative)
    assert (x, x.used, x > 0) == (LR(3), False, True)
    assert x.used is False
    assert type(1 - x) is float
    assert x.used is True


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"lr": S.linear(0.1, -0.1, 4)}, r"^lr at step 3 must be finite and >= 0, got -0\.0"),
        ({"weight_decay": S.linear(0.1, -0.1, 4)}, "^weight_decay at step 3 must be finite and >= 0"),
        ({"betas": (0.5, S.linear(0.5, 1.0, 3))}, r"^betas\[1\] at step 3 must be in \[0, 1\), got 1\.0"),
        ({"lr": S.linear(0.1, 0.0, 3).after("raise")}, "has ended at step 3"),
        ({"eps": S.linear(0.3, 0.0, 3)}, "^eps at step 3 must be finite and > 0"),
    ],
)
def test_a_wrong_value_is_refused_at_its_step_and_changes_nothing(hyper, message):
    p, g = np.ones(4, np.float32), np.ones(4, np.float32)
    opt = fastlr.AdamW(p, **hyper)
    for _ in range(3):
        opt.step(g)
    before, state = p.copy(), opt.state["m"].copy()
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            opt.step(g)
        assert np.array_equal(p, before)
        assert np.array_equal(opt.state["m"], state)
        assert opt.step_count == 3
    opt.groups[0].lr, opt.groups[0].weight_decay, opt.groups[0].betas, opt.groups[0].eps = 0.1, 0, (0.9, 0.99), 1e-8
    assert opt.step(g).step == 4


def test_wrong_at_once():
    p = np.ones(4, np.float32)
    with pytest.raises(ValueError, match=r"^weight_decay at step 0 must be finite and >= 0, got -1\.0"):
        fastlr.AdamW(p, weight_decay=S.constant(-1))
    with pytest.raises(TypeError, match="nesterov at step 0 must be True or False"):
        fastlr.SGD(p, nesterov=S.constant(1))
    with pytest.raises(ValueError, match=r"call bind\(total_steps=...\)"):
        fastlr.AdamW(p, lr=S.linear(1, 0, "50%"))
    with pytest.raises(TypeError, match="lr_scale may be a schedule if lr is no Python function"):
        fastlr.AdamW(p, lr=lambda n: 0.1, lr_scale=S.constant(1))
    with pytest.raises(TypeError, match="initial_accumulator_value must be a number: it is used once"):
        fastlr.Adagrad(p, initial_accumulator_value=S.constant(0.1))


def test_custom_functions():
    def fn(n):
        if n >= 3:
            raise KeyError(n)
        return 0.5 / (1 + n)

    p, g = np.ones(4, np.float32), np.ones(4, np.float32)
    opt = fastlr.SGD(p, lr=S.custom(fn))
    assert [opt.step(g).lr for _ in range(3)] == [fn(n) for n in range(3)]
    with pytest.raises(KeyError):
        opt.step(g)
    assert opt.step_count == 3


def test_checkpoints_resume_by_the_step_number():
    def make(p):
        return fastlr.AdamW(p, lr=LR, weight_decay=DECAY, betas=(BETA, 0.99))

    g = gradients()
    p, q = np.ones(50, np.float32), np.ones(50, np.float32)
    one = make(p)
    for x in g[:5]:
        one.step(x)
    saved = one.state_dict()
    assert saved["groups"][0]["betas"] is None
    q[:] = p
    other = make(q)
    other.load_state_dict(saved)
    for x in g[5:]:
        assert one.step(x).lr == other.step(x).lr
    assert np.array_equal(p, q)
    assert other.groups[0].lr is LR
    with pytest.raises(ValueError, match=r"\['weight_decay'\] was a function when it was saved"):
        fastlr.AdamW(q, lr=LR, betas=(BETA, 0.99)).load_state_dict(saved)


def test_functional():
    p, m, v = (np.ones(5, np.float32) for _ in range(3))
    q, n, w = p.copy(), m.copy(), v.copy()
    g = np.ones(5, np.float32)
    fastlr.functional.adamw(p, g, m, v, step=4, lr=LR, betas=(BETA, 0.9))
    fastlr.functional.adamw(q, g, n, w, step=4, lr=LR(3), betas=(BETA(3), 0.9))
    assert np.array_equal(p, q)


def test_rates_may_still_be_functions():
    p, g = np.ones(4, np.float32), np.ones(4, np.float32)
    opt = fastlr.SGD(p, lr=lambda n: 0.1 / (1 + n), weight_decay=DECAY)
    assert [opt.step(g).lr for _ in range(3)] == [0.1 / (1 + n) for n in range(3)]
    assert math.isfinite(p[0])
