"""fastlr.torch's averages of parameters, and its rules that take a diagonal of the Hessian."""

import copy

import numpy as np
import pytest

import fastlr

torch = pytest.importorskip("torch")

import fastlr.torch as ours  # noqa: E402
from tests.test_torch import all_params, assert_same_bits, bits, parameters, set_grads  # noqa: E402

# ---- averages -------------------------------------------------------------------------------------------------------

AVERAGING = {
    "ScheduleFreeAdamW": ({"lr": 0.1}, lambda plain: plain.eval_params()),
    "ScheduleFreeSGD": ({"lr": 0.5}, lambda plain: plain.eval_params()),
    "DoG": ({"averaging": 8}, lambda plain: plain.eval_params()),
    "LDoG": ({"averaging": 8}, lambda plain: plain.eval_params()),
    "ASGD": ({"lr": 0.1, "t0": 1}, lambda plain: plain.state["x"]),
    "AdamW": ({"lr": 0.1, "ema": 0.9}, lambda plain: plain.ema),
}
every = pytest.mark.parametrize("name", AVERAGING)


def walk(opt, steps, start=0):
    for t in range(start, start + steps):
        set_grads(all_params(opt), t)
        opt.step()


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_bits_as_numpy(name, dtype):
    options, average = AVERAGING[name]
    if name in ("AdamW", "ASGD") and dtype is torch.float64:
        pytest.skip("which has no ema; torch's ASGD keeps its rate in float32")
    params = parameters((40,), (6, 7), dtype=dtype)
    arrays = [p.detach().numpy().copy() for p in params]
    opt, plain = getattr(ours, name)(params, **options), getattr(fastlr, name)(arrays, **options)
    for t in range(4):
        set_grads(params, t)
        opt.step()
        plain.step([p.grad.numpy() for p in params])
    before = bits(opt)
    found = opt.eval_params()
    assert_same_bits(bits(opt), before)
    for x, p, expected in zip(found, params, average(plain), strict=True):
        assert np.array_equal(x.numpy(), expected)
        assert not np.array_equal(x.numpy(), p.detach().numpy())
        assert not x.requires_grad
        x.zero_()
    assert_same_bits(bits(opt), before)


@every
def test_before_the_first_step_it_is_the_parameter(name):
    opt = getattr(ours, name)(parameters((5,), (3, 2)), **AVERAGING[name][0])
    p, q = all_params(opt)
    p.grad = torch.ones(5)
    for _ in range(4):
        opt.step()
    x, y = opt.eval_params()
    assert not torch.equal(x, p)
    assert torch.equal(y, q)
    y.zero_()
    assert q.any()


@every
def test_of_a_module(name):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3, bias=False))
    opt = getattr(ours, name)(model.parameters(), **AVERAGING[name][0])
    x = torch.randn(8, 3)
    for _ in range(4):
        opt.zero_grad()
        (model(x) - x).square().mean().backward()
        opt.step()
    found = opt.eval_params(model)
    assert found.keys() == dict(model.named_parameters()).keys()
    other = copy.deepcopy(model)
    other.load_state_dict(found)
    y = model(x)
    assert torch.equal(torch.func.functional_call(model, found, x), other(x))
    assert torch.equal(model(x), y)
    assert not torch.equal(other(x), y)


def test_of_a_flattened_module():
    models = [torch.nn.Linear(3, 2) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    opts = ours.AdamW(models[0].parameters(), ema=0.5), ours.AdamW(ours.flatten(models[1]), ema=0.5)
    for model, opt in zip(models, opts, strict=True):
        model(torch.ones(1, 3)).sum().backward()
        opt.step()
    a, b = (opt.eval_params(model) for opt, model in zip(opts, models, strict=True))
    assert a.keys() == b.keys() == {"weight", "bias"}
    for key in a:
        assert torch.equal(a[key], b[key])


def test_of_other_layouts_and_fewer_bits():
    (p,), (q,) = parameters((4, 3, 2, 2)), parameters((4, 3, 2, 2))
    q.data = q.data.contiguous(memory_format=torch.channels_last)
    a, b = ours.ScheduleFreeSGD([p]), ours.ScheduleFreeSGD([q])
    for opt in (a, b):
        walk(opt, 3)
    (x,), (y,) = a.eval_params(), b.eval_params()
    assert torch.equal(x, y)
    assert y.stride() == q.stride()
    half = torch.nn.Parameter(torch.randn(20).to(torch.bfloat16))
    opt = ours.SGD([half], lr=0.1, ema=0.5)
    walk(opt, 3)
    (x,) = opt.eval_params()
    assert x.dtype is torch.bfloat16
    assert torch.equal(x, opt.state[half]["ema"].to(torch.bfloat16))


@pytest.mark.parametrize(("name", "message"), [("AdamW", "eval_params needs an average"), ("DoG", "averaging must be")])
def test_without_an_average(name, message):
    opt = getattr(ours, name)(parameters((3,)))
    walk(opt, 1)
    with pytest.raises(ValueError, match=message):
        opt.eval_params()


# ---- diagonals ------------------------------------------------------------------------------------------------------


def model_and_data():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1))
    x = torch.randn(32, 5)
    return model, x, x.sum(1, keepdim=True).sin()


def loss_of(model, x, y):
    return (model(x) - y).square().mean()


@pytest.mark.parametrize("name", ["AdaHessian", "Sophia"])
def test_informed_rules(name):
    """The bits of fastlr's class and of its hutchinson, and gradients those of backward."""
    model, x, y = model_and_data()
    params = list(model.parameters())
    arrays = [p.detach().numpy().copy() for p in params]
    opt, plain = getattr(ours, name)(params, lr=0.01), getattr(fastlr, name)(arrays, lr=0.01)
    losses = []
    for t in range(6):
        opt.zero_grad()
        loss_of(model, x, y).backward()
        expected = [p.grad.clone() for p in params]
        opt.zero_grad()
        grads = torch.autograd.grad(loss_of(model, x, y), params, create_graph=True)
        wanted = fastlr.hutchinson(fastlr.torch_hvp(grads, params), params, step=t, samples=2)
        loss = loss_of(model, x, y)
        losses.append(loss.item())
        diagonal = ours.hutchinson(loss, params, step=t, samples=2)
        for p, g, d, w in zip(params, expected, diagonal, wanted, strict=True):
            torch.testing.assert_close(p.grad, g)
            assert np.array_equal(d.numpy(), w)
        given = diagonal if name == "AdaHessian" or t % 2 == 0 else None
        plain.step([p.grad.numpy() for p in params], hessian=None if given is None else [d.numpy() for d in given])
        opt.step(hessian=given)
        for p, a in zip(params, arrays, strict=True):
            assert np.array_equal(p.detach().numpy(), a), t
    assert losses[-1] < losses[0]
    saved = copy.deepcopy(opt)
    for other in (opt, saved):
        for p in all_params(other):
            p.grad = torch.ones_like(p)
        other.step(hessian=diagonal)
    assert_same_bits(bits(opt), bits(saved))


def test_gradients_are_added_and_may_be_missing():
    p, q = parameters((3,), (2,))
    p.grad = torch.ones(3)
    diagonal = ours.hutchinson((p**2).sum(), [p, q])
    torch.testing.assert_close(p.grad, 1 + 2 * p.detach())
    assert q.grad is None
    assert diagonal[1] is None
    opt, before = ours.AdaHessian([p, q]), q.detach().clone()
    opt.step(hessian=diagonal)
    assert torch.equal(q, before)


def test_diagonals_that_are_refused():
    (p,) = params = parameters((3, 2))
    opt = ours.AdaHessian(params)
    set_grads(params, 0)
    before = p.detach().clone()
    for given, message in [
        (None, "hessian must be given at every step"),
        ([], "hessian must be a list of 1 tensors"),
        ([torch.ones(3)], r"hessian\[0\] must be dense, torch.float32 and of shape \(3, 2\)"),
        ([torch.ones(3, 2, dtype=torch.float64)], r"hessian\[0\] must be dense, torch.float32"),
        ([None], r"hessian\[0\] must be an array where there is a gradient"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            opt.step(hessian=given)
    assert torch.equal(p, before)
    assert not opt.state
    opt.step(hessian=[torch.ones(2, 3).T])
    with pytest.raises(ValueError, match="hessian must be None with in_backward"):
        ours.Sophia(parameters((3,)), in_backward=True).step(hessian=[torch.ones(3)])
    with pytest.raises(TypeError, match=r"params\[0\] must be float32 or float64 for hutchinson"):
        ours.hutchinson(torch.ones(()), [torch.nn.Parameter(torch.ones(2, dtype=torch.float16))])
