"""Third opinions, as in test_peers.py: the authors' packages, and pytorch_optimizer for rules that have none."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

import fastlr
from tests.test_peers import close, data, rate, set_rate

torch = pytest.importorskip("torch")
CUT = 100  # two tensors, so that norms are a tensor's


def parts_of(x):
    return [x[:CUT].copy(), x[CUT:].copy()]


def parameters(arrays):
    return [torch.nn.Parameter(torch.from_numpy(x.copy())) for x in arrays]


def give(theirs, gradients):
    for p, g in zip(theirs, gradients, strict=True):
        p.grad = torch.from_numpy(g.copy())


# ---- Schedule-Free --------------------------------------------------------------------------------------------------

AVERAGED = [
    {},
    {"weight_decay": 0.1},
    {"warmup_steps": 7, "r": 1.5},
    {"warmup_steps": 30, "r": 0.5, "weight_decay": 0.1, "weight_lr_power": 1.0},
]


@pytest.mark.parametrize("hyper", AVERAGED, ids=str)
@pytest.mark.parametrize(
    ("cls", "theirs", "own"),
    [
        (fastlr.ScheduleFreeSGD, "SGDScheduleFree", {"momentum": 0.8}),
        (fastlr.ScheduleFreeAdamW, "AdamWScheduleFree", {"betas": (0.8, 0.95), "eps": 1e-6}),
    ],
    ids=["SGD", "AdamW"],
)
def test_schedule_free_in_float64(cls, theirs, own, hyper):
    """Parameters, z, and what it evaluates, with a rate that changes; theirs goes there and back in place."""
    package = pytest.importorskip("schedulefree")
    p, gradients = data()
    parts = parts_of(p)
    others = parameters(parts)
    opt = cls(parts, lr=rate, **own, **hyper)
    peer = getattr(package, theirs)(others, lr=0.01, foreach=False, **own, **hyper)
    peer.train()
    for t, g in enumerate(gradients):
        opt.step(parts_of(g))
        set_rate(peer, rate(t))
        give(others, parts_of(g))
        peer.step()
        for k, other in enumerate(others):
            close(parts[k], other.detach().numpy(), f"p[{k}], step {t}")
            close(opt.state["z"][k], peer.state[other]["z"].numpy(), f"z[{k}], step {t}")
        peer.eval()
        for k, other in enumerate(others):
            close(opt.eval_params()[k], other.detach().numpy(), f"x[{k}], step {t}")
        peer.train()


# ---- DoG ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hyper", [{}, {"weight_decay": 0.1, "eps": 0.01}], ids=str)
@pytest.mark.parametrize("cls", [fastlr.DoG, fastlr.LDoG], ids=lambda cls: cls.__name__)
def test_dog_in_float64(cls, hyper):
    package = pytest.importorskip("dog")
    p, gradients = data()
    parts = parts_of(p)
    others = parameters(parts)
    model = torch.nn.ParameterList(others)
    opt = cls(parts, reps_rel=0.1, averaging=8.0, **hyper)
    peer = getattr(package, cls.__name__)(others, reps_rel=0.1, **hyper)
    mean = package.PolynomialDecayAverager(model, gamma=8.0)
    for t, g in enumerate(gradients):
        opt.step(parts_of(g))
        give(others, parts_of(g))
        peer.step()
        mean.step()
        rates = peer.param_groups[0]["eta"]
        assert opt.rates == pytest.approx([float(x) for x in rates[: len(opt.rates)]], rel=1e-12)
        for k, other in enumerate(others):
            close(parts[k], other.detach().numpy(), f"p[{k}], step {t}")
            close(opt.eval_params()[k], mean.av_model[k].detach().numpy(), f"a[{k}], step {t}")
    assert opt.rates[0] != opt.rates[-1] or cls is fastlr.DoG


# ---- one step after the other ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Peer:
    """A class of a package, and what it is called with; `hyper` is ours. `state` has its names for ours."""

    cls: type[fastlr.Optimizer]
    module: str
    name: str
    hyper: dict[str, Any] = field(default_factory=dict)
    theirs: dict[str, Any] = field(default_factory=dict)
    state: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[Any], None] = lambda peer: None
    rate: Callable[[int], float] = rate


def unclamped(peer):
    """Without the bound of 10 on a tensor's norm."""
    peer.clamp = float("inf")


def clamped(peer):
    """With a bound on a tensor's norm that the norms reach."""
    peer.clamp = 0.5


def bare(peer):
    """Without the 1e-15 that is added to v."""
    peer.apply_ams_bound = functools.partial(peer.apply_ams_bound, exp_avg_sq_eps=0.0)


def above_zero(step):
    return rate(step) or 0.01


ZHUANG, MA, KOZISTR = "adabelief_pytorch", "qhoptim.pyt", "pytorch_optimizer"
QUIET = {"print_change_log": False}
BELIEF, MOMENTS = {"m": "exp_avg", "s": "exp_avg_var"}, {"m": "exp_avg", "v": "exp_avg_sq"}
ADAN = {"m": "exp_avg", "d": "exp_avg_diff", "n": "exp_avg_sq"}
PEERS = {
    "QHM": Peer(
        fastlr.QHM,
        MA,
        "QHM",
        {"momentum": 0.9, "nu": 0.6, "weight_decay": 0.1},
        {"momentum": 0.9, "nu": 0.6, "weight_decay": 0.1},
        {"b": "momentum_buffer"},
    ),
    "QHM-decoupled": Peer(
        fastlr.QHM,
        MA,
        "QHM",
        {"momentum": 0.9, "nu": 0.6, "weight_decay": 0.1, "decoupled_weight_decay": True},
        {"momentum": 0.9, "nu": 0.6, "weight_decay": 0.1, "weight_decay_type": "direct"},
        {"b": "momentum_buffer"},
    ),
    "QHAdam": Peer(
        fastlr.QHAdam,
        MA,
        "QHAdam",
        {"nus": (0.7, 0.9), "betas": (0.8, 0.95), "weight_decay": 0.1},
        {"nus": (0.7, 0.9), "betas": (0.8, 0.95), "weight_decay": 0.1},
    ),
    "QHAdam-decoupled": Peer(
        fastlr.QHAdam,
        MA,
        "QHAdam",
        {"nus": (0.7, 1.0), "weight_decay": 0.1, "decoupled_weight_decay": True},
        {"nus": (0.7, 1.0), "weight_decay": 0.1, "decouple_weight_decay": True},
    ),
    "AdaBelief": Peer(
        fastlr.AdaBelief,
        ZHUANG,
        "AdaBelief",
        {"weight_decay": 0.1, "eps": 1e-8, "rectify": False},
        {"weight_decay": 0.1, "eps": 1e-8, "rectify": False, **QUIET},
        BELIEF,
    ),
    "AdaBelief-rectified": Peer(
        fastlr.AdaBelief,
        ZHUANG,
        "AdaBelief",
        {"weight_decay": 0.1, "eps": 1e-8, "betas": (0.8, 0.99), "rectify": True},
        {"weight_decay": 0.1, "eps": 1e-8, "betas": (0.8, 0.99), "rectify": True, **QUIET},
        BELIEF,
    ),
    "AdaBelief-rectified-coupled": Peer(
        fastlr.AdaBelief,
        ZHUANG,
        "AdaBelief",
        {"weight_decay": 0.1, "eps": 1e-8, "rectify": True, "decoupled_weight_decay": False},
        {"weight_decay": 0.1, "eps": 1e-8, "rectify": True, "weight_decouple": False, **QUIET},
        BELIEF,
    ),
    "Adan": Peer(fastlr.Adan, KOZISTR, "Adan", {"weight_decay": 0.1}, {"weight_decay": 0.1}, ADAN),
    "Adan-no_prox": Peer(
        fastlr.Adan,
        KOZISTR,
        "Adan",
        {"weight_decay": 0.1, "no_prox": True, "betas": (0.9, 0.8, 0.95)},
        {"weight_decay": 0.1, "weight_decouple": True, "betas": (0.9, 0.8, 0.95)},
        ADAN,
    ),
    "LaProp": Peer(
        fastlr.LaProp,
        KOZISTR,
        "LaProp",
        {"betas": (0.8, 0.95), "eps": 1e-20},  # beside the corrected root here, and the uncorrected there
        {"betas": (0.8, 0.95), "eps": 1e-20, "foreach": False},
        MOMENTS,
        bare,
        above_zero,  # at 0 it goes on moving by m
    ),
    "LAMB": Peer(
        fastlr.LAMB,
        KOZISTR,
        "Lamb",
        {"bias_correction": False, "weight_decay": 0.1, "eps": 1e-15},
        {"weight_decouple": False, "weight_decay": 0.1, "eps": 1e-15, "adam_debias": True},
        MOMENTS,
        unclamped,
    ),
    "LAMB-bounded": Peer(
        fastlr.LAMB,
        KOZISTR,
        "Lamb",
        {"bias_correction": False, "weight_decay": 0.1, "eps": 1e-15, "max_norm": 0.5},
        {"weight_decouple": False, "weight_decay": 0.1, "eps": 1e-15, "adam_debias": True},
        MOMENTS,
        clamped,
    ),
    "LAMB-adapt": Peer(
        fastlr.LAMB,
        KOZISTR,
        "Lamb",
        {"bias_correction": False, "weight_decay": 0, "eps": 1e-15, "always_adapt": True, "grad_averaging": False},
        {"eps": 1e-15, "grad_averaging": False, "adam_debias": True},
        MOMENTS,
        unclamped,
    ),
    "AdEMAMix": Peer(
        fastlr.AdEMAMix,
        KOZISTR,
        "AdEMAMix",
        {"betas": (0.8, 0.95, 0.999), "alpha": 5.0, "weight_decay": 0.1, "t_alpha_beta3": 12.0},
        {
            "betas": (0.8, 0.95, 0.999),
            "alpha": 5.0,
            "weight_decay": 0.1,
            "t_alpha_beta3": 12.0,
            "weight_decouple": True,
        },
        {"m": "exp_avg", "n": "exp_avg_slow", "v": "exp_avg_sq"},
    ),
    "StableAdamW": Peer(
        fastlr.StableAdamW,
        KOZISTR,
        "StableAdamW",
        {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1},
        {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1, "kahan_sum": False},
    ),
    "NovoGrad": Peer(
        fastlr.NovoGrad,
        KOZISTR,
        "NovoGrad",
        {"weight_decay": 0.1},
        {"weight_decay": 0.1},
        {"m": "moments"},
    ),
    "FTRL": Peer(
        fastlr.FTRL,
        KOZISTR,
        "FTRL",
        {"l1": 0.1, "l2": 0.2, "beta": 0.5},
        {"lambda_1": 0.1, "lambda_2": 0.2, "beta": 0.5},
        {"z": "z", "n": "n"},
        rate=above_zero,
    ),
}


@pytest.mark.filterwarnings("ignore:This overload of add:UserWarning", "ignore:This overload of addcdiv:UserWarning")
@pytest.mark.parametrize("name", PEERS)
def test_package_in_float64(name):
    """20 steps with a rate that changes: parameters, and state where it has the same meaning."""
    case = PEERS[name]
    package = pytest.importorskip(case.module)
    p, gradients = data()
    parts = parts_of(p)
    others = parameters(parts)
    opt = case.cls(parts, lr=case.rate, **case.hyper)
    peer = getattr(package, case.name)(others, lr=0.01, **case.theirs)
    case.prepare(peer)
    for t, g in enumerate(gradients):
        opt.step(parts_of(g))
        set_rate(peer, case.rate(t))
        give(others, parts_of(g))
        peer.step()
        for k, other in enumerate(others):
            close(parts[k], other.detach().numpy(), f"p[{k}], step {t}")
            for key, its in case.state.items():
                close(opt.state[key][k], peer.state[other][its].numpy(), f"{key}[{k}], step {t}")


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_adahessian_in_float64(power):
    """Given the same diagonals, of either sign."""
    package = pytest.importorskip("pytorch_optimizer")
    p, gradients = data()
    parts = parts_of(p)
    others = parameters(parts)
    hyper = {"betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1, "hessian_power": power}
    opt, peer = fastlr.AdaHessian(parts, lr=rate, **hyper), package.AdaHessian(others, lr=0.01, **hyper)
    for t, g in enumerate(gradients):
        diagonal = parts_of(gradients[t - 1][::-1])
        opt.step(parts_of(g), hessian=diagonal)
        set_rate(peer, rate(t))
        give(others, parts_of(g))
        peer.step(hessian=[torch.from_numpy(x.copy()) for x in diagonal])
        for k, other in enumerate(others):
            close(parts[k], other.detach().numpy(), f"p[{k}], step {t}")
