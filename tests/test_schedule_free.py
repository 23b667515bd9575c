"""Schedule-Free's average: computed beside the parameters, which stay as they are."""

from __future__ import annotations

import numpy as np
import pytest

import fastlr
from tests.cases import hard_params, nonzero

CLASSES = [
    (fastlr.ScheduleFreeSGD, {"lr": 0.1, "momentum": 0.7}),
    (fastlr.ScheduleFreeAdamW, {"lr": 0.1, "betas": (0.7, 0.9)}),
]
both = pytest.mark.parametrize(("cls", "kwargs"), CLASSES)
both_types = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@both
def test_x_is_the_weighted_mean_of_z(cls, kwargs):
    """With a constant rate and r = 0 every z counts the same; z is where each step left it."""
    p = nonzero(50, np.float64, 0)
    opt = cls(p, **kwargs)
    zs = []
    for k in range(9):
        opt.step(nonzero(50, np.float64, k + 1))
        zs.append(opt.state["z"].copy())
        # The first weighs c = 1: what came before it is forgotten.
        np.testing.assert_allclose(opt.eval_params(), np.mean(zs, axis=0), rtol=1e-13, atol=1e-14)


@both
@both_types
def test_parameters_and_state_stay_as_they_are(cls, kwargs, dtype):
    p, q = hard_params(dtype), hard_params(dtype)
    seen, unseen = cls(p, **kwargs), cls(q, **kwargs)
    for k in range(4):
        g = nonzero(p.size, dtype, k)
        seen.step(g)
        unseen.step(g)
        before = p.copy()
        x = seen.eval_params()
        assert x.dtype == dtype
        assert x.shape == p.shape
        assert not np.shares_memory(x, p)
        np.testing.assert_array_equal(p, before)
        np.testing.assert_array_equal(p, q)
        for key in seen.states:
            np.testing.assert_array_equal(seen.state[key], unseen.state[key])
    assert seen.step_count == 4


@both
@both_types
def test_x_is_within_its_roundings(cls, kwargs, dtype):
    p = nonzero(100, dtype, 0)
    opt, beta = cls(p, **kwargs), 0.7
    for k in range(3):
        opt.step(nonzero(100, dtype, k + 1))
    y, z = p.astype(np.longdouble), opt.state["z"].astype(np.longdouble)
    x = (y - (1 - np.longdouble(beta)) * z) / beta
    # Narrowing 1 - β, its product, the difference, narrowing β, the quotient; 1 - β in double for float64.
    u = np.finfo(dtype).eps / 2
    bound = u * (4 * (1 - beta) * abs(z) + 3 * abs(y - (1 - beta) * z)) / beta
    assert (abs(opt.eval_params() - x) <= bound).all()


@both
def test_out_in_every_structure(cls, kwargs):
    flat = fastlr.FlatBuffer.pack({"w": nonzero(6, np.float32, 0).reshape(2, 3), "b": nonzero(2, np.float32, 1)})
    named = {"w": flat["w"].copy(), "b": flat["b"].copy()}
    listed = [flat["w"].copy(), flat["b"].copy()]
    g = nonzero(8, np.float32, 2)
    grads = [g[:6].reshape(2, 3).copy(), g[6:].copy()]
    results = []
    for params, gradients, out in (
        (flat, fastlr.FlatBuffer.pack(dict(zip("wb", grads, strict=True))), flat.like()),
        (named, dict(zip("wb", grads, strict=True)), {"w": np.empty((2, 3), np.float32), "b": np.empty(2, np.float32)}),
        (listed, grads, [np.empty((2, 3), np.float32), np.empty(2, np.float32)]),
    ):
        opt = cls(params, **kwargs)
        opt.step(gradients)
        opt.step(gradients)
        assert opt.eval_params(out) is out
        w, b = out if isinstance(out, list) else (out["w"], out["b"])
        results.append(np.concatenate([np.ravel(w), b]))
        fresh = opt.eval_params()
        assert type(fresh) is type(out) or isinstance(params, fastlr.FlatBuffer)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@both
def test_each_group_has_its_own_beta_and_each_array_its_own_start(cls, kwargs):
    p, q = nonzero(5, np.float64, 0), nonzero(5, np.float64, 1)
    name = "momentum" if "momentum" in kwargs else "betas"
    other = 0.4 if name == "momentum" else (0.4, 0.9)
    opt = cls([{"params": p}, {"params": q, name: other}], **kwargs)
    x = opt.eval_params()
    np.testing.assert_array_equal(x[0], p)
    np.testing.assert_array_equal(x[1], q)
    g = nonzero(5, np.float64, 2)
    for _ in range(3):
        opt.step([None, g])
    x = opt.eval_params()
    np.testing.assert_array_equal(x[0], p)
    np.testing.assert_allclose(x[1], (q - 0.6 * opt.state["z"][1]) / 0.4, rtol=1e-14)


@both
def test_out_that_is_not_apart_or_does_not_fit_is_refused(cls, kwargs):
    p = np.ones(4, np.float32)
    opt = cls(p, **kwargs)
    opt.step(np.ones(4, np.float32))
    before = p.copy()
    for out, error in ((p, ValueError), (np.ones(4), TypeError), (np.ones(3, np.float32), ValueError)):
        with pytest.raises(error):
            opt.eval_params(out)
        np.testing.assert_array_equal(p, before)


def test_exact_zeros_of_ftrl():
    """Not small numbers: zeros, and positive ones."""
    rng = np.random.default_rng(0)
    p = np.zeros(200, np.float32)
    opt = fastlr.FTRL(p, lr=0.1, l1=5.0)
    for _ in range(30):
        opt.step(rng.standard_normal(200).astype(np.float32))
    inside = abs(opt.state["z"]) <= 5
    assert 20 < inside.sum() < 180
    np.testing.assert_array_equal(p == 0, inside)
    assert not np.signbit(p[inside]).any()
