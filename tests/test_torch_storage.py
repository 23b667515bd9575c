"""fastlr.torch with parameters and state in fewer bits than float32: the bits of fastlr's own classes."""

import copy
import io
import pickle

import numpy as np
import pytest

import fastlr

torch = pytest.importorskip("torch")

import fastlr.torch as ours  # noqa: E402
from tests.test_torch import all_params, assert_same_bits, bits, set_grads  # noqa: E402

SHAPES = (100, 50), (3, 5, 2), (7,)  # of which 8 bits make packed blocks, and less than one
WAYS = [
    (torch.bfloat16, {}),
    (torch.float16, {}),
    (torch.bfloat16, {"state_dtype": "bfloat16"}),
    (torch.float16, {"state_dtype": "int8"}),
    (torch.float32, {"state_dtype": "bfloat16"}),
    (torch.float32, {"state_dtype": "int8"}),
    (torch.bfloat16, {"master": "float32"}),
    (torch.bfloat16, {"master": "split", "state_dtype": "int8"}),
    (torch.bfloat16, {"rounding": "kahan"}),
    (torch.float16, {"rounding": "kahan"}),
    (torch.bfloat16, {"rounding": "stochastic", "seed": 3}),
    (torch.float16, {"rounding": "stochastic"}),
    (torch.float32, {"ema": 0.9, "denormals": "flush"}),
    (torch.float64, {"ema": 0.9}),
]
RULES = {
    "AdamW": {"lr": 0.01},
    "SGD": {"lr": 0.1},
    "Adagrad": {"lr": 0.1, "initial_accumulator_value": 0.5},
    "Lion": {"lr": 0.01},
    "LAMB": {"lr": 0.01},
    "Yogi": {"lr": 0.01, "initial_accumulator_value": 0.01},
}
every_way = pytest.mark.parametrize(("dtype", "options"), WAYS, ids=str)


def parameters(dtype, *shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes or SHAPES]


def make(name, dtype, options, params=None):
    return getattr(ours, name)(parameters(dtype) if params is None else params, **RULES[name], **options)


def words(x):
    """What lies in memory, as NumPy has it."""
    x = x.detach()
    return (x.view(torch.uint16) if x.dtype is torch.bfloat16 else x).numpy().copy()


def walk(opt, steps, start=0):
    for t in range(start, start + steps):
        set_grads(all_params(opt), t)
        opt.step()


@pytest.mark.parametrize("name", RULES)
@every_way
def test_same_bits_as_numpy(name, dtype, options):
    """Also through a file midway, and with a gradient that is missing once."""
    if name in ("SGD", "Adagrad") and "state_dtype" in options:
        pytest.skip("there is no state, or sums")
    opt = make(name, dtype, options)
    arrays = [words(p) for p in all_params(opt)]
    if dtype is torch.bfloat16:
        options = {**options, "dtype": "bfloat16"}
    plain = getattr(fastlr, name)(arrays, **RULES[name], **options)
    for t in range(6):
        if t == 3:
            file = io.BytesIO()
            torch.save(opt.state_dict(), file)
            file.seek(0)
            options.pop("dtype", None)
            opt = make(name, dtype, options, all_params(opt))
            opt.load_state_dict(torch.load(file, weights_only=True))
        set_grads(all_params(opt), t)
        if t == 1:
            opt.param_groups[0]["params"][1].grad = None
        plain.step([None if p.grad is None else words(p.grad) for p in all_params(opt)])
        opt.step()
        for p, x in zip(all_params(opt), arrays, strict=True):
            assert np.array_equal(words(p), x), t
    assert opt.state_dict()["state"].keys() <= {0, 1, 2}


def test_state_is_stored_as_asked():
    kinds = {}
    for state_dtype in ("float32", "bfloat16", "int8"):
        opt = make("AdamW", torch.bfloat16, {"state_dtype": state_dtype})
        walk(opt, 1)
        kinds[state_dtype] = opt.state[all_params(opt)[0]]["exp_avg"]
    assert [x.dtype for x in kinds.values()] == [torch.float32, torch.bfloat16, torch.uint8]
    assert [x.nbytes for x in kinds.values()] == [20_000, 10_000, 5504]
    opt = make("SGD", torch.bfloat16, {"master": "split"})
    walk(opt, 1)
    assert [{key: x.dtype for key, x in slot.items()} for slot in opt.state.values()] == [{"low": torch.int16}] * 3


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
@every_way
def test_copies_go_on_alike(how, dtype, options):
    opt = make("AdamW", dtype, options)
    walk(opt, 2)
    other = copy.deepcopy(opt) if how == "deepcopy" else pickle.loads(pickle.dumps(opt))
    for x in (opt, other):
        walk(x, 2, start=2)
    assert_same_bits(bits(opt), bits(other))


@every_way
def test_in_backward_makes_the_same_bits(dtype, options):
    a, b = make("AdamW", dtype, options), make("AdamW", dtype, {**options, "in_backward": True})
    for t in range(3):
        set_grads(all_params(a), t)
        grads = [p.grad for p in all_params(a)]
        a.step()
        torch.autograd.backward(all_params(b), grads)
        b.step()
        assert all(p.grad is None for p in all_params(b))
    assert_same_bits(bits(a), bits(b))


def test_rprops_last_gradient_in_bfloat16():
    params = parameters(torch.float32)
    opt, plain = ours.Rprop(params, state_dtype="bfloat16"), ours.Rprop([p.detach().clone() for p in params])
    for x in (opt, plain):
        walk(x, 3)
    assert [opt.state[params[0]][key].dtype for key in ("prev", "step_size")] == [torch.bfloat16, torch.float32]
    for p, q in zip(params, all_params(plain), strict=True):
        assert torch.equal(p, q)


def test_channels_last():
    a, b = parameters(torch.bfloat16, (4, 3, 5, 5)), parameters(torch.bfloat16, (4, 3, 5, 5))
    b[0].data = b[0].data.contiguous(memory_format=torch.channels_last)
    opts = [ours.AdamW(params, lr=0.1, master="float32") for params in (a, b)]
    for opt in opts:
        walk(opt, 2)
    assert torch.equal(a[0], b[0])
    b[0].data = b[0].data.contiguous()
    for opt in opts:
        walk(opt, 2, start=2)
    assert torch.equal(a[0], b[0])


def test_blocks_of_8_bits_have_the_order_of_memory():
    (p,) = parameters(torch.float32, (64, 64, 2, 2))
    opt = ours.AdamW([p], state_dtype="int8")
    walk(opt, 1)
    before = bits(opt)
    p.data = p.data.contiguous(memory_format=torch.channels_last)
    with pytest.raises(ValueError, match=r"params\[0\] must be contiguous for state_dtype='int8'"):
        walk(opt, 1)
    assert_same_bits(bits(opt), before)


def test_several_dtypes():
    """What only halves have a use for is theirs alone."""
    params = [*parameters(torch.bfloat16, (40,)), *parameters(torch.float32, (30,))]
    opt = ours.AdamW(params, lr=0.1, rounding="kahan")
    walk(opt, 1)
    assert [list(slot) for slot in opt.state.values()] == [
        ["step", "exp_avg", "exp_avg_sq", "lost"],
        ["step", "exp_avg", "exp_avg_sq"],
    ]


def test_chance_does_not_depend_on_who_has_a_gradient():
    """Nor on the optimizer's being made anew, at a parameter's first gradient."""
    a, b = (make("SGD", torch.bfloat16, {"rounding": "stochastic"}) for _ in range(2))
    for t in range(4):
        for opt, some in ((a, slice(3)), (b, slice(2, 3) if t < 2 else slice(3))):
            opt.zero_grad()
            set_grads(all_params(opt), t)
            for k in {0, 1, 2} - set(range(3)[some]):
                all_params(opt)[k].grad = None
            opt.step()
    assert torch.equal(all_params(a)[2], all_params(b)[2])


def test_norms_and_scales():
    a, b = parameters(torch.float16), parameters(torch.float32)
    for p, q in zip(a, b, strict=True):
        q.data = p.data.float()
    opt, wide = ours.SGD(a, lr=0.1, clip_norm=0.5, master="float32"), ours.SGD(b, lr=0.1, clip_norm=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    set_grads(a, 0)
    for p, q in zip(a, b, strict=True):
        q.grad = p.grad.float() / 8
    scaler.scale(torch.ones(()))
    scaler.step(opt)
    wide.step()
    assert opt.report.grad_norm == pytest.approx(wide.report.grad_norm)
    for p, q in zip(a, b, strict=True):
        assert torch.equal(p, q.to(torch.float16))


def test_flatten():
    models = [torch.nn.Linear(30, 20, dtype=torch.bfloat16) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    flat = ours.flatten(models[1])
    opts = ours.AdamW(models[0].parameters(), lr=0.1), ours.AdamW(flat, lr=0.1)
    for model, opt in zip(models, opts, strict=True):
        for _ in range(3):
            opt.zero_grad()
            model(torch.ones(2, 30, dtype=torch.bfloat16)).square().sum().backward()
            opt.step()
    assert_same_bits(list(models[0].parameters()), list(models[1].parameters()))


# ---- checkpoints ----------------------------------------------------------------------------------------------------


def test_exchange_with_torch():
    """Whose state is of the parameters' dtype."""
    theirs, mine = torch.optim.AdamW(parameters(torch.bfloat16)), make("AdamW", torch.bfloat16, {})
    narrow = make("AdamW", torch.bfloat16, {"state_dtype": "bfloat16"})
    for opt in (theirs, mine):
        walk(opt, 2)
    narrow.load_state_dict(theirs.state_dict())
    assert_same_bits(bits(narrow)[3:], bits(theirs)[3:])
    before = bits(mine)
    with pytest.raises(TypeError, match=r"state\['exp_avg'\] of params\[0\] must be torch.float32 .* state_dtype"):
        mine.load_state_dict(theirs.state_dict())
    assert_same_bits(bits(mine), before)
    theirs.load_state_dict(narrow.state_dict())
    walk(theirs, 1, start=2)


@pytest.mark.parametrize("other", [{}, {"state_dtype": "int8"}, {"rounding": "stochastic", "seed": 1}, {"ema": 0.9}])
def test_loading_what_is_stored_otherwise(other):
    a = make("AdamW", torch.bfloat16, {"rounding": "stochastic"})
    b = make("AdamW", torch.bfloat16, other)
    walk(a, 2)
    walk(b, 1)
    before, saved = bits(b), a.state_dict()
    with pytest.raises(ValueError, match="storage of the checkpoint must be"):
        b.load_state_dict(saved)
    assert_same_bits(bits(b), before)


@pytest.mark.parametrize("options", [{"state_dtype": "int8"}, {"master": "float32"}])
def test_loading_state_that_does_not_fit(options):
    """Without the word on how it is stored, as some tools save it, each tensor says so."""
    a, b = make("AdamW", torch.bfloat16, options), make("AdamW", torch.bfloat16, options)
    walk(a, 1)
    saved = a.state_dict()
    del saved["storage"]
    key = "master" if "master" in options else "exp_avg"
    saved["state"][0][key] = saved["state"][0][key].to(torch.float16)
    with pytest.raises(TypeError, match=rf"state\['{key}'\] of params\[0\] must be"):
        b.load_state_dict(saved)
    assert not b.state


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dtype", "options", "message"),
    [
        ("AdamW", torch.float64, {"state_dtype": "int8"}, "state_dtype must be 'float32', the default, for float64"),
        ("AdamW", torch.complex64, {"state_dtype": "int8"}, "must be 'float32' and ema None for complex parameters"),
        ("AdamW", torch.float16, {"master": "split"}, "master='split' needs bfloat16 parameters"),
        ("AdamW", torch.bfloat16, {"master": "double"}, "master must be"),
        ("AdamW", torch.float32, {"state_dtype": "float16"}, "state_dtype must be"),
        ("AdamW", torch.bfloat16, {"master": "float32", "rounding": "kahan"}, "rounding must be 'nearest' with master"),
        ("DoG", torch.float32, {"state_dtype": "int8"}, "state_dtype must be 'float32' for DoG"),
        ("Adafactor", torch.bfloat16, {}, "Adafactor has float32 or float64 parameters and state"),
    ],
)
def test_refused_at_once(name, dtype, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        getattr(ours, name)([torch.nn.Parameter(torch.zeros(4, 3, dtype=dtype))], **options)


def test_sparse_gradients_are_refused():
    (p,) = parameters(torch.bfloat16, (20, 3))
    opt = ours.SGD([p], lr=0.1)
    p.grad = torch.eye(20, dtype=torch.bfloat16)[:, :3].to_sparse(1)
    before = p.detach().clone()
    with pytest.raises(TypeError, match=r"grads\[0\] must be dense for parameters or state in fewer bits"):
        opt.step()
    assert torch.equal(p, before)
    assert not opt.state
