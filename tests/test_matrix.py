"""Adafactor and Muon: rules that see a tensor as a matrix. What holds for all optimizers, shown for these."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import fastlr
from fastlr import _core
from fastlr.rules.muon import bfloat16, nearer, orthogonal
from tests import reference
from tests.test_exact import ISAS, OFFSETS, THREADS, Arena, guarded

both_types = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
both_rules = pytest.mark.parametrize("cls", [fastlr.Adafactor, fastlr.Muon], ids=lambda c: c.__name__)

# Wide, tall, of one row or column, beyond a tile of 1024 columns and 64 rows, and planes that share a tile.
MATRICES = [(5, 3), (64, 100), (1, 9), (9, 1), (70, 1030), (3000, 3), (2, 5000), (33, 33)]
SMALL = [(5, 3), (64, 100), (1, 9), (9, 1), (33, 33)]
TENSORS = [*MATRICES, (3, 4, 5, 6), (400, 3, 3), (2, 70, 1030), (2, 3, 1, 4), (7,), (), (1,), (70_001,)]

STEPS = 20


@pytest.fixture(autouse=True)
def machine():
    isa, threads = _core.isa(), _core.get_threads()
    yield
    _core.use_isa(isa)
    _core.set_threads(threads)


def use(isa, threads):
    _core.use_isa(isa)
    _core.set_threads(threads)


def rate(step):
    return 0.0 if step == 7 else 0.02 * (1.5 + math.cos(step))


def numbers(shape, dtype, seed, spread=0.0):
    rng = np.random.default_rng(seed)
    return np.asarray(rng.standard_normal(shape) * 10.0 ** rng.uniform(-spread, spread / 2, shape), dtype)


def model(cls, dtype, seed=0, spread=0.0):
    shapes = SMALL if cls is fastlr.Muon else TENSORS
    return {str(s): numbers(s, dtype, seed + k, spread) for k, s in enumerate(shapes)}


def off(actual, expected):
    """The largest error, relative where the number is above one."""
    return max((float(np.max(abs(a - b) / np.maximum(1, abs(b)))) for a, b in zip(actual, expected, strict=True)))


def states(opt):
    """{(state, entry)} without those that are empty."""
    return {(key, k): a for key, arrays in opt._entries.items() for k, a in enumerate(arrays) if a.size}


# ---- the formula ----------------------------------------------------------------------------------------------------

ADAFACTOR = {
    "plain": {},
    "decay": {"weight_decay": 0.1},
    "odd": {"beta2_decay": -0.5, "eps": (1e-3, 0.5), "d": 2.0, "weight_decay": 0.01},
    "means of all steps alike": {"beta2_decay": -1.0, "maximize": True},
    "bounded V": {"eps": (0.5, 1e-3)},
    "fairseq": {"form": "fairseq"},
    "fairseq, odd": {"form": "fairseq", "eps": (0.25, 0.5), "weight_decay": 0.1, "beta2_decay": -0.6, "d": 1.5},
    "fairseq, its own rate": {"form": "fairseq", "relative_step": False, "scale_parameter": False},
    "absolute": {"relative_step": False, "scale_parameter": False, "weight_decay": 0.1},
    "rate above one": {"relative_step": False},
    "rate bounded": {"lr": lambda step: 0.6},
}
MUON = {
    "plain": {},
    "no decay": {"weight_decay": 0.0},
    "odd": {"momentum": 0.5, "weight_decay": 0.3, "adjust_lr_fn": "match_rms_adamw", "maximize": True},
    "heavy ball": {"nesterov": False, "adjust_lr_fn": "original"},
    "three steps of a cubic": {"ns_coefficients": (1.5, -0.5, 0.0), "ns_steps": 3},
    "small": {"eps": 100.0},
}
# Of the path: what a parameter, at first of about one, has been and moved in all. In float32 some sixteen roundings of
# 2⁻²⁴ a step for Adafactor. Muon's iteration amplifies those of small singular values, 3.4 times a round.
TOLERANCE = {
    ("Adafactor", "float64"): 1e-14,
    ("Adafactor", "float32"): 1e-6,
    ("Muon", "float64"): 1e-14,
    ("Muon", "float32"): 1e-6,
}


def compare(cls, dtype, kwargs, steps=STEPS, grad_scale=1.0, **wrong):
    """Steps of the optimizer and the reference side by side; returns the largest error of parameters and states.

    Of parameters as a part of their path, of states of themselves where above one.
    """
    params = model(cls, dtype)
    own = {"precision": "float64"} if cls is fastlr.Muon and dtype == np.float64 else {}
    opt = cls(params, **{"lr": rate, **kwargs, **own})
    if cls is fastlr.Adafactor and kwargs.get("form") != "fairseq" and "eps" not in kwargs:
        kwargs = {**kwargs, "eps": (float(np.finfo(dtype).eps), 1e-3)}
    expected, state = {name: p.astype(float) for name, p in params.items()}, {name: {} for name in params}
    path = {name: 1 + abs(p) for name, p in expected.items()}
    function = getattr(reference, cls.__name__.lower())
    for t in range(1, steps + 1):
        grads = model(cls, dtype, 100 * t, spread=2.0)
        opt.step(grads, grad_scale=grad_scale)
        lr = kwargs.get("lr", rate)(t - 1)
        for name, p in expected.items():
            call = {**kwargs, "lr": lr, "grad_scale": grad_scale, **wrong}
            expected[name], state[name] = function(p, grads[name], state[name], t, **call)
            path[name] = path[name] + abs(expected[name] - p)
    worst = max(float(np.max(abs(p - expected[name]) / path[name])) for name, p in params.items())
    for key in opt.states:
        named = opt.state[key]
        for name, found in state.items():
            assert (key in found) == (named[name].size > 0)
            if key in found:
                assert named[name].shape == found[key].shape
                worst = max(worst, off([named[name]], [found[key]]))
    return worst


@both_types
@pytest.mark.parametrize("name", ADAFACTOR)
def test_adafactor_is_the_papers(name, dtype):
    assert compare(fastlr.Adafactor, dtype, ADAFACTOR[name]) < TOLERANCE["Adafactor", dtype.__name__]


@both_types
@pytest.mark.parametrize("name", MUON)
def test_muon_is_torchs(name, dtype):
    assert compare(fastlr.Muon, dtype, MUON[name]) < TOLERANCE["Muon", dtype.__name__]


@both_types
@both_rules
def test_gradient_scale(cls, dtype):
    assert compare(cls, dtype, {}, 3, grad_scale=0.3) < TOLERANCE[cls.__name__, dtype.__name__]


@pytest.mark.parametrize(
    ("cls", "kwargs", "wrong"),
    [
        (fastlr.Adafactor, {}, {"beta2_decay": -0.81}),
        (fastlr.Adafactor, {"d": 2.0}, {"d": 2.001}),
        (fastlr.Adafactor, {}, {"form": "fairseq"}),
        (fastlr.Adafactor, {"weight_decay": 0.1, "form": "fairseq"}, {"form": "torch"}),
        (fastlr.Adafactor, {"relative_step": False, "lr": lambda t: 1.0}, {"relative_step": True}),
        (fastlr.Adafactor, {}, {"scale_parameter": False}),
        (fastlr.Muon, {}, {"momentum": 0.951}),
        (fastlr.Muon, {}, {"nesterov": False}),
        (fastlr.Muon, {}, {"adjust_lr_fn": "match_rms_adamw"}),
        (fastlr.Muon, {}, {"ns_steps": 6}),
        (fastlr.Muon, {}, {"ns_coefficients": (3.4445, -4.775, 2.03)}),
    ],
    ids=lambda x: x.__name__ if isinstance(x, type) else " ".join(x),
)
def test_a_slightly_wrong_rule_would_be_seen(cls, kwargs, wrong):
    assert compare(cls, np.float64, kwargs, 5, **wrong) > 1e-6


def test_adafactor_by_hand():
    """t = 1: w = 1. g² = [[1, 9], [9, 81]]: r = 5, 45, c = 5, 45, mean 25, V = [[1, 9], [9, 81]], u = ±1, rms 1.

    α = rms(p) min(½, 1) = 2 · ½. t = 2: w = ½ (β = −1), g = 0: r, c and V halve, u = 0; then p decays alone.
    """
    p = np.full((2, 2), 2.0)
    opt = fastlr.Adafactor(p, lr=0.5, beta2_decay=-1.0, weight_decay=0.5)
    opt.step(np.array([[1.0, -3.0], [3.0, 9.0]]))
    np.testing.assert_allclose(p, [[0.5, 2.5], [0.5, 0.5]], rtol=1e-15)
    np.testing.assert_allclose(opt.state["r"], [[5], [45]])
    np.testing.assert_allclose(opt.state["c"], [[5, 45]])
    opt.step(np.zeros((2, 2)))
    np.testing.assert_allclose(opt.state["r"], [[2.5], [22.5]])
    np.testing.assert_allclose(p, np.array([[0.5, 2.5], [0.5, 0.5]]) * 0.75, rtol=1e-15)


def test_muon_by_hand():
    """One step of the cubic (3/2, −½, 0) from diag(3, 4)/5: s = 0.9 − 0.108, 1.2 − 0.256; and half of p decays."""
    p = np.eye(2)
    opt = fastlr.Muon(
        p, lr=0.5, weight_decay=1.0, ns_coefficients=(1.5, -0.5, 0), ns_steps=1, precision="float64", nesterov=False
    )
    opt.step(np.diag([3.0, 4.0]))
    np.testing.assert_allclose(p, np.diag([0.5 - 0.396, 0.5 - 0.472]), rtol=1e-14, atol=1e-16)
    np.testing.assert_allclose(opt.state["b"], np.diag([0.15, 0.2]), rtol=1e-14)


@both_types
def test_a_vector_is_not_a_matrix_of_one_row(dtype):
    g = numbers(9, dtype, 1)
    for shape in (9,), (1, 9):
        opt = fastlr.Adafactor(np.ones(shape, dtype))
        opt.step(g.reshape(shape))
        assert opt.nbytes == (9 if len(shape) == 1 else 10) * np.dtype(dtype).itemsize


def test_adafactor_keeps_almost_nothing():
    assert fastlr.Adafactor(np.zeros((512, 512), np.float32)).nbytes == 4 * (512 + 512)
    assert fastlr.Adafactor(np.zeros((7, 30, 20), np.float32)).nbytes == 4 * 7 * (30 + 20)
    assert fastlr.Adafactor(fastlr.FlatBuffer({"w": (30, 20), "b": (20,), "e": (0, 5)})).nbytes == 4 * (50 + 20)


# ---- the same bits --------------------------------------------------------------------------------------------------


def run(dtype, shapes, place=lambda x, k: x, steps=3, **step):
    """Parameters and states after some steps of Adafactor on arrays put where `place` puts them."""
    params = [place(numbers(s, dtype, k), k) for k, s in enumerate(shapes)]
    opt = fastlr.Adafactor(params, lr=0.1, weight_decay=0.1)
    for t in range(1, steps + 1):
        grads = [place(numbers(s, dtype, 100 * t + k, 3.0), k + t) for k, s in enumerate(shapes)]
        opt.step(grads, grad_scale=0.7, **step)
        assert all((g == 0).all() == step.get("zero_grads", False) for g in grads)
    return [*params, *states(opt).values()]


def same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@both_types
def test_adafactor_has_the_same_bits_for_any_isa_threads_and_offset(dtype):
    use("baseline", 1)
    expected = run(dtype, TENSORS)
    for k, (isa, threads, offset) in enumerate(itertools.product(ISAS, THREADS, OFFSETS)):
        use(isa, threads)
        arenas = []

        def place(x, n, offset=offset, arenas=arenas):
            arenas.append(Arena(x.reshape(-1), (offset + n) % 4 if offset else 0))
            return arenas[-1].array.reshape(x.shape)

        same(expected, run(dtype, TENSORS, place, zero_grads=k % 2 == 1))
        for arena in arenas:
            arena.check()


@both_types
def test_adafactor_does_not_know_a_tensors_neighbours(dtype):
    """One optimizer for all, one for each, a FlatBuffer, any order: the same bits."""
    params = model(fastlr.Adafactor, dtype)
    flat = fastlr.FlatBuffer.pack(params)
    alone = {name: p.copy() for name, p in params.items()}
    back = dict(reversed([(name, p.copy()) for name, p in params.items()]))
    one, packed, other = (fastlr.Adafactor(x, lr=rate) for x in (params, flat, back))
    each = {name: fastlr.Adafactor(p, lr=rate) for name, p in alone.items()}
    for t in range(3):
        grads = model(fastlr.Adafactor, dtype, 100 * t + 100)
        one.step(grads)
        packed.step(fastlr.FlatBuffer.pack(grads))
        other.step(grads)
        for name, opt in each.items():
            opt.step(grads[name])
    for name, p in params.items():
        for q in (flat[name], alone[name], back[name]):
            np.testing.assert_array_equal(p, q)
        for key in one.states:
            for opt in (packed, other):
                np.testing.assert_array_equal(one.state[key][name], opt.state[key][name])
            np.testing.assert_array_equal(one.state[key][name], each[name].state[key])


@pytest.mark.parametrize("at_end", [True, False], ids=["end", "start"])
@both_types
def test_adafactor_reads_nothing_beyond_a_buffer(dtype, at_end):
    def place(x, k):
        return guarded(x.reshape(-1), at_end).reshape(x.shape)

    for isa, shape in itertools.product(ISAS, [(7, 33), (33, 7), (3, 1030), (5, 3, 3), (1031,)]):
        use(isa, 1)
        p, g = place(numbers(shape, dtype, 0), 0), place(numbers(shape, dtype, 1), 0)
        opt = fastlr.Adafactor(p.copy())
        state = {key: place(a[0], 0) for key, a in opt._entries.items() if a[0].size}
        q = p.copy()
        opt = fastlr.Adafactor(q)
        opt.step(g)
        fastlr.functional.adafactor(p, g, **state, step=1)
        np.testing.assert_array_equal(p, q)


@both_types
@both_rules
def test_functional_is_the_class(cls, dtype):
    function = getattr(fastlr.functional, cls.__name__.lower())
    for name, p in model(cls, dtype).items():
        q, opt = p.copy(), cls(p, lr=rate, weight_decay=0.1)
        state = {key: np.zeros_like(opt.state[key]) for key in opt.states if opt.state[key].size}
        for t in range(1, 4):
            g = numbers(p.shape, dtype, t)
            opt.step(g, grad_scale=0.5)
            function(q, g, **state, step=t, lr=rate(t - 1), weight_decay=0.1, grad_scale=0.5)
            np.testing.assert_array_equal(p, q, err_msg=name)
            for key, x in state.items():
                np.testing.assert_array_equal(x, opt.state[key])


@both_types
def test_muon_leaves_the_momentum_that_it_used(dtype):
    """b is computed twice, by NumPy for the direction and by the kernel: the same bits, so that u is what b says."""
    p, b = np.zeros((6, 4), dtype), np.zeros((6, 4), dtype)
    opt = fastlr.Muon(p)
    a = dtype(1 - 0.95)
    for t in range(4):
        g = numbers((6, 4), dtype, t)
        opt.step(g, grad_scale=0.3)
        scaled = dtype(0.3) * g
        b = (b - a * b) + a * scaled
        np.testing.assert_array_equal(opt.state["b"], b)


# ---- what step promises ---------------------------------------------------------------------------------------------


@both_rules
def test_flat_buffer_list_dict_and_groups_are_one_step(cls):
    params = model(cls, np.float64)
    flat, listed = fastlr.FlatBuffer.pack(params), [p.copy() for p in params.values()]
    grouped = [p.copy() for p in params.values()]
    second = fastlr.FlatBuffer.pack(params)
    opts = {
        "dict": (cls(params, lr=rate), lambda g: g),
        "flat": (cls(flat, lr=rate), fastlr.FlatBuffer.pack),
        "list": (cls(listed, lr=rate), lambda g: list(g.values())),
        "groups": (
            cls([{"params": grouped[:3]}, {"params": grouped[3:]}], lr=rate),
            lambda g: [list(g.values())[:3], list(g.values())[3:]],
        ),
        "matched": (cls(second, lr=rate, groups=[{"match": "(6*"}]), fastlr.FlatBuffer.pack),
    }
    for t in range(3):
        grads = model(cls, np.float64, 100 * t + 100)
        for opt, shaped in opts.values():
            opt.step(shaped(grads))
    for k, (name, p) in enumerate(params.items()):
        for q in (flat[name], listed[k], grouped[k], second[name]):
            # BLAS may round otherwise where an array lies otherwise.
            np.testing.assert_allclose(q, p, rtol=0, atol=0 if cls is fastlr.Adafactor else 1e-5)


@both_rules
def test_groups_have_their_own_hyper_parameters(cls):
    params, twin = model(cls, np.float32), model(cls, np.float32)
    grouped = cls(params, groups=[{"match": "(6*", "lr": 0.1, "weight_decay": 0.5}], lr=0.02)
    alone = {
        name: cls(p, **({"lr": 0.1, "weight_decay": 0.5} if name.startswith("(6") else {"lr": 0.02}))
        for name, p in twin.items()
    }
    grads = model(cls, np.float32, 50)
    grouped.step(grads)
    for name, opt in alone.items():
        opt.step(grads[name])
        np.testing.assert_allclose(params[name], twin[name], rtol=0, atol=1e-6)


@both_rules
def test_gradients_that_are_none(cls):
    params = list(model(cls, np.float32).values())
    opt = cls(params, lr=0.1, weight_decay=0.1)
    alone = [cls(p.copy(), lr=0.1, weight_decay=0.1) for p in params]
    for t in range(4):
        grads = [numbers(p.shape, np.float32, 10 * t + k) if (t + k) % 3 else None for k, p in enumerate(params)]
        before = [p.copy() for p in params]
        opt.step(grads)
        for k, g in enumerate(grads):
            if g is None:
                np.testing.assert_array_equal(params[k], before[k])
            else:
                alone[k].step(g)
            np.testing.assert_allclose(params[k], alone[k]._structure.arrays[0], rtol=0, atol=1e-6)
    assert opt.step_count == 4
    assert opt.state_dict()["steps"][:3] == [2, 3, 3]
    opt.step([None] * len(params))
    assert opt.step_count == 5


def untouched(opt, before):
    for a, b in zip([*opt._structure.arrays, *states(opt).values()], before, strict=True):
        np.testing.assert_array_equal(a, b)


def snapshot(opt):
    return [a.copy() for a in (*opt._structure.arrays, *states(opt).values())]


@both_rules
def test_nonfinite_skips_or_raises_and_touches_nothing(cls):
    for policy in "skip", "raise":
        params = model(cls, np.float32)
        opt = cls(params, nonfinite=policy)
        opt.step(model(cls, np.float32, 50))
        before, grads = snapshot(opt), model(cls, np.float32, 60)
        grads["(33, 33)"][3, 4] = np.inf
        if policy == "raise":
            with pytest.raises(FloatingPointError, match="must be finite"):
                opt.step(grads, zero_grads=True)
            assert np.isinf(grads["(33, 33)"][3, 4])
        else:
            report = opt.step(grads, zero_grads=True)
            assert report.skipped
            assert not any(g.any() for g in grads.values())
        untouched(opt, before)
        assert opt.step_count == 1


@both_rules
def test_nan_stays_in_its_tensor(cls):
    params, clean = model(cls, np.float32), model(cls, np.float32)
    opt, other = cls(params), cls(clean)
    grads = model(cls, np.float32, 50)
    other.step(grads)
    grads["(64, 100)"][0, 0] = np.nan
    opt.step(grads)
    for name, p in params.items():
        if name == "(64, 100)":
            assert np.isnan(p).all()
        else:
            np.testing.assert_allclose(p, clean[name], rtol=0, atol=1e-6)


@both_rules
def test_clipping_is_scaling(cls):
    params, twin = model(cls, np.float64), model(cls, np.float64)
    opt, other = cls(params), cls(twin)
    for t in range(3):
        grads = model(cls, np.float64, 50 * t + 50)
        norm = math.sqrt(sum(float(np.sum(g * g)) for g in grads.values()))
        report = opt.step(grads, clip_norm=0.5, grad_scale=2.0)
        assert report.grad_norm == pytest.approx(2 * norm, rel=1e-12)
        other.step(grads, grad_scale=2.0 * 0.5 / (report.grad_norm + 1e-6))
    assert off(params.values(), twin.values()) < (1e-14 if cls is fastlr.Adafactor else 1e-5)


@both_rules
def test_maximize_is_negating(cls):
    params, twin = model(cls, np.float32), model(cls, np.float32)
    opt, other = cls(params, maximize=True), cls(twin)
    grads = model(cls, np.float32, 50)
    opt.step(grads)
    other.step({name: -g for name, g in grads.items()})
    assert off(params.values(), twin.values()) < (1e-30 if cls is fastlr.Adafactor else 1e-5)


@both_rules
@pytest.mark.parametrize("flat", [False, True])
def test_resumed_training_is_the_same(cls, flat, tmp_path):
    def made():
        x = model(cls, np.float32)
        return fastlr.FlatBuffer.pack(x) if flat else x

    def grads(t):
        x = model(cls, np.float32, 100 * t)
        return fastlr.FlatBuffer.pack(x) if flat else x

    straight = cls(made(), lr=0.1)
    for t in range(1, 5):
        straight.step(grads(t))
    first, second, third = cls(made(), lr=0.1), cls(made(), lr=0.1), cls(made(), lr=0.1)
    for t in range(1, 3):
        first.step(grads(t))
    first.save(tmp_path / "state.safetensors")
    second.load_state_dict(first.state_dict())
    third.load(tmp_path / "state.safetensors")
    for opt in second, third:
        for a, b in zip(opt._structure.arrays, first._structure.arrays, strict=True):
            a[...] = b
        for t in range(3, 5):
            opt.step(grads(t))
        for a, b in zip(snapshot(straight), snapshot(opt), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=0 if cls is fastlr.Adafactor else 1e-6)


def test_a_state_of_other_shapes_is_refused():
    saved = fastlr.Adafactor(np.zeros((4, 6))).state_dict()
    with pytest.raises(ValueError, match=r"state_dict\['state'\]\['r'\]\['0'\]: shape must be \(6, 1\), got \(4, 1\)"):
        fastlr.Adafactor(np.zeros((6, 4))).load_state_dict(saved)


@both_rules
def test_an_error_changes_nothing(cls):
    params = list(model(cls, np.float32).values())
    opt = cls(params, lr=0.1)
    good = [numbers(p.shape, np.float32, k) for k, p in enumerate(params)]
    opt.step(good)
    before = snapshot(opt)
    bad = {
        "shape": ([*good[:-1], good[-1].reshape(-1)[:0]], {}, ValueError),
        "dtype": ([*good[:-1], good[-1].astype(float)], {}, TypeError),
        "overlap": ([*good[:-1], params[-1]], {}, ValueError),
        "count": (good[:-1], {}, ValueError),
        "scale": (good, {"grad_scale": 1e300}, ValueError),
    }
    for grads, step, error in bad.values():
        with pytest.raises(error):
            opt.step(grads, **step)
        untouched(opt, before)
    opt.groups[0].lr = 1e300
    if cls is fastlr.Adafactor:
        opt.groups[0].relative_step = False
    with pytest.raises(ValueError, match="must stay finite in float32"):
        opt.step(good)
    untouched(opt, before)
    assert opt.step_count == 1


def test_muon_that_fails_halfway_changes_nothing(monkeypatch):
    params = model(fastlr.Muon, np.float32)
    opt = fastlr.Muon(params)
    opt.step(model(fastlr.Muon, np.float32, 50))
    before, grads, calls = snapshot(opt), model(fastlr.Muon, np.float32, 60), []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise MemoryError
        return orthogonal(*arguments)

    monkeypatch.setattr("fastlr.rules.muon.orthogonal", failing)
    with pytest.raises(MemoryError):
        opt.step(grads, zero_grads=True)
    untouched(opt, before)
    assert opt.step_count == 1
    assert all(g.any() for g in grads.values())


def test_muon_refuses_what_is_no_matrix():
    for params, name in (
        ([np.zeros((2, 2)), np.zeros(3)], r"params\[1\]"),
        ({"w": np.zeros((2, 2)), "b": np.zeros(3)}, r"params\['b'\]"),
        (fastlr.FlatBuffer({"w": (2, 2), "b": (3,)}), r"params\['b'\]"),
        (np.zeros((2, 2, 2)), "params"),
    ):
        with pytest.raises(ValueError, match=rf"{name} must have 2 dimensions for Muon, got shape .*AdamW"):
            fastlr.Muon(params)
    with pytest.raises(ValueError, match="params must have 2 dimensions"):
        fastlr.functional.muon(np.zeros(3), np.zeros(3), np.zeros(3), step=1)


def test_empty_tensors():
    for cls in fastlr.Adafactor, fastlr.Muon:
        params = [np.zeros((0, 3)), np.ones((2, 2)), np.zeros((4, 0))]
        opt = cls(params)
        opt.step([p + 1 for p in params])
        assert (params[1] < 1).all()
        flat = fastlr.FlatBuffer.pack({"a": params[0], "b": np.ones((2, 2)), "c": params[2]})
        cls(flat).step(np.ones(4))
        np.testing.assert_allclose(flat["b"], params[1], rtol=1e-6)
    fastlr.functional.muon(params[0], params[0].copy(), params[0].copy(), step=1)
    fastlr.functional.adafactor(params[0], params[0].copy(), step=1)


@both_types
def test_adafactor_with_extreme_gradients_stays_finite(dtype):
    """Squares that overflow, gradients of zero, parameters of zero: no NaN, no infinity, steps as usual."""
    top = float(np.finfo(dtype).max)
    for shape, size in itertools.product([(6, 5), (30,)], [top, math.sqrt(top) * 2, 0.0, 1 / top, 5e-324]):
        for form in "torch", "fairseq":
            p = np.zeros(shape, dtype)
            opt = fastlr.Adafactor(p, lr=0.5, form=form)
            for t in range(3):
                opt.step(np.full(shape, size, dtype) * dtype((-1) ** t))
                assert np.isfinite(p).all()
                assert all(np.isfinite(a).all() for a in states(opt).values())
            assert (abs(p) <= 3 * 0.5e-3).all()


def test_muon_with_extreme_gradients_stays_finite():
    for dtype, size in itertools.product([np.float32, np.float64], [1e38, 1e-38, 0.0]):
        p = np.zeros((6, 5), dtype)
        fastlr.Muon(p, lr=0.5).step(numbers((6, 5), dtype, 0) * dtype(size / 10))
        assert np.isfinite(p).all()
        assert (abs(p).max() > 0.1) == (size > 1)  # ε stands above 1e-38
    p = np.zeros((6, 5))
    fastlr.Muon(p, lr=0.5, precision="float64").step(numbers((6, 5), np.float64, 0) * 1e300)
    assert np.isfinite(p).all()
    assert p.any()


BAD = [
    (fastlr.Adafactor, {"beta2_decay": 0.1}, ValueError, "beta2_decay must be finite and <= 0, got 0.1"),
    (fastlr.Adafactor, {"d": 0.5}, ValueError, "d must be finite and >= 1, got 0.5"),
    (fastlr.Adafactor, {"eps": 1e-3}, TypeError, "eps must be a pair of a number > 0 or None and a number >= 0"),
    (fastlr.Adafactor, {"eps": (0.0, 1e-3)}, ValueError, "eps[0] must be finite and > 0, got 0.0"),
    (fastlr.Adafactor, {"eps": (None, -1.0)}, ValueError, "eps[1] must be finite and >= 0, got -1.0"),
    (fastlr.Adafactor, {"form": "paper"}, ValueError, "form must be one of 'torch', 'fairseq', got 'paper'"),
    (fastlr.Adafactor, {"relative_step": 1}, TypeError, "relative_step must be True or False, got 1"),
    (fastlr.Adafactor, {"scale_parameter": None}, TypeError, "scale_parameter must be True or False, got None"),
    (fastlr.Adafactor, {"lr": -1.0}, ValueError, "lr must be finite and >= 0, got -1.0"),
    (fastlr.Muon, {"momentum": 1.0}, ValueError, "momentum must be in [0, 1), got 1.0"),
    (fastlr.Muon, {"ns_steps": 100}, ValueError, "ns_steps must be in [1, 99], got 100"),
    (fastlr.Muon, {"ns_steps": 5.0}, TypeError, "ns_steps must be an integer, got 5.0"),
    (fastlr.Muon, {"ns_coefficients": (1, 2)}, TypeError, "ns_coefficients must be three numbers, got (1, 2)"),
    (fastlr.Muon, {"ns_coefficients": (1, 2, "3")}, TypeError, "ns_coefficients[2] must be a real number, got '3'"),
    (fastlr.Muon, {"adjust_lr_fn": "other"}, ValueError, "adjust_lr_fn must be one of 'original', 'match_rms_adamw'"),
    (fastlr.Muon, {"precision": "float16"}, ValueError, "precision must be one of 'float32', 'float64', 'bfloat16'"),
    (fastlr.Muon, {"eps": 0.0}, ValueError, "eps must be finite and > 0, got 0.0"),
]


@pytest.mark.parametrize(("cls", "kwargs", "error", "message"), BAD, ids=str)
def test_bad_hyper_parameters_are_refused(cls, kwargs, error, message):
    with pytest.raises(error) as caught:
        cls(np.zeros((3, 3)), **kwargs)
    assert message in str(caught.value)


# ---- bfloat16 -------------------------------------------------------------------------------------------------------


def test_bfloat16_rounds_to_nearest_even():
    x = np.float32([1, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-8, 0, -0.0, np.inf, -np.inf, 3.4e38])
    found = bfloat16(x)
    np.testing.assert_array_equal(found, [1, 1, 1 + 2**-6, 1 + 2**-7, -1, 0, 0, np.inf, -np.inf, np.inf])
    assert np.isnan(bfloat16(np.uint32([0x7FFFFFFF, 0xFF800001, 0x7FC00000]).view(np.float32))).all()


# ---- torch ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def both(torch, cls, dtype, theirs, **kwargs):
    """(ours, torch's) parameters and states after 20 steps with a changing rate."""
    params = [p for p in model(cls, dtype).values() if p.size < 10_000]
    others = [torch.nn.Parameter(torch.from_numpy(p.copy())) for p in params]
    own = {"precision": "bfloat16"} if cls is fastlr.Muon else {}
    opt = cls(params, lr=rate, **kwargs, **own)
    other = theirs(others, **{k: x for k, x in kwargs.items() if k != "maximize" or cls is not fastlr.Muon})
    for t in range(STEPS):
        grads = [numbers(p.shape, dtype, 100 * t + k, 2.0) for k, p in enumerate(params)]
        opt.step(grads)
        other.param_groups[0]["lr"] = rate(t)
        for x, g in zip(others, grads, strict=True):
            x.grad = torch.from_numpy(g)
        other.step()
    return opt, params, [x.detach().numpy() for x in others], [other.state[x] for x in others]


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("kwargs", [{}, {"weight_decay": 0.1}, {"d": 2.0, "beta2_decay": -0.5, "eps": (1e-3, 1e-2)}])
def test_adafactor_is_torchs_in_float64(torch, kwargs, maximize):
    both_of = both(torch, fastlr.Adafactor, np.float64, torch.optim.Adafactor, maximize=maximize, **kwargs)
    opt, params, others, found = both_of
    assert off(params, others) < 1e-12
    for key, name in (("r", "row_var"), ("c", "col_var"), ("v", "variance")):
        for ours, theirs in zip(opt.state[key], found, strict=True):
            assert (ours.size > 0) == (name in theirs)
            if name in theirs:
                assert ours.shape == theirs[name].shape
                assert off([ours], [theirs[name].numpy()]) < 1e-12


def test_adafactor_is_torchs_in_float32(torch):
    """Within 1e-5, of which we have 2e-6: torch's norms are sums of float32."""
    _, params, others, _ = both(torch, fastlr.Adafactor, np.float32, torch.optim.Adafactor)
    assert off(params, others) < 1e-5


def test_muon_in_bfloat16_is_torchs(torch):
    """The same roundings; what differs is the order of the sums before them, which flips some to the neighbour.

    So each step of the iteration begins where torch has come to. Over all of them a flip grows, by how much depends on
    where it is, and so on the kernel that the machine has for sums.
    """
    rng = np.random.default_rng(0)
    iteration = pytest.importorskip("torch.optim._muon")._zeropower_via_newtonschulz
    a1, a2, a3 = coefficients = (3.4445, -4.775, 2.0315)
    for shape in MATRICES:
        u = rng.standard_normal(shape).astype(np.float32)
        expected = iteration(torch.from_numpy(u.copy()), coefficients, 5, 1e-7).float().numpy()
        x = iteration(torch.from_numpy(u.copy()), coefficients, 0, 1e-7)
        start = orthogonal(u, coefficients, 0, 1e-7, "bfloat16")
        assert abs(start - x.float().numpy()).max() <= 2**-6 * abs(start).max()  # the norm is rounded, too
        x = x.T if shape[0] > shape[1] else x
        for _ in range(5):
            before = np.ascontiguousarray(x.float().numpy())
            gram = x @ x.T
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=a2, alpha=a3), x, beta=a1)
            after = x.float().numpy()
            found = nearer(before, tuple(map(np.float32, coefficients)), bfloat16)
            np.testing.assert_array_equal(found, bfloat16(np.ascontiguousarray(found)))
            # Flips of a rounding, 2⁻⁹ of a number, are few, and a step makes them 2⁻⁷ of the largest at most.
            assert abs(found - after).max() <= 2**-7 * abs(after).max()
            assert abs(found - after).mean() <= 2**-10 * abs(after).mean()
        # These were torch's own steps.
        np.testing.assert_array_equal(after.T if shape[0] > shape[1] else after, expected)
        found = orthogonal(u, coefficients, 5, 1e-7, "bfloat16")
        np.testing.assert_array_equal(found, bfloat16(np.ascontiguousarray(found)))
        assert abs(found - expected).mean() <= 2**-8 * abs(expected).mean()
        # The iteration in float32 is another: the emulation is what brings them together.
        if min(shape) > 1:
            other = orthogonal(u, coefficients, 5, 1e-7)
            assert abs(other - expected).mean() > 2 * abs(found - expected).mean()


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"weight_decay": 0.0, "momentum": 0.5}, {"nesterov": False, "adjust_lr_fn": "match_rms_adamw"}],
    ids=str,
)
def test_muon_trains_as_torchs(torch, kwargs):
    opt, params, others, found = both(torch, fastlr.Muon, np.float32, torch.optim.Muon, **kwargs)
    start = [p for p in model(fastlr.Muon, np.float32).values() if p.size < 10_000]
    path = max(float(abs(p - q).max()) for p, q in zip(start, others, strict=True))
    assert off(params, others) < 2**-7 * path
    for ours, theirs in zip(opt.state["b"], found, strict=True):
        assert off([ours], [theirs["momentum_buffer"].numpy()]) < 1e-5
