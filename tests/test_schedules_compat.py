"""Other libraries' values: real torch and optax, and the formulas of Hugging Face, Keras and timm."""

from __future__ import annotations

import io
import math
import pickle
import warnings

import numpy as np
import pytest

from fastlr import schedules as S
from fastlr.schedules import compat
from fastlr.schedules.adapters import traced
from fastlr.schedules.compat import hf, keras, timm
from tests import reference_schedules as ref

STEPS = 2000
LR = 0.1


def agree(found, wanted, rel=1e-12):
    found, wanted = np.asarray(found), np.asarray(wanted, float)
    scale = np.maximum(np.abs(wanted), np.abs(wanted).max() * 1e-4)  # near 0 theirs cancels
    assert np.max(np.abs(found - wanted) / scale) <= rel


# ---- torch ----------------------------------------------------------------------------------------------------------


def _third(n):
    return 1 / (1 + n / 3)


def _slower(n):
    return 1 - 1e-3 / (1 + n)


# name, arguments; the first of ours is the base rate
TORCH = [
    ("LambdaLR", {"lr_lambda": _third}),
    ("MultiplicativeLR", {"lr_lambda": _slower}),
    ("ConstantLR", {"factor": 0.25, "total_iters": 77}),
    ("ConstantLR", {}),
    ("LinearLR", {"start_factor": 0.01, "end_factor": 0.5, "total_iters": 700}),
    ("LinearLR", {}),
    ("StepLR", {"step_size": 300, "gamma": 0.3}),
    ("MultiStepLR", {"milestones": [100, 500, 500, 1500], "gamma": 0.4}),
    ("ExponentialLR", {"gamma": 0.998}),
    ("PolynomialLR", {"total_iters": 1500, "power": 1.7}),
    ("PolynomialLR", {"total_iters": 1999, "power": 1.0}),
    ("CosineAnnealingLR", {"T_max": 300, "eta_min": 1e-3}),
    ("CosineAnnealingLR", {"T_max": 1999}),
    ("CosineAnnealingWarmRestarts", {"T_0": 7, "T_mult": 3, "eta_min": 1e-4}),
    ("CosineAnnealingWarmRestarts", {"T_0": 123}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 120, "cycle_momentum": False}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 120, "step_size_down": 55, "mode": "triangular2"}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 120, "mode": "exp_range", "gamma": 0.999}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 90, "scale_fn": _third}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 90, "scale_fn": _third, "scale_mode": "iterations"}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 2000}),
    ("OneCycleLR", {"max_lr": 0.1, "epochs": 20, "steps_per_epoch": 100, "anneal_strategy": "linear"}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 2000, "three_phase": True, "pct_start": 0.25}),
    (
        "OneCycleLR",
        {"max_lr": 0.1, "total_steps": 1999, "three_phase": True, "pct_start": 0.4, "anneal_strategy": "linear"},
    ),
    ("SWALR", {"swa_lr": 0.01, "anneal_epochs": 100}),
    ("SWALR", {"swa_lr": 0.01, "anneal_epochs": 100, "anneal_strategy": "linear"}),
]
# Stepping by hand is not all there is to these: what is left of torch.optim.lr_scheduler.
OTHERS = {"SequentialLR", "ChainedScheduler", "ReduceLROnPlateau", "LRScheduler"}


def _sgd(torch, lr=LR):
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.9)


def _torch_scheduler(torch, name, arguments):
    module = torch.optim.swa_utils if name == "SWALR" else torch.optim.lr_scheduler
    return getattr(module, name)(_sgd(torch), **arguments)


def _ours(name, arguments):
    arguments = {key: x for key, x in arguments.items() if key != "cycle_momentum"}
    return getattr(compat.torch, name)(*(() if name in ("CyclicLR", "OneCycleLR") else (LR,)), **arguments)


def _stepped(scheduler, steps=STEPS):
    values = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimizer is never stepped
        for _ in range(steps):
            values.append(float(scheduler.get_last_lr()[0]))
            scheduler.step()
    return values


@pytest.mark.parametrize(("name", "arguments"), TORCH, ids=[f"{name}-{k}" for k, (name, _) in enumerate(TORCH)])
def test_torch(name, arguments):
    torch = pytest.importorskip("torch")
    scheduler = _torch_scheduler(torch, name, arguments)
    steps = min(STEPS, getattr(scheduler, "total_steps", STEPS))
    expected = _stepped(scheduler, steps)
    agree(_ours(name, arguments).table(steps), expected)
    if name != "SWALR":
        fresh = compat.torch.from_torch(_torch_scheduler(torch, name, arguments))
        agree(fresh.table(steps), expected)


def test_every_scheduler_of_torch_is_here():
    torch = pytest.importorskip("torch")
    module = torch.optim.lr_scheduler
    theirs = {name for name in module.__all__ if not name.startswith("_")}
    assert theirs - {name for name, _ in TORCH} == OTHERS


def test_torch_sequential_and_chained():
    torch = pytest.importorskip("torch")
    lr = torch.optim.lr_scheduler

    def parts(sgd):
        return [lr.LinearLR(sgd, 0.1, 1.0, 100), lr.StepLR(sgd, 400, 0.5), lr.ExponentialLR(sgd, 0.999)]

    sgd = _sgd(torch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = lr.SequentialLR(sgd, parts(sgd), [100, 1200])
        ours = compat.torch.SequentialLR(
            [
                compat.torch.LinearLR(LR, 0.1, 1.0, 100),
                compat.torch.StepLR(LR, 400, 0.5),
                compat.torch.ExponentialLR(LR, 0.999),
            ],
            [100, 1200],
        )
        same = compat.torch.from_torch(one)
        expected = _stepped(one)
        agree(ours.table(STEPS), expected)
        agree(same.table(STEPS), expected)
        sgd = _sgd(torch)
        chained = lr.ChainedScheduler(parts(sgd))
        again = compat.torch.from_torch(chained)
        expected = _stepped(chained)
        agree(again.table(STEPS), expected)


def test_torch_one_cycle_beyond_its_end():
    """Update total_steps is one too many, is allowed, and overshoots: a negative rate for a linear end."""
    torch = pytest.importorskip("torch")
    for strategy in ("cos", "linear"):
        for three_phase in (False, True):
            arguments = {"max_lr": 0.1, "total_steps": 50, "anneal_strategy": strategy, "three_phase": three_phase}
            scheduler = _torch_scheduler(torch, "OneCycleLR", arguments)
            expected = _stepped(scheduler, 51 - 1)
            expected.append(scheduler.get_last_lr()[0])
            ours = _ours("OneCycleLR", arguments)
            agree(ours(np.arange(51)), expected)
            assert (ours(50) < 0) == (strategy == "linear")
            with pytest.raises(ValueError, match="has ended at step 51"):
                ours(51)


def test_torch_plateau():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    for arguments in (
        {"factor": 0.5, "patience": 3},
        {"factor": 0.5, "patience": 2, "cooldown": 4, "mode": "max", "min_lr": 0.01},
        {"factor": 0.3, "patience": 0, "threshold_mode": "abs", "threshold": 0.1, "min_lr": 1e-4},
    ):
        curve = 3 + np.abs(rng.standard_normal(STEPS)) / (1 + 0.01 * np.arange(STEPS))  # positive: there both agree
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(_sgd(torch), eps=0.0, **arguments)
        values = []
        for x in curve:
            scheduler.step(x)
            values.append(scheduler.optimizer.param_groups[0]["lr"])
        agree(LR * compat.torch.ReduceLROnPlateau(LR, **arguments).run(curve), values)


def test_from_torch_refuses():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="ReduceLROnPlateau is not a function of the step"):
        compat.torch.from_torch(torch.optim.lr_scheduler.ReduceLROnPlateau(_sgd(torch)))


def test_to_torch():
    torch = pytest.importorskip("torch")
    s = S.cosine(0.1, 0, 50).warmup(5)
    p, q = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    opt = torch.optim.AdamW([{"params": [p]}, {"params": [q]}], lr=7.0)
    scheduler = s.to_torch(opt, scales=[1, 10])
    momentum = S.linear(0.9, 0.5, 60).to_torch(opt, key="betas[0]")
    decay = S.linear(0.1, 0.0, 60).to_torch(opt, key="weight_decay")
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    for n in range(60):
        assert scheduler.get_last_lr() == [s(n), 10 * s(n)] == [g["lr"] for g in opt.param_groups]
        assert opt.param_groups[1]["betas"] == (S.linear(0.9, 0.5, 60)(n), 0.999)
        assert opt.param_groups[0]["weight_decay"] == S.linear(0.1, 0.0, 60)(n)
        (p * 2 + q).backward()
        opt.step()
        for each in (scheduler, momentum, decay):
            each.step()
        if n == 30:
            saved = scheduler.state_dict()
            assert saved == {"last_epoch": 31}
            buffer = io.BytesIO()
            torch.save(saved, buffer)
            buffer.seek(0)
            other = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=3.0)
            resumed = s.to_torch(other)
            resumed.load_state_dict(torch.load(buffer, weights_only=True))
            assert other.param_groups[0]["lr"] == s(31)
            resumed.step()
            assert resumed.get_last_lr() == [s(32)]
    with pytest.raises(KeyError, match="have no 'momentum'"):
        s.to_torch(opt, key="momentum")
    with pytest.raises(ValueError, match="one factor for each of 2 groups"):
        s.to_torch(opt, scales=[1])


def test_to_torch_as_lightning_and_accelerate_use_it():
    """What they touch: isinstance, .optimizer, _step_count, last_epoch, step(), get_last_lr(), state_dict."""
    torch = pytest.importorskip("torch")
    opt = _sgd(torch)
    s = S.linear(1.0, 0.0, 10)
    scheduler = s.to_torch(opt)
    assert scheduler.optimizer is opt
    assert (scheduler.last_epoch, scheduler._step_count) == (0, 1)
    for _ in range(2):  # accelerate: once for each process
        opt.step()
        scheduler.step()
    assert scheduler.get_last_lr() == [s(2)]
    scheduler._step_count += 1  # accelerate, while it accumulates gradients
    resumed = s.to_torch(_sgd(torch))
    resumed.load_state_dict(scheduler.state_dict())
    assert resumed.get_last_lr() == [s(2)]
    # A schedule may be one of several in SequentialLR's place: after torch's own, it starts where it is told.
    late = s.to_torch(_sgd(torch), last_epoch=4)
    assert late.get_last_lr() == [s(5)]


# ---- optax ----------------------------------------------------------------------------------------------------------

OPTAX = [
    ("constant_schedule", {"value": 0.3}),
    ("linear_schedule", {"init_value": 0.1, "end_value": 0.01, "transition_steps": 300, "transition_begin": 50}),
    ("linear_schedule", {"init_value": 0.1, "end_value": 0.01, "transition_steps": 0}),
    ("polynomial_schedule", {"init_value": 0.1, "end_value": 0.01, "power": 2.5, "transition_steps": 300}),
    ("piecewise_constant_schedule", {"init_value": 0.1, "boundaries_and_scales": {100: 0.5, 300: 0.1}}),
    ("piecewise_constant_schedule", {"init_value": 0.1}),
    (
        "piecewise_interpolate_schedule",
        {"interpolate_type": "linear", "init_value": 0.1, "boundaries_and_scales": {100: 0.5, 300: 0.1}},
    ),
    (
        "piecewise_interpolate_schedule",
        {"interpolate_type": "cosine", "init_value": 0.1, "boundaries_and_scales": {100: 2.0, 300: 0.1}},
    ),
    ("exponential_decay", {"init_value": 0.1, "transition_steps": 50, "decay_rate": 0.7}),
    (
        "exponential_decay",
        {
            "init_value": 0.1,
            "transition_steps": 50,
            "decay_rate": 0.7,
            "staircase": True,
            "transition_begin": 30,
            "end_value": 0.02,
        },
    ),
    ("exponential_decay", {"init_value": 0.1, "transition_steps": 50, "decay_rate": 1.3, "end_value": 0.2}),
    ("exponential_decay", {"init_value": 0.1, "transition_steps": 50, "decay_rate": 0.0}),
    ("cosine_decay_schedule", {"init_value": 0.1, "decay_steps": 300, "alpha": 0.1, "exponent": 1.5}),
    ("warmup_constant_schedule", {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 30}),
    (
        "warmup_cosine_decay_schedule",
        {"init_value": 0.01, "peak_value": 0.1, "warmup_steps": 30, "decay_steps": 300, "end_value": 0.001},
    ),
    (
        "warmup_exponential_decay_schedule",
        {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 30, "transition_steps": 40, "decay_rate": 0.5},
    ),
    ("linear_onecycle_schedule", {"transition_steps": 300, "peak_value": 0.1}),
    ("cosine_onecycle_schedule", {"transition_steps": 300, "peak_value": 0.1}),
    (
        "sgdr_schedule",
        {
            "cosine_kwargs": [
                {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 5, "decay_steps": 50},
                {"init_value": 0.01, "peak_value": 0.05, "warmup_steps": 5, "decay_steps": 100},
            ]
        },
    ),
]


@pytest.mark.parametrize(("name", "arguments"), OPTAX, ids=[f"{name}-{k}" for k, (name, _) in enumerate(OPTAX)])
def test_optax(name, arguments):
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    ours = getattr(compat.optax, name)(**arguments)
    theirs = getattr(optax, name)(**arguments)
    n = np.arange(400)
    at_once = jax.vmap(theirs) if "interpolate" in name or "onecycle" in name else theirs
    expected = np.asarray(at_once(jax.numpy.asarray(n))) * np.ones(len(n))
    assert np.max(np.abs(ours(n) - expected)) <= 3e-6 * np.max(np.abs(expected))  # theirs is float32


# ---- Hugging Face, Keras, timm --------------------------------------------------------------------------------------

W, T = 100, 1000
HF = {
    "constant": (hf.constant(LR), lambda n: 1),
    "constant_with_warmup": (hf.constant_with_warmup(LR, W), lambda n: min(1, n / W)),
    "linear": (hf.linear(LR, W, T), lambda n: ref.hf_linear(n, W, T)),
    "linear-cold": (hf.linear(LR, 0, T), lambda n: ref.hf_linear(n, 0, T)),
    "cosine": (hf.cosine(LR, W, T), lambda n: ref.hf_cosine(n, W, T)),
    "cosine-waves": (hf.cosine(LR, W, T, 2.5), lambda n: ref.hf_cosine(n, W, T, 2.5)),
    "restarts": (hf.cosine_with_restarts(LR, W, T, 3), lambda n: ref.hf_restarts(n, W, T, 3)),
    "polynomial": (hf.polynomial(LR, W, T, 1e-4, 2.0), lambda n: ref.hf_polynomial(n, W, T, LR, 1e-4, 2.0)),
    "inverse_sqrt": (hf.inverse_sqrt(LR, W), lambda n: ref.hf_inverse_sqrt(n, W)),
    "inverse_sqrt-cold": (hf.inverse_sqrt(LR, 0), lambda n: ref.hf_inverse_sqrt(n, 0)),
    "inverse_sqrt-slow": (hf.inverse_sqrt(LR, W, 500), lambda n: ref.hf_inverse_sqrt(n, W, 500)),
    "min_lr": (hf.cosine_with_min_lr(LR, W, T, min_lr=0.01), lambda n: ref.hf_min_lr(n, W, T, 0.5, 0.1)),
    "min_lr_rate": (hf.cosine_with_min_lr(LR, W, T, 1.0, min_lr_rate=0.2), lambda n: ref.hf_min_lr(n, W, T, 1, 0.2)),
    "warmup_min_lr": (
        hf.cosine_warmup_with_min_lr(LR, W, T, min_lr_rate=0.1),
        lambda n: ref.hf_warmup_min_lr(n, W, T, 0.5, 0.1, None),
    ),
    "warmup_min_lr-rate": (
        hf.cosine_warmup_with_min_lr(LR, W, T, min_lr_rate=0.1, warmup_lr_rate=0.3),
        lambda n: ref.hf_warmup_min_lr(n, W, T, 0.5, 0.1, 0.3),
    ),
    "wsd": (
        hf.warmup_stable_decay(LR, W, 300, T, min_lr_ratio=0.1),
        lambda n: ref.hf_wsd(n, W, 600, 300, "linear", "cosine", 0.1),
    ),
    "wsd-linear": (
        hf.warmup_stable_decay(LR, W, 300, num_stable_steps=50, warmup_type="cosine", decay_type="linear"),
        lambda n: ref.hf_wsd(n, W, 50, 300, "cosine", "linear", 0),
    ),
    "wsd-sqrt": (
        hf.warmup_stable_decay(LR, W, 300, T, decay_type="1-sqrt"),
        lambda n: ref.hf_wsd(n, W, 600, 300, "linear", "1-sqrt", 0),
    ),
    "wsd-waves": (
        hf.warmup_stable_decay(LR, W, 300, T, num_cycles=1.5),
        lambda n: ref.hf_wsd(n, W, 600, 300, "linear", "cosine", 0, 1.5),
    ),
}


@pytest.mark.parametrize("name", HF)
def test_hf(name):
    ours, theirs = HF[name]
    agree(ours.table(STEPS), [LR * theirs(n) for n in range(STEPS)])


KERAS = [
    (keras.ExponentialDecay(LR, 100, 0.7), lambda n: ref.keras_exponential(n, LR, 100, 0.7, False)),
    (keras.ExponentialDecay(LR, 100, 0.7, True), lambda n: ref.keras_exponential(n, LR, 100, 0.7, True)),
    (
        keras.PiecewiseConstantDecay([100, 500], [0.1, 0.05, 0.01]),
        lambda n: ref.keras_piecewise(n, [100, 500], [0.1, 0.05, 0.01]),
    ),
    (keras.PolynomialDecay(LR, 300, 0.01, 2.0), lambda n: ref.keras_polynomial(n, LR, 300, 0.01, 2, False)),
    (keras.PolynomialDecay(LR, 300, 0.01, 2.0, True), lambda n: ref.keras_polynomial(n, LR, 300, 0.01, 2, True)),
    (keras.PolynomialDecay(LR, 300), lambda n: ref.keras_polynomial(n, LR, 300, 1e-4, 1, False)),
    (keras.InverseTimeDecay(LR, 100, 0.5), lambda n: ref.keras_inverse_time(n, LR, 100, 0.5, False)),
    (keras.InverseTimeDecay(LR, 100, 0.5, True), lambda n: ref.keras_inverse_time(n, LR, 100, 0.5, True)),
    (keras.CosineDecay(LR, 500, 0.1), lambda n: ref.keras_cosine(n, LR, 500, 0.1, None, 0)),
    (keras.CosineDecay(0.0, 500, 0.1, LR, 50), lambda n: ref.keras_cosine(n, 0.0, 500, 0.1, LR, 50)),
    (keras.CosineDecayRestarts(LR, 100), lambda n: ref.keras_restarts(n, LR, 100, 2, 1, 0)),
    (keras.CosineDecayRestarts(LR, 50, 1.5, 0.8, 0.1), lambda n: ref.keras_restarts(n, LR, 50, 1.5, 0.8, 0.1)),
]


@pytest.mark.parametrize("k", range(len(KERAS)))
def test_keras(k):
    ours, theirs = KERAS[k]
    agree(ours.table(STEPS), [theirs(n) for n in range(STEPS)])


def _cosine(u):
    return 0.5 * (1 + math.cos(math.pi * u))


TIMM = [
    (timm.CosineLRScheduler(LR, 500, 1e-3), (_cosine, LR, 500, 1e-3, 1, 1, 1, 0, 0, False, LR)),
    (
        timm.CosineLRScheduler(LR, 500, 1e-3, warmup_t=50, warmup_lr_init=1e-4),
        (_cosine, LR, 500, 1e-3, 1, 1, 1, 50, 1e-4, False, LR),
    ),
    (
        timm.CosineLRScheduler(LR, 100, 1e-3, 2.0, 0.5, 3, 50, 1e-4, True),
        (_cosine, LR, 100, 1e-3, 2, 0.5, 3, 50, 1e-4, True, LR),
    ),
    (timm.CosineLRScheduler(LR, 100, 0.0, 3, 1, 9), (_cosine, LR, 100, 0, 3, 1, 9, 0, 0, False, LR)),
    (
        timm.CosineLRScheduler(LR, 500, 1e-3, k_decay=1.5),
        (lambda u: _cosine(u**1.5), LR, 500, 1e-3, 1, 1, 1, 0, 0, False, LR),
    ),
    (
        timm.PolyLRScheduler(LR, 300, 0.5, 1e-3, 1, 0.7, 4, 20, 1e-4, True, 1.3),
        (lambda u: (1 - u**1.3) ** 0.5, LR, 300, 1e-3, 1, 0.7, 4, 20, 1e-4, True, LR),
    ),
    (
        timm.TanhLRScheduler(LR, 500, lr_min=1e-3, warmup_t=50, warmup_lr_init=1e-4, warmup_prefix=True),
        (lambda u: 0.5 * (1 - math.tanh(-7 * (1 - u) + 3 * u)), LR, 500, 1e-3, 1, 1, 1, 50, 1e-4, True, LR),
    ),
    (
        timm.TanhLRScheduler(LR, 500, -4, 2, warmup_t=50),
        (
            lambda u: 0.5 * (1 - math.tanh(-4 * (1 - u) + 2 * u)),
            LR,
            500,
            0,
            1,
            1,
            1,
            50,
            0,
            False,
            LR * 0.5 * (1 - math.tanh(-4 * 0.9 + 2 * 0.1)),
        ),
    ),
]


@pytest.mark.parametrize("k", range(len(TIMM)))
def test_timm(k):
    ours, arguments = TIMM[k]
    agree(ours.table(STEPS), [ref.timm_cycles(t, *arguments) for t in range(STEPS)], rel=2e-12)


def test_timm_steps():
    for prefix in (False, True):
        ours = timm.StepLRScheduler(LR, 130, 0.5, 40, 1e-4, prefix)
        agree(ours.table(STEPS), [ref.timm_step(t, LR, 130, 0.5, 40, 1e-4, prefix) for t in range(STEPS)])
        ours = timm.MultiStepLRScheduler(LR, [90, 400], 0.5, 40, 1e-4, prefix)
        agree(ours.table(STEPS), [ref.timm_multistep(t, LR, [90, 400], 0.5, 40, 1e-4, prefix) for t in range(STEPS)])


# ---- traced ---------------------------------------------------------------------------------------------------------

TRACED = [
    S.cosine(1, 0.1, 300).warmup(50),
    S.wsd(1, 50, 200, 100),
    S.one_cycle(1, 400, three_phase=True, shape="linear"),
    S.warm_restarts(1, 0.1, 30, 2, 0.8),
    S.warm_restarts(1, 0.1, 30, 1, 0.8),
    S.cyclical(0.1, 1, 30, mode="triangular2") + S.cyclical(0.1, 1, 30, 20, "exp_range", 0.99),
    S.polynomial(1, 0.1, 70, 2, cycle=True) * S.step(1, 0.5, 50).clip(0.2, 0.9),
    S.exponential(1, 0.9, 10) + S.exponential(1, 0.9, 10, True) + S.natural_exponential(1, 0.01),
    S.inverse_time(1, 0.1) + S.inverse_time(1, 0.5, 20, True) + S.inverse_sqrt(1, 20) + S.noam(64, 30),
    S.power_law(3, 0.5, 0.4).shift(10).every(7).stretch(2),
    S.time_based(1, 0.002) + S.time_based(1, 0.05),
    S.linear(1, 0, 50).after("zero") + S.linear(1, 0, 50).repeat(1, 0.7) + S.linear(1, 0, 50).repeat(2, 0.7),
    S.linear(1, 0.3, 300).extend(400, 100),
    *(S.ramp(1, 0.1, 300, shape) for shape in [*ref.LEFT, "geometric"]),
]


@pytest.mark.parametrize("k", range(len(TRACED)))
def test_traced_with_numpy(k):
    t = np.arange(450.0)
    assert np.max(np.abs(traced(TRACED[k].node, t, np) - TRACED[k](t))) <= 1e-7


@pytest.mark.parametrize("k", range(len(TRACED)))
def test_to_optax(k):
    jax = pytest.importorskip("jax")
    s = TRACED[k]
    f = s.to_optax()
    counts = np.arange(450)
    values = np.asarray(jax.jit(f)(counts) if k < 3 else f(counts))
    assert np.max(np.abs(values - s(counts))) <= 2e-4 * np.max(np.abs(s(counts)))
    assert float(f(7)) == pytest.approx(s(7), rel=2e-4)


def test_to_optax_in_an_optimizer():
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    s = S.cosine(0.1, 0, 20).warmup(5)
    opt = optax.sgd(s.to_optax())
    p = jax.numpy.zeros(1)
    state = opt.init(p)
    total = 0.0
    for n in range(10):
        updates, state = jax.jit(opt.update)(jax.numpy.ones(1), state)
        p = optax.apply_updates(p, updates)
        total -= s(n)
    assert float(p[0]) == pytest.approx(total, rel=1e-5)


def test_what_cannot_be_traced():
    pytest.importorskip("jax")
    for s in (S.noise(0, 1), S.constant(1) * S.custom(_third)):
        with pytest.raises(TypeError, match="cannot be traced"):
            s.to_optax()


def test_to_keras(monkeypatch):
    pytest.importorskip("jax")
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # read when it is first imported
    peer = pytest.importorskip("keras")
    for s in TRACED[:6]:
        theirs = s.to_keras()
        assert isinstance(theirs, peer.optimizers.schedules.LearningRateSchedule)
        for n in (3, 77, 449):
            assert float(theirs(n)) == pytest.approx(s(n), rel=2e-4, abs=1e-6)
        again = peer.optimizers.schedules.deserialize(peer.optimizers.schedules.serialize(theirs))
        assert again.schedule == s
    opt = peer.optimizers.SGD(S.linear(0.1, 0, 10).to_keras())
    assert float(opt.learning_rate) == pytest.approx(0.1)


def test_compat_values_are_schedules_too():
    for s, _ in HF.values():
        assert S.Schedule.from_json(s.to_json()) == S.parse(repr(s)) == pickle.loads(pickle.dumps(s)) == s
