"""What is given beside the gradient, and the estimator of it. The rules themselves: test_rules.py."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import fastlr
from tests.cases import nonzero

BOTH = [fastlr.AdaHessian, fastlr.Sophia]
both = pytest.mark.parametrize("optimizer", BOTH)


# ---- steps ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [lambda x: x, lambda x: [x, x + 1], lambda x: {"a": x, "b": x + 1}])
@both
def test_the_diagonal_has_the_structure_of_the_parameters(optimizer, shape):
    p, g, d = shape(nonzero(9, np.float64, 0)), shape(nonzero(9, np.float64, 1)), shape(nonzero(9, np.float64, 2))
    opt = optimizer(p)
    assert opt.step(g, hessian=d).step == 1
    assert opt.state_dict()["steps"] == [1] * len(opt._structure.arrays)


@both
def test_in_a_flat_buffer_and_groups(optimizer):
    flat = fastlr.FlatBuffer.pack({"a": nonzero(5, np.float32, 0), "b": nonzero(7, np.float32, 1)})
    g, d = fastlr.FlatBuffer.pack({"a": nonzero(5, np.float32, 2), "b": nonzero(7, np.float32, 3)}), flat.like()
    d.data[:] = np.arange(1, 13)
    whole = flat.data.copy()
    optimizer(flat, groups=[{"match": "b", "lr_scale": 1.0}]).step(g, hessian=d)
    optimizer(whole).step(g.data.copy(), hessian=d.data.copy())
    np.testing.assert_array_equal(flat.data, whole)


def test_adahessian_needs_one_at_every_step():
    p = nonzero(9, np.float64, 0)
    opt, before = fastlr.AdaHessian(p), p.copy()
    with pytest.raises(TypeError, match="hessian must be given at every step"):
        opt.step(p.copy())
    with pytest.raises(TypeError, match="hessian must be given at every step"):
        fastlr.functional.adahessian(p, p.copy(), np.zeros(9), np.zeros(9), step=1)
    np.testing.assert_array_equal(p, before)
    assert opt.step_count == 0


def test_rules_without_one_refuse_it():
    with pytest.raises(TypeError, match="hessian must be None for the rule 'adam'"):
        fastlr.functional.adam(np.zeros(3), np.ones(3), np.zeros(3), np.zeros(3), step=1, hessian=np.ones(3))
    with pytest.raises(TypeError, match="unexpected keyword argument 'hessian'"):
        fastlr.Adam(np.zeros(3)).step(np.ones(3), hessian=np.ones(3))


WRONG = {
    "shape": (np.ones(4), ValueError, r"hessian: expected shape \(3,\)"),
    "dtype": (np.ones(3, np.int64), TypeError, "hessian: expected float64"),
    "strided": (np.ones(6)[::2], BufferError, "hessian must be C-contiguous"),
    "structure": ([np.ones(3)], TypeError, "hessian must be an array"),
}


@pytest.mark.parametrize("name", WRONG)
@both
def test_a_wrong_diagonal_is_refused_and_nothing_written(optimizer, name):
    given, error, message = WRONG[name]
    p = np.ones(3)
    opt = optimizer(p)
    with pytest.raises(error, match=message):
        opt.step(np.ones(3), hessian=given)
    np.testing.assert_array_equal(p, 1)
    assert not opt.state["m"].any()


@both
def test_one_that_is_missing_where_there_is_a_gradient(optimizer):
    p = [np.ones(3), np.ones(3)]
    opt = optimizer(p)
    with pytest.raises(TypeError, match=r"hessian\[1\] must be an array where there is a gradient, got None"):
        opt.step([np.ones(3), np.ones(3)], hessian=[np.ones(3), None])
    opt.step([np.ones(3), None], hessian=[np.ones(3), None])
    opt.step([np.ones(3), None], hessian=[np.ones(3), np.ones(3)])
    assert (p[1] == 1).all()


@both
def test_one_that_shares_memory_is_refused(optimizer):
    p, g = np.ones(3), np.ones(3)
    with pytest.raises(ValueError, match="hessian and params must not overlap"):
        optimizer(p).step(g, hessian=p)
    with pytest.raises(ValueError, match="must not overlap"):
        optimizer(p).step(g, hessian=g, zero_grads=True)
    optimizer(p).step(g, hessian=g)  # both only read


@both
def test_scale_and_clipping_leave_it_alone(optimizer):
    p, q, g, d = (nonzero(50, np.float64, k) for k in (0, 0, 1, 2))
    optimizer(p).step(g, hessian=d, grad_scale=0.25)
    optimizer(q).step(0.25 * g, hessian=d)
    np.testing.assert_array_equal(p, q)
    kept = d.copy()
    optimizer(p, maximize=True).step(g, hessian=d, clip_norm=0.1, zero_grads=True)
    np.testing.assert_array_equal(d, kept)
    assert not g.any()


def test_sophia_keeps_its_mean_without_one():
    p, g = nonzero(50, np.float64, 0), nonzero(50, np.float64, 1)
    opt = fastlr.Sophia(p)
    opt.step(g, hessian=abs(g))
    kept = opt.state["h"].copy()
    opt.step(g)
    np.testing.assert_array_equal(opt.state["h"], kept)


def test_a_bad_curvature_is_newtons_step():
    """10^6 between the curvatures of a quadratic: no rate of gradient descent would do for both."""
    h = np.array([1e-3, 1.0, 1e3])
    p = np.array([1.0, -2.0, 3.0])
    opt = fastlr.AdaHessian(p, lr=0.3, eps=1e-12)
    for t in range(150):
        opt.step(h * p, hessian=fastlr.hutchinson(lambda p, z, step: h * z, p, step=t))
    assert abs(p).max() < 1e-3


# ---- the estimator --------------------------------------------------------------------------------------------------


def product(h):
    return lambda p, z, step: h @ z


def test_one_sample_is_exact_where_the_hessian_is_diagonal():
    d = nonzero(200, np.float64, 0)
    np.testing.assert_array_equal(fastlr.hutchinson(lambda p, z, step: d * z, np.zeros(200)), d)


def test_the_mean_of_samples_comes_near_the_diagonal():
    """The variance of an element is the sum of the squares of its row but for itself: five deviations of the mean."""
    rng = np.random.default_rng(0)
    h = rng.standard_normal((30, 30))
    h += h.T
    deviation = np.sqrt((h**2).sum(1) - np.diag(h) ** 2)
    for samples in (1, 100, 2000):
        found = fastlr.hutchinson(product(h), np.zeros(30), samples=samples)
        assert (abs(found - np.diag(h)) < 5 * deviation / np.sqrt(samples)).all()
    assert abs(found - np.diag(h)).max() < 0.5 * abs(fastlr.hutchinson(product(h), np.zeros(30)) - np.diag(h)).max()


def test_signs_are_signs_and_depend_on_seed_and_step_alone():
    seen = []

    def hvp(p, z, step):
        seen.append(z.copy())
        return z

    for seed, step in ((0, 0), (0, 0), (0, 1), (1, 0), (1, 1)):
        fastlr.hutchinson(hvp, np.zeros(1000), seed=seed, step=step)
    np.testing.assert_array_equal(seen[0], seen[1])
    for k in range(1, 5):
        assert set(seen[k]) == {1.0, -1.0}
        assert abs(seen[k].sum()) < 200
        for j in range(1, k):
            assert abs(seen[j] @ seen[k]) < 200
    fastlr.hutchinson(hvp, np.zeros(1000), samples=2)
    np.testing.assert_array_equal(seen[5], seen[0])
    assert abs(seen[5] @ seen[6]) < 200


def test_signs_are_the_same_everywhere():
    """Of the generator's bits, which NumPy promises to keep."""
    seen = []
    fastlr.hutchinson(lambda p, z, step: seen.append(z.copy()) or z, np.zeros(12), seed=3, step=4)
    np.testing.assert_array_equal(seen[0], SIGNS)


SIGNS = [-1, 1, -1, 1, 1, -1, 1, -1, -1, 1, 1, 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "make", [lambda x: [x, x[:3]], lambda x: {"a": x, "b": x[:3]}, None], ids=["list", "dict", "flat"]
)
def test_structures(make, dtype):
    x = nonzero(100, dtype, 0).reshape(4, 25)
    model = fastlr.FlatBuffer.pack({"a": x, "b": x[:3]}) if make is None else make(x.copy())
    seen = []

    def hvp(params, z, step):
        assert params is model
        assert step == 7
        seen.append(z)
        return z

    found = fastlr.hutchinson(hvp, model, step=7, samples=3)
    assert type(found) is type(model)
    for part in found if isinstance(found, list) else (found["a"], found["b"]):
        assert part.dtype == dtype
        assert (part == 1).all()
    first = seen[0][0] if isinstance(model, list) else seen[0]["a"]
    assert first.shape == (4, 25)


BAD = {
    "samples": ({"samples": 0}, ValueError, "samples must be an integer >= 1, got 0"),
    "step": ({"step": 1.5}, ValueError, "step must be an integer >= 0, got 1.5"),
    "seed": ({"seed": -1}, ValueError, "seed must be an integer >= 0, got -1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_of_the_estimator(name):
    kwargs, error, message = BAD[name]
    with pytest.raises(error, match=message):
        fastlr.hutchinson(lambda p, z, step: z, np.zeros(3), **kwargs)


def test_a_product_of_another_shape_or_type_is_refused():
    with pytest.raises(TypeError, match="hvp must be callable"):
        fastlr.hutchinson(np.eye(3), np.zeros(3))
    with pytest.raises(ValueError, match=r"hvp: expected float64 of shape \(3,\) like the parameter"):
        fastlr.hutchinson(lambda p, z, step: z[:2], np.zeros(3))
    with pytest.raises(ValueError, match="hvp: expected float32"):
        fastlr.hutchinson(lambda p, z, step: z.astype(np.float64), np.zeros(3, np.float32))


def test_spatial_average():
    x = nonzero(2 * 3 * 4 * 5, np.float32, 0).reshape(2, 3, 4, 5)
    found = fastlr.spatial_average({"kernel": x, "matrix": x[0, 0], "bias": x[0, 0, 0]})
    expected = np.broadcast_to(abs(x).mean((2, 3), keepdims=True), x.shape)
    np.testing.assert_array_equal(found["kernel"], expected)
    assert found["kernel"].flags.c_contiguous
    np.testing.assert_array_equal(found["matrix"], abs(x[0, 0]))
    np.testing.assert_array_equal(found["bias"], abs(x[0, 0, 0]))
    text = fastlr.spatial_average([x, x[0, 0]], {2: (1,), 4: (2, 3)})
    np.testing.assert_array_equal(text[1], np.broadcast_to(abs(x[0, 0]).mean(1, keepdims=True), (4, 5)))
    flat = fastlr.spatial_average(fastlr.FlatBuffer.pack({"kernel": x, "bias": x[0, 0, 0]}))
    np.testing.assert_array_equal(flat["kernel"], expected)
    assert isinstance(flat, fastlr.FlatBuffer)


# ---- torch ----------------------------------------------------------------------------------------------------------


def test_torch_products():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    x = [torch.randn(6, requires_grad=True), torch.randn(2, 3, requires_grad=True), torch.randn(2, requires_grad=True)]

    def loss(a, b, c):
        return (a**4).sum() + (a[:3] * b.sum(0)).sum() ** 2 + c.sum()

    grads = torch.autograd.grad(loss(*x), x, create_graph=True)
    hvp = fastlr.torch_hvp(grads, x)
    v = [nonzero(t.numel(), np.float32, k).reshape(tuple(t.shape)) for k, t in enumerate(x)]
    _, expected = torch.autograd.functional.hvp(loss, tuple(x), tuple(map(torch.from_numpy, v)))
    for found, there in zip(hvp(x, v, 0), expected, strict=True):
        np.testing.assert_allclose(found, there.numpy(), rtol=1e-5)
    diagonal = fastlr.hutchinson(hvp, x, samples=400)
    hessian = torch.autograd.functional.hessian(lambda a: loss(a, x[1], x[2]), x[0]).numpy()
    np.testing.assert_allclose(diagonal[0], np.diag(hessian), atol=0.25 * abs(hessian).max())
    assert not diagonal[2].any()
    opt = fastlr.Sophia(x, lr=0.1)
    before = [t.detach().clone() for t in x]
    opt.step([g.detach().contiguous() for g in grads], hessian=diagonal)
    assert all((t.detach() != b).all() for t, b in zip(x, before, strict=True))


def test_torch_gradients_without_a_graph_are_refused():
    torch = pytest.importorskip("torch")
    x = torch.ones(3, requires_grad=True)
    grads = torch.autograd.grad((x**2).sum(), [x])
    with pytest.raises(ValueError, match="create_graph=True"):
        fastlr.torch_hvp(grads, [x])
    with pytest.raises(ValueError, match="one for each of 2 tensors, got 1"):
        fastlr.torch_hvp(grads, [x, x])


def test_torch_is_not_needed():
    code = "import sys; sys.modules['torch'] = None; import fastlr; fastlr.torch_hvp([], [])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "fastlr.torch_hvp needs torch: pip install 'fastlr-kernels[peers]'" in done.stderr
