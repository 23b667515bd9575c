"""fastlr.torch where torch.optim is used: what may happen to a model and an optimizer between two steps."""

import copy
import inspect
import pickle
import pydoc
import re

import numpy as np
import pytest

import fastlr

torch = pytest.importorskip("torch")

import fastlr.torch as ours  # noqa: E402
from tests.torch_models import backward, batches, build  # noqa: E402

THEIRS = [name for name in ours.__all__ if hasattr(torch.optim, name)]
NAMES = [name for name in THEIRS if name not in ("Muon", "SparseAdam")]  # one goes by bfloat16, one by rows
OWN = [name for name in ours.__all__ if name[0].isupper() and name not in (*THEIRS, "AdaHessian")]
EACH = [*THEIRS, *OWN, "AdaHessian", "Heavy"]
every = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def parameters(*shapes, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in shapes]


def set_grads(params, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype).to(memory_format=torch.preserve_format)


def pair(name, *shapes, dtype=torch.float32, **options):
    """torch's and our optimizer on equal parameters."""
    params = parameters(*shapes, dtype=dtype), parameters(*shapes, dtype=dtype)
    known = {key: x for key, x in options.items() if key not in ("clip_norm", "nonfinite")}
    return getattr(torch.optim, name)(params[0], **known), getattr(ours, name)(params[1], **options)


@fastlr.rule(states=("b",), momentum=0.9)
def Heavy(g, b, momentum):
    b = momentum * b + g
    return b, b


def kind_of(name):
    """A class of `EACH`."""
    if name != "Heavy":
        return getattr(ours, name)
    pytest.importorskip("numba")
    return ours.optimizer_of(Heavy)


def of_any(name, **options):
    return kind_of(name)(parameters((5, 2), (2, 3)), **options)


def step_any(opt, seed):
    """By gradients that are sparse where the rule takes no others."""
    set_grads(all_params(opt), seed)
    for p in all_params(opt):
        if isinstance(opt, ours.SparseAdam | ours.LazyAdam | ours.RowAdagrad):
            p.grad = p.grad.to_sparse(1)
    if isinstance(opt, ours.AdaHessian):
        opt.step(hessian=[p.grad.square() for p in all_params(opt)])
    else:
        opt.step()


def all_params(opt):
    return [p for group in opt.param_groups for p in group["params"]]


def walk(a, b, steps=3, start=0):
    for t in range(start, start + steps):
        for opt in (a, b):
            set_grads(all_params(opt), t)
            opt.step()


def assert_close(a, b, tolerance=2e-6):
    for p, q in zip(all_params(a), all_params(b), strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)


def bits(opt):
    """Copies of all that a step may write."""
    state = [x.clone() for slot in opt.state.values() for x in slot.values() if isinstance(x, torch.Tensor)]
    return [p.detach().clone() for p in all_params(opt)] + state


def assert_same_bits(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype
        assert torch.equal(
            torch.view_as_real(x) if x.is_complex() else x, torch.view_as_real(y) if y.is_complex() else y
        )


@pytest.mark.parametrize("name", THEIRS)
def test_class(name):
    base = getattr(torch.optim, name)
    cls = getattr(ours, name)
    assert issubclass(cls, base)
    theirs, signature = inspect.signature(base), inspect.signature(cls)
    assert list(signature.parameters)[: len(theirs.parameters)] == list(theirs.parameters)
    for key, x in theirs.parameters.items():
        assert signature.parameters[key].default == x.default


@every
def test_groups_of_their_own_rates(name):
    (p, q), (r, s) = parameters((5,), (3, 2)), parameters((5,), (3, 2))
    a = getattr(torch.optim, name)([{"params": [p]}, {"params": [q], "lr": 0.1}], lr=0.01)
    b = getattr(ours, name)([{"params": [r]}, {"params": [s], "lr": 0.1}], lr=0.01)
    walk(a, b)
    for opt in (a, b):
        opt.param_groups[0]["lr"] = 0.03
    walk(a, b, start=3)
    assert_close(a, b)
    for opt in (a, b):
        opt.add_param_group({"params": parameters((4,), seed=7), "lr": 0.2})
    if name != "Adagrad":  # which in torch cannot step what was added later
        walk(a, b, start=6)
        assert_close(a, b)


@every
def test_gradients_that_come_and_go(name):
    """Parameters without a gradient are skipped: no state, no decay, no step."""
    a, b = pair(name, (5,), (3, 2), (4,), **({} if name == "Rprop" else {"weight_decay": 0.1}))
    for t, given in enumerate([(0,), (0, 2), (1, 2), (), (0, 1, 2)]):
        for opt in (a, b):
            params = all_params(opt)
            opt.zero_grad()
            set_grads([params[k] for k in given], t)
            opt.step()
        assert_close(a, b)
        assert [slot.keys() for slot in a.state.values()] == [slot.keys() for slot in b.state.values()]


@every
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex(name, dtype):
    if name == "Adafactor":
        _, opt = pair(name, (3, 2), dtype=dtype)
        set_grads(all_params(opt), 0)
        with pytest.raises(ValueError, match="must be real and contiguous for Adafactor"):
            opt.step()
        return
    a, b = pair(name, (3, 2), (7,), dtype=dtype)
    walk(a, b)
    assert_close(a, b)


def test_conjugate_gradients():
    a, b = pair("AdamW", (6,), dtype=torch.complex64)
    for opt in (a, b):
        (p,) = all_params(opt)
        g = torch.view_as_complex(torch.arange(12, dtype=torch.float32).view(6, 2)).conj()
        p.grad = g.resolve_conj() if opt is a else g
        opt.step()
    assert_close(a, b)


@every
def test_maximize(name):
    a, b = pair(name, (5,), (2, 3), maximize=True)
    walk(a, b)
    assert_close(a, b)


@every
def test_tensor_rate(name):
    if name in ("Rprop", "Adafactor"):
        pytest.skip("torch's own does not take one here")
    rate = torch.tensor(0.01)
    a, b = pair(name, (5,), (2, 3), lr=rate)
    walk(a, b)
    rate.mul_(2)
    walk(a, b, start=3)
    assert_close(a, b)


@pytest.mark.parametrize("betas", [[0.9, 0.99], (torch.tensor(0.9), torch.tensor(0.99))])
def test_betas_that_change_in_place(betas):
    a, b = parameters((5,)), parameters((5,))
    opt, other = ours.AdamW(a), ours.AdamW(b)
    opt.param_groups[0]["betas"] = betas
    for beta in (0.9, 0.5):
        if isinstance(betas, list):
            betas[0] = beta
        else:
            betas[0].fill_(beta)
        other.param_groups[0]["betas"] = float(betas[0]), float(betas[1])
        walk(opt, other)
    assert_same_bits(bits(opt), bits(other))


IMPLEMENTATIONS = ["foreach", "fused", "capturable", "differentiable"]


@pytest.mark.parametrize(
    "option",
    [{"foreach": True}, {"foreach": False}, {"fused": True}, {"capturable": True}, {"differentiable": True}, {}],
)
@pytest.mark.parametrize("name", EACH)
def test_implementations_change_nothing(name, option):
    a, b = of_any(name), of_any(name, **option, **({} if option else {"differentiable": False}))
    for t in range(3):
        for opt in (a, b):
            step_any(opt, t)
    assert_same_bits(bits(a), bits(b))


@pytest.mark.parametrize("how", ["argument", "group", "set"])
@pytest.mark.parametrize("name", ["AdamW", "Lion", "SparseAdam"])
def test_differentiable_raises_where_a_gradient_has_a_graph(name, how):
    """What is differentiated through it would be silently wrong; without the argument a step is as under no_grad."""
    p = parameters((4, 3))[0]
    kind = getattr(ours, name)
    opt = (
        kind([p], differentiable=True)
        if how == "argument"
        else kind([{"params": [p], "differentiable": how == "group"}])
    )
    opt = copy.deepcopy(opt)
    (p,) = opt.param_groups[0]["params"]
    plain = kind([torch.nn.Parameter(p.detach().clone())])
    for each in (opt, plain):
        q = each.param_groups[0]["params"][0]
        loss = torch.nn.functional.embedding(torch.tensor([1, 2]), q, sparse=name == "SparseAdam").square().sum()
        (q.grad,) = torch.autograd.grad(loss, [q], create_graph=True)
        assert q.grad.requires_grad
        if how == "set" and each is opt:
            opt.step()
            opt.param_groups[0]["differentiable"] = True
    before = p.detach().clone()
    with pytest.raises(RuntimeError, match=r"must have no graph with differentiable=True"):
        opt.step()
    assert torch.equal(p, before)
    p.grad = p.grad.detach()
    opt.step()
    assert not torch.equal(p, before)
    plain.step()


@pytest.mark.parametrize("name", [*EACH, None])
def test_help_says_what_implementations_mean(name):
    page = pydoc.plain(pydoc.render_doc(ours if name is None else kind_of(name)))
    assert re.search(r"`foreach`,\s+`fused`\s+and\s+`capturable`\s+choose\s+among\s+torch's\s+implementations", page)
    assert "`differentiable`" in page
    assert re.search(r"autograd\s+does\s+not\s+see\s+the\s+step", page)
    if name is not None:
        assert set(IMPLEMENTATIONS) <= set(inspect.signature(kind_of(name)).parameters)


def test_closure_and_hooks():
    (p,) = parameters((3,))
    opt, seen = ours.SGD([p], lr=0.1), []

    def closure():
        opt.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    before = p.detach().clone()
    opt.register_step_pre_hook(lambda o, args, kwargs: seen.append(("pre", torch.equal(p, before))))
    opt.register_step_post_hook(lambda o, args, kwargs: seen.append(("post", torch.equal(p, before))))
    assert opt.step(closure).item() == pytest.approx((before**2).sum().item())
    assert seen == [("pre", True), ("post", False)]
    torch.testing.assert_close(p.detach(), 0.8 * before)
    opt.register_state_dict_post_hook(lambda o, saved: {**saved, "more": 1})
    assert opt.state_dict()["more"] == 1


def test_profiler_sees_the_step():
    (p,) = parameters((3,))
    opt = ours.SGD([p], lr=0.1)
    set_grads([p], 0)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        opt.step()
    assert "Optimizer.step#SGD.step" in {event.key for event in profile.key_averages()}


# ---- what moves between steps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["data", "none", "zero", "grad", "state", "slot", "params", "step"])
def test_what_is_replaced_is_noticed(change):
    """The same happens to torch's."""
    a, b = pair("AdamW", (40,), (3, 5), lr=0.01)
    walk(a, b)
    for opt in (a, b):
        p, q = all_params(opt)
        if change == "data":
            p.data = p.data + 1
        elif change == "none":
            opt.zero_grad(set_to_none=True)
        elif change == "zero":
            opt.zero_grad(set_to_none=False)
        elif change == "grad":
            p.grad.data = p.grad.data * 2
            opt.step()
        elif change == "state":
            opt.state[q]["exp_avg"] = opt.state[q]["exp_avg"] * 2
        elif change == "slot":
            opt.state[p] = {key: x.clone() + 1 for key, x in opt.state[p].items()}
        elif change == "params":
            new = torch.nn.Parameter(q.detach().clone())
            opt.state[new] = opt.state.pop(q)
            opt.param_groups[0]["params"][1] = new
        elif change == "step":
            opt.state[p]["step"].fill_(1)
            opt.state[q]["exp_avg_sq"].data = opt.state[q]["exp_avg_sq"].data * 4
    walk(a, b, start=3)
    assert_close(a, b)


@every
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_layouts(name, layout):
    """Gradients of another layout than the parameter's, and parameters that change theirs."""
    if name == "Adafactor" and layout is torch.channels_last:
        (p,) = parameters((4, 3, 2, 2))
        p.data = p.data.contiguous(memory_format=layout)
        set_grads([p], 0)
        with pytest.raises(ValueError, match="must be real and contiguous for Adafactor"):
            ours.Adafactor([p]).step()
        return
    a, b = pair(name, (4, 3, 2, 2), (5, 6))
    walk(a, b)
    for opt in (a, b):
        p, q = all_params(opt)
        p.data = p.data.contiguous(memory_format=layout)
        if name != "Adafactor":
            q.data = q.data.t().contiguous().t()
    walk(a, b, start=3)
    for opt in (a, b):
        p, _ = all_params(opt)
        p.grad = torch.arange(48, dtype=torch.float32).view(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
        opt.step()
    assert_close(a, b)


def test_dtype_that_changes_is_refused():
    model = torch.nn.Linear(3, 2)
    opt = ours.AdamW(model.parameters())
    set_grads(model.parameters(), 0)
    opt.step()
    model.to(torch.float64)
    opt.zero_grad()
    set_grads(model.parameters(), 1)
    before = bits(opt)
    with pytest.raises(TypeError, match=r"state\['exp_avg'\] of params\[0\] must be torch.float64"):
        opt.step()
    assert_same_bits(bits(opt), before)


def test_dtype_that_changes_before_the_first_step():
    model = torch.nn.Linear(3, 2)
    opt = ours.AdamW(model.parameters())
    model.to(torch.float64)
    set_grads(model.parameters(), 1)
    opt.step()
    assert opt.state[model.weight]["exp_avg"].dtype == torch.float64


def test_dtypes_side_by_side():
    a, b = (
        cls([*parameters((5,)), *parameters((4, 2), dtype=torch.float64)], lr=0.1)
        for cls in (torch.optim.Adam, ours.Adam)
    )
    walk(a, b)
    assert_close(a, b)


def test_rules_side_by_side():
    """Groups with and without momentum are two kernels, and one step."""
    a, b = (
        cls([{"params": parameters((5,))}, {"params": parameters((4,), seed=1), "momentum": 0.9}], lr=0.1)
        for cls in (torch.optim.SGD, ours.SGD)
    )
    walk(a, b)
    for opt in (a, b):
        opt.param_groups[0]["momentum"] = 0.5
    walk(a, b, start=3)
    assert_close(a, b)
    assert len(b.state) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.empty(3, device="meta"), "must be on the CPU, got one on meta"),
        (lambda: torch.zeros(4, 4)[:, ::2], "must be one run of memory"),
        (lambda: torch.zeros(3, 1).expand(3, 2), "must be one run of memory"),
        (lambda: torch.zeros(3, dtype=torch.int32), "must be bfloat16, float16, float32, float64"),
        (lambda: torch.eye(3).to_sparse(), "must be a dense tensor"),
        (lambda: torch.zeros(3, dtype=torch.complex64).conj(), "conjugate"),
    ],
)
def test_parameters_that_are_refused(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ours.SGD([make()], lr=0.1)


def test_overlapping_parameters_are_refused():
    x = torch.zeros(6)
    params = [torch.nn.Parameter(x[:4]), torch.nn.Parameter(x[2:])]
    opt = ours.SGD(params, lr=0.1)
    set_grads(params, 0)
    with pytest.raises(ValueError, match=r"params\[0\] and params\[1\] must not overlap"):
        opt.step()
    assert not x.any()


def test_gradients_that_are_refused_change_nothing():
    params = parameters((3,), (4,))
    opt = ours.AdamW(params)
    set_grads(params, 0)
    params[1].grad = torch.ones(4).to_sparse()
    before = bits(opt)
    with pytest.raises(TypeError, match=r"grads\[1\] must be dense for AdamW, got a sparse one"):
        opt.step()
    assert_same_bits(bits(opt), before)
    assert not opt.state
    params[1].grad = torch.ones(4)
    opt.step()
    assert [slot["step"].item() for slot in opt.state.values()] == [1, 1]


@pytest.mark.parametrize(("name", "value"), [("lr", -1.0), ("lr", float("nan")), ("eps", 0.0), ("betas", (0.9, 1.0))])
def test_groups_are_checked_at_every_step(name, value):
    params = parameters((3,))
    opt = ours.AdamW(params)
    set_grads(params, 0)
    opt.step()
    before = bits(opt)
    opt.param_groups[0][name] = value
    with pytest.raises(ValueError, match=rf"param_groups\[0\].{name}"):
        opt.step()
    assert_same_bits(bits(opt), before)


# ---- norms and scales -----------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("dtypes", [(torch.float32,) * 2, (torch.float32, torch.float64)])
def test_clip_norm(name, dtypes):
    a, b = (
        cls([*parameters((50,), dtype=dtypes[0]), *parameters((4, 20), dtype=dtypes[1])], **options)
        for cls, options in ((getattr(torch.optim, name), {}), (getattr(ours, name), {"clip_norm": 0.5}))
    )
    for t in range(3):
        set_grads(all_params(a), t)
        set_grads(all_params(b), t)
        torch.nn.utils.clip_grad_norm_(all_params(a), 0.5)
        given = [p.grad.clone() for p in all_params(b)]
        a.step()
        b.step()
        assert_same_bits([p.grad for p in all_params(b)], given)
    assert_close(a, b)


@pytest.mark.parametrize("dtypes", [(torch.float32,) * 2, (torch.float32, torch.float64)])
def test_nonfinite(dtypes):
    params = [*parameters((5,), dtype=dtypes[0]), *parameters((4,), dtype=dtypes[1])]
    opt = ours.SGD(params, lr=0.1, momentum=0.9, nonfinite="skip")
    set_grads(params, 0)
    params[1].grad[1] = float("inf")
    before = bits(opt)
    opt.step()
    assert opt.report.skipped
    assert_same_bits(bits(opt), before)
    opt.nonfinite = "raise"
    with pytest.raises(FloatingPointError):
        opt.step()
    assert_same_bits(bits(opt), before)
    params[1].grad[1] = 1
    opt.step()
    assert not opt.report.skipped


@every
def test_grad_scaler(name):
    """Steps that it skips leave every bit as it was; the others are those of unscaled gradients."""
    model = build("transformer")
    a, b = getattr(torch.optim, name)(copy.deepcopy(model).parameters()), getattr(ours, name)(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    for t, batch in enumerate(batches("transformer", 6)):
        b.zero_grad()
        backward(model, batch, scaler.get_scale())
        if t in (0, 3):
            model.head.weight.grad[2, 1] = float("inf")
        scale = scaler.get_scale()
        if t not in (0, 3):
            for p, q in zip(all_params(a), all_params(b), strict=True):
                p.grad = q.grad / scale
            a.step()
        scaler.scale(torch.ones(()))  # as a loss would be
        before, given = bits(b), [p.grad.clone() for p in all_params(b)]
        scaler.step(b)
        if t in (0, 3):
            assert_same_bits(bits(b), before)
        assert_same_bits([torch.nan_to_num(p.grad) for p in all_params(b)], [torch.nan_to_num(g) for g in given])
        scaler.update()
    assert_close(a, b, 2e-5 if name == "Adafactor" else 5e-6)


@pytest.mark.parametrize(("name", "tolerance"), [("Muon", 5e-3), ("SparseAdam", 2e-6)])
def test_grad_scaler_of_the_rules_apart(name, tolerance):
    a, b = pair(name, (6, 4), (3, 5), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    for t in range(6):
        skipped = t in (0, 3)
        set_grads(all_params(a), t)
        for p, q in zip(all_params(a), all_params(b), strict=True):
            q.grad = p.grad * scaler.get_scale()
            q.grad[2, 1] = float("inf") if skipped else q.grad[2, 1]
            if name == "SparseAdam":
                p.grad, q.grad = p.grad.to_sparse(1), q.grad.to_sparse(1)
        if not skipped:
            a.step()
        scaler.scale(torch.ones(()))
        before = bits(b)
        scaler.step(b)
        assert all(map(torch.equal, bits(b)[:2], before[:2])) == skipped
        if skipped:
            assert_same_bits(bits(b), before)
        scaler.update()
    assert_close(a, b, tolerance)
    assert {float(slot["step"]) for slot in b.state.values() if "step" in slot} in ({4.0}, set())


def test_grad_scaler_that_has_unscaled():
    params = parameters((4,))
    a, b = torch.optim.SGD(parameters((4,)), lr=0.1), ours.SGD(params, lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    set_grads(all_params(a), 0)
    a.step()
    set_grads(params, 0)
    params[0].grad *= 8
    scaler.scale(torch.ones(()))
    scaler.unscale_(b)
    scaler.step(b)
    assert_close(a, b)


# ---- copies and files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_go_on_alike(name, how):
    opt = of_any(name, clip_norm=10.0)
    step_any(opt, 0)
    other = copy.deepcopy(opt) if how == "deepcopy" else pickle.loads(pickle.dumps(opt))
    assert type(other) is type(opt)
    assert other.clip_norm == 10.0
    for t in range(1, 3):
        for x in (opt, other):
            step_any(x, t)
    assert_same_bits(bits(opt), bits(other))
    assert not torch.equal(all_params(opt)[0], parameters((5, 2))[0])


def test_an_optimizer_of_a_rule_without_a_name_cannot_be_pickled():
    pytest.importorskip("numba")

    @fastlr.rule()
    def Plain(g):
        return g

    opt = ours.optimizer_of(Plain)(parameters((3,)))
    assert copy.deepcopy(opt).param_groups[0]["lr"] == 1e-3
    with pytest.raises((pickle.PicklingError, AttributeError), match="Plain"):
        pickle.dumps(opt)


@every
def test_resumes_bit_for_bit(name):
    _, a = pair(name, (50,), (4, 20))
    _, b = pair(name, (50,), (4, 20))
    walk(a, b)
    _, c = pair(name, (50,), (4, 20))
    with torch.no_grad():
        for p, q in zip(all_params(c), all_params(b), strict=True):
            p.copy_(q)
    c.load_state_dict(b.state_dict())
    walk(a, c, start=3)
    assert_same_bits(bits(a), bits(c))
    assert len(bits(b)) == len(bits(c))


def test_loading_copies():
    """torch's shares the tensors of what it loads."""
    _, a = pair("AdamW", (5,))
    _, b = pair("AdamW", (5,))
    walk(a, a)
    b.load_state_dict(a.state_dict())
    before = bits(a)
    set_grads(all_params(b), 5)
    b.step()
    assert_same_bits(bits(a), before)


def test_loading_never_casts():
    _, a = pair("AdamW", (5,), dtype=torch.float64)
    _, b = pair("AdamW", (5,))
    walk(a, a)
    walk(b, b)
    before, saved = bits(b), a.state_dict()
    with pytest.raises(TypeError, match=r"state\['exp_avg'\] of params\[0\] must be torch.float32"):
        b.load_state_dict(saved)
    assert_same_bits(bits(b), before)


def test_loading_what_does_not_fit():
    _, a = pair("AdamW", (5,))
    _, b = pair("AdamW", (6,))
    walk(a, a)
    with pytest.raises(ValueError, match=r"state\['exp_avg'\] of params\[0\] must have shape \(6,\)"):
        b.load_state_dict(a.state_dict())
    assert not b.state


def test_torch_schedulers():
    a, b = pair("AdamW", (5,), (3, 2), lr=0.1)
    schedulers = [torch.optim.lr_scheduler.OneCycleLR(opt, 0.1, total_steps=6) for opt in (a, b)]
    for t in range(6):
        walk(a, b, steps=1, start=t)
        for scheduler in schedulers:
            if t < 5:
                scheduler.step()
    assert a.param_groups[0]["lr"] == b.param_groups[0]["lr"]
    assert_close(a, b)


def test_named_parameters():
    model = torch.nn.Linear(2, 1)
    opt = ours.AdamW(model.named_parameters())
    set_grads(model.parameters(), 0)
    opt.step()
    model.bias.grad = torch.ones(1).to_sparse()
    with pytest.raises(TypeError, match=r"grads\['bias'\] must be dense"):
        opt.step()
    assert opt.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]


def test_more_steps_than_float32_counts():
    """torch's counter stands still at 2^24; ours counts on, and says so as nearly as float32 can."""
    (p,) = parameters((3,))
    opt = ours.AdamW([p])
    set_grads([p], 0)
    opt.step()
    opt.state[p]["step"].fill_(2.0**24)
    for _ in range(3):
        opt.step()
    assert opt.state[p]["step"].item() == 2.0**24 + 4  # 2^24 + 3, rounded


def test_same_bits_as_numpy():
    """The kernels are those of `fastlr.AdamW`."""
    _, opt = pair("AdamW", (50,), (3, 7), lr=0.01)
    arrays = [p.detach().numpy().copy() for p in all_params(opt)]
    plain = fastlr.AdamW(arrays, lr=0.01)
    for t in range(3):
        set_grads(all_params(opt), t)
        opt.step()
        plain.step([p.grad.numpy() for p in all_params(opt)])
    for p, x in zip(all_params(opt), arrays, strict=True):
        assert np.array_equal(p.detach().numpy(), x)


def test_muon():
    """torch iterates in bfloat16: its steps agree to a percent or so. Momentum and decay are the same."""
    a, b = pair("Muon", (6, 4), (3, 5), lr=0.01, weight_decay=0.1)
    walk(a, b)
    assert_close(a, b, 5e-3)
    for p, q in zip(all_params(a), all_params(b), strict=True):
        torch.testing.assert_close(a.state[p]["momentum_buffer"], b.state[q]["momentum_buffer"])


# ---- rules that torch does not have ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", OWN)
def test_own_rules(name, dtype):
    """The bits of fastlr's class, also through a checkpoint and a new optimizer midway."""
    by_rows = name in ("LazyAdam", "RowAdagrad")
    params = parameters((6, 7), dtype=dtype) if by_rows else parameters((40,), (6, 7), dtype=dtype)
    arrays = [p.detach().numpy().copy() for p in params]
    opt, plain = getattr(ours, name)(params), getattr(fastlr, name)(arrays)
    for t in range(6):
        if t == 3:
            saved = pickle.loads(pickle.dumps(opt.state_dict()))
            opt = getattr(ours, name)(params)
            opt.load_state_dict(saved)
        set_grads(params, t)
        if by_rows:
            rows = [np.arange(len(x)) for x in arrays]
            for p in params:
                p.grad = p.grad.to_sparse(1)
            plain.step_rows(rows, [p.grad.to_dense().numpy() for p in params])
        else:
            plain.step([p.grad.numpy() for p in params])
        opt.step()
        for p, x in zip(params, arrays, strict=True):
            assert np.array_equal(p.detach().numpy(), x), t
    for key, states in plain.state.items():
        for p, x in zip(params, states, strict=True):
            assert np.array_equal(opt.state[p][key].numpy(), x), key
    assert (opt.state[params[0]]["step"] == 6).all()


def test_own_rules_have_arguments_of_their_own():
    opt = ours.Lion(parameters((3,)), 0.1, betas=(0.8, 0.9), maximize=True, clip_norm=1.0)
    group = {key: x for key, x in opt.param_groups[0].items() if key != "params"}
    assert group == {"lr": 0.1, "betas": (0.8, 0.9), "weight_decay": 0.0, "cautious": False, "maximize": True}
    with pytest.raises(TypeError, match="momentum"):
        ours.Lion(parameters((3,)), momentum=0.9)
    with pytest.raises(TypeError, match=r"param_groups\[0\].lr must be a number"):
        ours.Lion(parameters((3,)), lr=lambda step: 0.1)


# ---- sparse gradients -----------------------------------------------------------------------------------------------

SPARSE = {"SGD": {"lr": 0.01}, "Adagrad": {"lr": 0.1, "lr_decay": 0.01}, "SparseAdam": {"lr": 0.1}}


def sparse_models(name, dtype):
    """Embeddings looked up twice, and what comes after them, whose gradients are dense."""
    made = []
    for module in (torch.optim, ours):
        torch.manual_seed(0)
        table, layer = torch.nn.Embedding(50, 4, sparse=True, dtype=dtype), torch.nn.Linear(4, 2, dtype=dtype)
        params = [table.weight] if name == "SparseAdam" else [table.weight, *layer.parameters()]
        made.append((table, layer, getattr(module, name)(params, **SPARSE[name])))
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SPARSE)
def test_sparse_gradients(name, dtype):
    (table, layer, theirs), (own_table, own_layer, mine) = sparse_models(name, dtype)
    generator = torch.Generator().manual_seed(0)
    for t in range(10):
        x = torch.randint(50, (8, 3), generator=generator)
        if t == 5:
            saved = copy.deepcopy((theirs.state_dict(), mine.state_dict()))
            (_, _, a), (_, _, b) = sparse_models(name, dtype)
            a.param_groups[0]["params"], b.param_groups[0]["params"] = all_params(theirs), all_params(mine)
            theirs, mine = a, b
            for opt in (a, b):
                opt.state.clear()
            theirs.load_state_dict(saved[1])
            mine.load_state_dict(saved[0])
        for some, last, opt in ((table, layer, theirs), (own_table, own_layer, mine)):
            opt.zero_grad()
            (last(some(x)).square().sum() + some(x[0]).sum()).backward()
            assert some.weight.grad.is_sparse
            opt.step()
    tolerance = 1e-5 if dtype is torch.float32 else 1e-10
    assert_close(theirs, mine, tolerance)
    own, its = mine.state_dict()["state"], theirs.state_dict()["state"]
    assert own.keys() == its.keys()
    for k in own:
        assert own[k].keys() == its[k].keys()
        if name == "SparseAdam":
            assert own[k]["step"] == its[k]["step"] == 10
            assert type(own[k]["step"]) is int


ROWS = {
    "LazyAdam": {"lr": 0.1, "betas": (0.8, 0.9), "weight_decay": 0.01},
    "RowAdagrad": {"lr": 0.1, "lr_decay": 0.01, "initial_accumulator_value": 0.5},
    "FTRL": {"lr": 0.1, "l1": 0.05, "l2": 0.1},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ROWS)
def test_sparse_gradients_make_steps_of_rows(name, dtype):
    """The bits of `step_rows` on an array, with indices given twice, over a checkpoint too."""
    torch.manual_seed(0)
    table = torch.nn.Embedding(50, 4, sparse=True, dtype=dtype)
    array = table.weight.detach().numpy().copy()
    mine, plain = getattr(ours, name)([table.weight], **ROWS[name]), getattr(fastlr, name)(array, **ROWS[name])
    generator = torch.Generator().manual_seed(0)
    for t in range(10):
        if t == 5:
            saved = copy.deepcopy(mine.state_dict())
            mine = getattr(ours, name)([table.weight], **ROWS[name])
            mine.load_state_dict(saved)
        x = torch.randint(50, (8, 3), generator=generator)
        x[0] = x[1]
        mine.zero_grad()
        (table(x).square().sum() + table(x[0]).sum()).backward()
        assert table.weight.grad.is_sparse
        plain.step_rows(*fastlr.rows_of(table.weight.grad))
        mine.step()
        np.testing.assert_array_equal(table.weight.detach().numpy(), array)
        for key in plain.states:
            np.testing.assert_array_equal(mine.state[table.weight][key].numpy(), plain.state[key])
    if name == "FTRL":
        assert (array == 0).any()


@pytest.mark.parametrize("name", ROWS)
def test_tables_that_have_no_gradient_of_rows_wait(name):
    tables = [torch.nn.Embedding(5, 2, sparse=True) for _ in range(2)]
    opt = getattr(ours, name)([x.weight for x in tables], **ROWS[name])
    for used in (tables[:1], tables[1:], tables, []):
        opt.zero_grad()
        for x in used:
            x(torch.tensor([1])).sum().backward()
        before = bits(opt)
        opt.step()
        if not used:
            assert_same_bits(bits(opt), before)
    opt.load_state_dict(opt.state_dict())
    opt.step()
    assert [int(opt.state[x.weight]["step"]) for x in tables] == [2, 2]


@pytest.mark.parametrize("name", ["LazyAdam", "RowAdagrad"])
def test_rules_of_rows_refuse_dense_gradients(name):
    (p,) = parameters((20, 3))
    opt = getattr(ours, name)([p], **ROWS[name])
    set_grads([p], 0)
    before = p.detach().clone()
    with pytest.raises(TypeError, match=rf"must be sparse for {name}, a rule for rows, got a dense one"):
        opt.step()
    assert torch.equal(p, before)
    assert not opt.state


def test_sparse_and_dense_in_turn():
    (p,) = parameters((20, 3))
    opt, (q,) = ours.Adagrad([p], lr=0.1), parameters((20, 3))
    theirs = torch.optim.Adagrad([q], lr=0.1)
    for t in range(6):
        set_grads([p, q], t)
        p.grad, q.grad = q.grad.clone(), q.grad
        if t % 2:
            for x in (p, q):
                x.grad[3:] = 0
                x.grad = x.grad.to_sparse(1)
        opt.step()
        theirs.step()
    assert_close(theirs, opt)


@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize(("shape", "dims"), [((30,), 1), ((20, 3), 2), ((9, 2, 5), 1), ((9, 2, 5), 2), ((4, 3, 2), 3)])
def test_sparse_gradients_of_any_shape(name, shape, dims):
    """As torch's: what has an index has a step. In float64, and with indices that occur twice."""
    a, b = pair(name, shape, dtype=torch.float64, **SPARSE[name])
    generator, shapes = torch.Generator().manual_seed(0), []
    for t in range(6):
        own = dims if t != 3 else 1 if dims > 1 else len(shape)  # once of other dimensions
        index = torch.stack([torch.randint(n, (7,), generator=generator) for n in shape[:own]])
        values = torch.randn(7, *shape[own:], generator=generator, dtype=torch.float64)
        shapes.append(values.shape)
        for opt in (a, b):
            (p,) = all_params(opt)
            p.grad = torch.sparse_coo_tensor(index, values, shape)
            opt.step()
    assert len(set(shapes)) == min(2, len(shape))
    assert_close(a, b, 1e-12)
    for slot, own in zip(a.state.values(), b.state.values(), strict=True):
        for key, x in slot.items():
            torch.testing.assert_close(
                torch.as_tensor(own[key]).to(torch.float64), torch.as_tensor(x).to(torch.float64)
            )


@pytest.mark.parametrize("options", [{}, {"nesterov": True}, {"dampening": 0.5}, {"maximize": True}])
def test_sparse_gradients_with_momentum(options):
    """Which in torch too goes on where there is no gradient; its checkpoints have it as a sparse tensor."""
    a, b = pair("SGD", (20, 3), dtype=torch.float64, lr=0.1, momentum=0.9, **options)
    generator = torch.Generator().manual_seed(0)
    for t in range(6):
        if t == 3:
            assert next(iter(a.state.values()))["momentum_buffer"].is_sparse
            _, c = pair("SGD", (20, 3), dtype=torch.float64, lr=0.1, momentum=0.9, **options)
            with torch.no_grad():
                all_params(c)[0].copy_(all_params(b)[0])
            c.load_state_dict(a.state_dict())
            b = c
        index, values = torch.randint(20, (1, 5), generator=generator), torch.randn(5, 3, generator=generator)
        for opt in (a, b):
            all_params(opt)[0].grad = torch.sparse_coo_tensor(index, values.double(), (20, 3))
            opt.step()
    assert_close(a, b, 1e-12)
    its, _ = pair("SGD", (20, 3), dtype=torch.float64, lr=0.1, momentum=0.9, **options)
    with torch.no_grad():
        all_params(its)[0].copy_(all_params(b)[0])
    its.load_state_dict(copy.deepcopy(b.state_dict()))  # torch shares what it loads
    for opt in (its, b):
        all_params(opt)[0].grad = torch.sparse_coo_tensor(index, values.double(), (20, 3))
    b.step()
    if "nesterov" in options:  # sparse + dense, which torch does not add
        with pytest.raises(RuntimeError, match="sparse"):
            its.step()
    else:
        its.step()
        assert_close(its, b, 1e-12)


@pytest.mark.parametrize("name", SPARSE)
def test_sparse_gradients_of_no_row(name):
    """A batch may look up nothing."""
    a, b = pair(name, (20, 3), **SPARSE[name])
    for nnz in (2, 0, 3):
        for opt in (a, b):
            index = torch.arange(nnz).reshape(1, -1)
            all_params(opt)[0].grad = torch.sparse_coo_tensor(index, torch.ones(nnz, 3), (20, 3), check_invariants=True)
            opt.step()
    assert_close(a, b)


def test_sparse_rows_where_each_has_a_number():
    (p,) = parameters((4, 3))
    p.grad = torch.eye(4)[:, :3].to_sparse()
    opt = ours.RowAdagrad([p])
    with pytest.raises(TypeError, match=r"grads\[0\] must be rows of a table for RowAdagrad"):
        opt.step()
    assert not opt.state


@pytest.mark.parametrize("options", [{"momentum": 0.9, "weight_decay": 0.1}, {"weight_decay": 0.1}])
def test_sparse_gradients_that_move_all_rows_are_refused(options):
    (p,) = parameters((20, 3))
    opt = ours.SGD([p], lr=0.1, **options)
    p.grad = torch.eye(20)[:, :3].to_sparse(1)
    before = p.detach().clone()
    with pytest.raises(ValueError, match="must be 0 with sparse gradients"):
        opt.step()
    assert torch.equal(p, before)
    assert not opt.state


def test_sparse_clipping_is_over_all():
    (table, layer, theirs), (own_table, own_layer, _) = sparse_models("SGD", torch.float64)
    mine = ours.SGD([own_table.weight, *own_layer.parameters()], lr=0.01, clip_norm=0.01)
    x = torch.tensor([[1, 2, 1]])
    for some, last in ((table, layer), (own_table, own_layer)):
        last(some(x)).square().sum().backward()
    grads = [p.grad.coalesce().to_dense() if p.grad.is_sparse else p.grad for p in all_params(theirs)]
    norm = torch.cat([g.reshape(-1) for g in grads]).norm().item()
    for p in all_params(theirs):
        p.grad *= 0.01 / (norm + 1e-6)
    theirs.step()
    mine.step()
    assert_close(theirs, mine, 1e-12)


def test_sparse_nonfinite_is_skipped_by_all():
    _, (table, layer, mine) = sparse_models("Adagrad", torch.float32)
    mine.nonfinite = "skip"
    layer(table(torch.tensor([[1, 2]]))).sum().backward()
    table.weight.grad._values()[0, 0] = float("nan")
    before = bits(mine)
    mine.step()
    assert mine.report.skipped
    assert_same_bits(bits(mine), before)


# ---- in backward ----------------------------------------------------------------------------------------------------


def trained(name, steps=6, **options):
    model = build("transformer")
    cls = getattr(ours, name)
    groups = [{"params": list(model.parameters())[::2]}, {"params": list(model.parameters())[1::2], "lr": 2e-3}]
    opt = cls(groups, lr=1e-3, **options)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)
    for batch in batches("transformer", steps):
        opt.zero_grad()
        backward(model, batch)
        opt.step()
        scheduler.step()
    return model, opt


@pytest.mark.parametrize("name", [*NAMES, "Lion", "LAMB"])
def test_in_backward_has_the_same_bits(name):
    model, opt = trained(name)
    other, second = trained(name, in_backward=True)
    assert_same_bits([p.detach() for p in model.parameters()], [p.detach() for p in other.parameters()])
    assert all(p.grad is None for p in other.parameters())
    saved, again = opt.state_dict(), second.state_dict()
    for k, slot in saved["state"].items():
        assert_same_bits(list(slot.values()), [again["state"][k][key] for key in slot])


def test_in_backward_drops_each_gradient_at_once():
    layers = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(5)])
    opt = ours.AdamW(layers.parameters(), in_backward=True)
    alive = []
    for p in layers.parameters():
        p.register_post_accumulate_grad_hook(
            lambda _: alive.append(sum(q.grad is not None for q in layers.parameters()))
        )
    layers(torch.ones(1, 4)).sum().backward()
    opt.step()
    assert max(alive) <= 1


def test_in_backward_clips_by_value_and_by_the_norm_before():
    (p,), (q,) = parameters((50,)), parameters((50,))
    opt = ours.SGD([p], lr=0.1, in_backward=True, clip_value=0.5)
    g = torch.linspace(-2, 2, 50)
    before = p.detach().clone()
    (p * g).sum().backward()
    opt.step()
    torch.testing.assert_close(p.detach(), before - 0.1 * g.clamp(-0.5, 0.5))

    opt = ours.SGD([q], lr=0.1, in_backward=True, clip_previous=1.0)
    before = q.detach().clone()
    for scale in (1.0, 1.0 / (g.norm() + 1e-6)):
        (q * g).sum().backward()
        opt.step()
        before -= 0.1 * g * scale
        torch.testing.assert_close(q.detach(), before)


@pytest.mark.parametrize("limit", [None, 0.3])
@pytest.mark.parametrize("options", [{"lr": 0.1}, {"lr": 0.1, "momentum": 0.9}])
def test_in_backward_takes_sparse_gradients(options, limit):
    """The bits of a step after it; with a limit, of gradients that were clamped when they had been added up."""
    made = []
    for inside in (True, False):
        torch.manual_seed(0)
        layer = torch.nn.EmbeddingBag(20, 3, sparse=True, mode="sum")
        opt = ours.SGD(layer.parameters(), **options, in_backward=inside, clip_value=limit if inside else None)
        for t in range(3):
            opt.zero_grad()
            (layer(torch.tensor([[1, 2, 1], [t, t, 5]])) ** 2).sum().backward()
            g = layer.weight.grad
            if not inside and limit:
                layer.weight.grad = g = g.coalesce()
                assert g.values().abs().max() > limit
                g.values().clamp_(-limit, limit)
            opt.step()
        made.append(layer.weight.detach())
        assert (layer.weight.grad is None) == inside
    assert_same_bits(made[:1], made[1:])


def test_in_backward_clamps_both_parts_of_complex_gradients():
    (p,) = parameters((4,), dtype=torch.complex64)
    opt, before = ours.SGD([p], lr=1.0, in_backward=True, clip_value=0.5), p.detach().clone()
    g = torch.tensor([1 + 0.25j, -2j, 0.1 - 0.2j, -3 + 4j])
    (p * g.conj()).real.sum().backward()
    opt.step()
    expected = torch.complex(g.real.clamp(-0.5, 0.5), g.imag.clamp(-0.5, 0.5))
    torch.testing.assert_close(p.detach(), before - expected)


def test_in_backward_limits_may_be_set_between_steps():
    (p,) = parameters((50,))
    g = torch.linspace(-2, 2, 50)
    opt = ours.SGD([p], lr=0.1, in_backward=True)
    opt.clip_previous = 1.0  # by a norm that is not known yet
    before = p.detach().clone()
    (p * g).sum().backward()
    opt.step()
    torch.testing.assert_close(p.detach(), before - 0.1 * g)
    for name, wrong in (("nonfinite", "skp"), ("clip_value", -1.0)):
        was, before = getattr(opt, name), p.detach().clone()
        setattr(opt, name, wrong)
        with pytest.raises(ValueError, match=f"{name} must be"):
            (p * g).sum().backward()
        assert torch.equal(p, before)
        setattr(opt, name, was)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("AdamW", {"in_backward": True, "clip_norm": 1.0}, "clip_norm must be None with in_backward"),
        ("AdamW", {"clip_value": 1.0}, "clip_value must be None without in_backward"),
        ("AdamW", {"in_backward": True, "clip_previous": -1.0}, "clip_previous must be finite and > 0"),
    ],
)
def test_in_backward_refuses(name, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(ours, name)(parameters((3,)), **options)


def test_in_backward_refuses_rules_of_the_whole_model():
    (p,) = parameters((3,))
    opt = ours.Prodigy([p], in_backward=True)
    before = p.detach().clone()
    with pytest.raises(ValueError, match="in_backward must be False for Prodigy"):
        p.sum().backward()
    assert torch.equal(p, before)
    assert not opt.state


def test_in_backward_refuses_a_scaler():
    (p,) = parameters((3,))
    opt = ours.SGD([p], lr=0.1, in_backward=True)
    opt.grad_scale = torch.tensor(8.0)
    with pytest.raises(ValueError, match="in_backward must be False with GradScaler"):
        opt.step()


@pytest.mark.parametrize("how", ["deepcopy", "load"])
def test_in_backward_goes_on_in_copies(how):
    model = torch.nn.Linear(4, 3)
    opt = ours.AdamW(model.parameters(), in_backward=True)
    model(torch.ones(2, 4)).sum().backward()
    if how == "deepcopy":
        model, opt = copy.deepcopy((model, opt))
    else:
        saved = opt.state_dict()
        opt.load_state_dict(saved)
    model(torch.ones(2, 4)).sum().backward()
    opt.step()
    assert [slot["step"].item() for slot in opt.state.values()] == [2, 2]
    assert model.weight.grad is None


# ---- flat buffers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("none", [True, False])
@pytest.mark.parametrize("name", ["AdamW", "SGD", "Lion", "RMSprop"])
def test_flatten(name, none):
    """The bits of the optimizer of the tensors themselves, tied weights and all."""
    models = build("transformer"), build("transformer")
    a = getattr(ours, name)(models[0].parameters(), lr=1e-3)
    flat = ours.flatten(models[1])
    b = getattr(ours, name)(flat, lr=1e-3)
    assert [x.numel() for x in flat] == [sum(p.numel() for p in models[0].parameters())]
    assert models[1].head.weight is models[1].tokens.weight
    for t, batch in enumerate(batches("transformer", 6)):
        for model, opt in zip(models, (a, b), strict=True):
            (model if t % 2 else opt).zero_grad(set_to_none=none)
            backward(model, batch)
            opt.step()
    assert_same_bits([p.detach() for p in models[0].parameters()], [p.detach() for p in models[1].parameters()])
    assert models[1].head.weight.data_ptr() == flat[0].data_ptr()


def test_flatten_keeps_layouts_and_dtypes():
    conv = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    linear = torch.nn.Linear(2, 2, dtype=torch.float64)
    linear.bias.requires_grad_(False)
    before = [p.detach().clone() for p in (*conv.parameters(), *linear.parameters())]
    strides = conv.weight.stride()
    flat = ours.flatten([*conv.parameters(), *linear.parameters()])
    assert [(x.dtype, x.numel()) for x in flat] == [(torch.float32, 112), (torch.float64, 4)]
    assert conv.weight.stride() == strides
    assert_same_bits(before, [p.detach() for p in (*conv.parameters(), *linear.parameters())])


def test_flatten_notices_what_leaves():
    model = torch.nn.Linear(3, 2)
    opt = ours.SGD(ours.flatten(model), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    model.weight.data = model.weight.data.clone()
    with pytest.raises(ValueError, match="a parameter has left the flat buffer"):
        opt.step()
    with pytest.raises(TypeError, match="flat parameters cannot be copied"):
        copy.deepcopy(opt)
    with pytest.raises(TypeError, match="flat parameters cannot be pickled"):
        pickle.dumps(opt)
    with pytest.raises(ValueError, match="at least one that requires a gradient"):
        ours.flatten([])
