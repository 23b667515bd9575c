"""Bad input: refused before anything is written, with what must hold, what was given and what to do."""

import math
from fractions import Fraction

import numpy as np
import pytest

import fastlr

INF, NAN = math.inf, math.nan


def ones(n=4, dtype=np.float32):
    return np.ones(n, dtype)


def refused(call, error, *parts):
    """`call()` raises `error` with all of `parts` in its message."""
    with pytest.raises(error) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)


# ---- hyper-parameters ------------------------------------------------------------------------------------------------

BAD_NUMBERS = [
    (-0.1, ValueError, ">= 0"),
    (NAN, ValueError, "finite"),
    (INF, ValueError, "finite"),
    (-INF, ValueError, "finite"),
    (True, TypeError, "real number"),
    (np.True_, TypeError, "real number"),
    ("0.1", TypeError, "real number"),
    (None, TypeError, "real number"),
    (1j, TypeError, "real number"),
    ([0.1], TypeError, "real number"),
]

NUMBERS = [
    (fastlr.SGD, "lr"),
    (fastlr.SGD, "momentum"),
    (fastlr.SGD, "weight_decay"),
    (fastlr.Adagrad, "lr"),
    (fastlr.Adagrad, "lr_decay"),
    (fastlr.Adagrad, "initial_accumulator_value"),
    (fastlr.Adagrad, "weight_decay"),
    (fastlr.RMSprop, "lr"),
    (fastlr.RMSprop, "momentum"),
    (fastlr.RMSprop, "weight_decay"),
    (fastlr.Adam, "lr"),
    (fastlr.Adam, "weight_decay"),
    (fastlr.AdamW, "lr"),
    (fastlr.AdamW, "weight_decay"),
    (fastlr.AMSGrad, "lr"),
    (fastlr.AMSGrad, "weight_decay"),
]


@pytest.mark.parametrize(("cls", "name"), NUMBERS, ids=lambda x: getattr(x, "__name__", x))
@pytest.mark.parametrize(
    ("value", "error", "part"), BAD_NUMBERS, ids=lambda x: repr(x) if not isinstance(x, type) else ""
)
def test_numbers(cls, name, value, error, part):
    refused(lambda: cls(ones(), **{name: value}), error, name, part, repr(value))


@pytest.mark.parametrize("cls", [fastlr.Adagrad, fastlr.RMSprop, fastlr.Adam, fastlr.AdamW, fastlr.AMSGrad])
@pytest.mark.parametrize("eps", [0, 0.0, -1e-8, NAN, INF])
def test_eps_is_positive(cls, eps):
    refused(lambda: cls(ones(), eps=eps), ValueError, "eps", repr(eps))


@pytest.mark.parametrize("cls", [fastlr.Adam, fastlr.AdamW, fastlr.AMSGrad])
@pytest.mark.parametrize("beta", [-0.1, 1, 1.5, NAN, INF])
@pytest.mark.parametrize("which", [0, 1])
def test_betas_are_in_range(cls, beta, which):
    betas = (beta, 0.9) if which == 0 else (0.9, beta)
    refused(lambda: cls(ones(), betas=betas), ValueError, f"betas[{which}]", repr(beta))


@pytest.mark.parametrize(
    "betas", [0.9, (0.9,), (0.9, 0.99, 0.999), "ab", None, {0.9, 0.99}, (0.9, "0.99"), (0.9, True)]
)
def test_betas_are_a_pair(betas):
    refused(lambda: fastlr.Adam(ones(), betas=betas), TypeError, "betas")


@pytest.mark.parametrize("alpha", [-0.1, 1, NAN])
def test_alpha_is_in_range(alpha):
    refused(lambda: fastlr.RMSprop(ones(), alpha=alpha), ValueError, "alpha must be", repr(alpha))


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "dampening": 0.1}])
def test_nesterov_needs_momentum_without_dampening(settings):
    refused(lambda: fastlr.SGD(ones(), nesterov=True, **settings), ValueError, "nesterov needs momentum > 0")


@pytest.mark.parametrize("name", ["nesterov", "maximize"])
def test_flags_are_booleans(name):
    refused(lambda: fastlr.SGD(ones(), momentum=0.9, **{name: 1}), TypeError, name, "True or False")


def test_nonfinite_is_a_known_word():
    refused(lambda: fastlr.SGD(ones(), nonfinite="ignore"), ValueError, "'propagate', 'skip', 'raise'", "'ignore'")


def test_unknown_hyper_parameters_are_refused():
    refused(lambda: fastlr.SGD(ones(), learning_rate=0.1), TypeError, "learning_rate", "lr, ")
    opt = fastlr.SGD(ones())
    refused(lambda: setattr(opt.groups[0], "learning_rate", 1), AttributeError, "learning_rate", "lr, ")
    refused(lambda: opt.groups[0].beta, AttributeError, "beta", "momentum")
    refused(lambda: delattr(opt.groups[0], "lr"), AttributeError, "cannot be deleted")


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), np.int64(1), 1, Fraction(1, 2)])
def test_any_real_number_is_a_number(value):
    assert fastlr.SGD(ones(), lr=value).groups[0].lr == float(value)


@pytest.mark.parametrize(
    ("name", "value"), [("lr", -1), ("betas", (0.9, 1)), ("eps", 0), ("weight_decay", "0"), ("lr_scale", NAN)]
)
def test_hyper_parameters_set_later_are_checked_at_the_next_step(name, value):
    p = ones()
    opt = fastlr.AdamW(p)
    opt.step(ones())
    before = p.copy(), {k: s.copy() for k, s in opt.state.items()}
    good = getattr(opt.groups[0], name)
    setattr(opt.groups[0], name, value)
    for _ in range(2):  # and at every one until it is mended
        refused(lambda: opt.step(ones()), (TypeError, ValueError), name)
    np.testing.assert_array_equal(p, before[0])
    for key, s in before[1].items():
        np.testing.assert_array_equal(opt.state[key], s)
    assert opt.step_count == 1
    setattr(opt.groups[0], name, good)
    assert opt.step(ones()).step == 2


def test_hyper_parameters_that_choose_the_state_cannot_change():
    opt = fastlr.SGD(ones())
    opt.groups[0].momentum = 0.9
    refused(lambda: opt.step(ones()), ValueError, "'momentum'", "build a new one")
    opt = fastlr.RMSprop(ones())
    opt.groups[0].centered = True
    refused(lambda: opt.step(ones()), ValueError, "'rmsprop_centered'", "build a new one")


@pytest.mark.parametrize("value", [-1, NAN, INF, "1", None, True])
def test_what_a_schedule_returns_is_checked(value):
    p = ones()
    opt = fastlr.SGD(p, lr=lambda step: value if step == 1 else 0.5)
    opt.step(ones())
    refused(lambda: opt.step(ones()), (TypeError, ValueError), "lr(1)")
    np.testing.assert_array_equal(p, 0.5)
    assert opt.step_count == 1


def test_scalars_must_be_finite_in_float32():
    p = ones()
    refused(lambda: fastlr.SGD(p, lr=1e39).step(ones()), ValueError, "float32", "1e+39")
    refused(lambda: fastlr.SGD(p, lr=1, weight_decay=1e39).step(ones()), ValueError, "float32")
    refused(lambda: fastlr.SGD(p).step(ones(), grad_scale=1e39), ValueError, "float32")
    np.testing.assert_array_equal(p, 1)
    assert fastlr.SGD(ones(dtype=np.float64), lr=1e39).step(ones(dtype=np.float64)).step == 1


@pytest.mark.parametrize("cls", [fastlr.Adagrad, fastlr.RMSprop, fastlr.Adam, fastlr.AdamW, fastlr.AMSGrad])
def test_eps_does_not_vanish_in_float32(cls):
    p = ones()
    cls(p, eps=1e-60, weight_decay=0).step(np.zeros(4, np.float32))
    np.testing.assert_array_equal(p, 1)  # 0 / (0 + eps) is 0; were eps narrowed to 0 it would be NaN


# ---- step's arguments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["grad_scale", "clip_norm"])
@pytest.mark.parametrize("value", [0, -1, NAN, INF, True, "1"])
def test_step_factors_are_positive(name, value):
    p = ones()
    refused(lambda: fastlr.SGD(p).step(ones(), **{name: value}), (TypeError, ValueError), name, repr(value))
    np.testing.assert_array_equal(p, 1)


@pytest.mark.parametrize("value", [1, 0, "yes", None])
def test_zero_grads_is_a_flag(value):
    refused(lambda: fastlr.SGD(ones()).step(ones(), zero_grads=value), TypeError, "zero_grads", "True or False")


# ---- buffers ---------------------------------------------------------------------------------------------------------


def strided():
    return np.ones(8, np.float32)[::2]


def read_only():
    x = ones()
    x.flags.writeable = False
    return x


def unaligned():
    return np.frombuffer(bytearray(17), np.uint8)[1:].view(np.float32)


BAD_BUFFERS = [
    (strided, BufferError, "C-contiguous", "strides (8,)", "ascontiguousarray"),
    (lambda: np.ones((2, 2), np.float32).T, BufferError, "C-contiguous", "ascontiguousarray"),
    (unaligned, BufferError, "aligned", "4 bytes"),
    (lambda: ones(dtype=np.int16), TypeError, "float32", "int16"),
    (lambda: ones(dtype=np.int32), TypeError, "float32", "int32"),
    (lambda: ones(dtype=np.complex64), TypeError, "float32", "complex64"),
    (lambda: ones(dtype=np.dtype(np.float32).newbyteorder()), TypeError, "float32"),
    (lambda: ones(dtype=object), TypeError, "float32", "object"),
    (lambda: np.zeros(4, "datetime64[s]"), TypeError, "float32", "datetime64"),
    (lambda: 1.0, TypeError, "array", "float"),
    (lambda: "ab", TypeError, "array", "str"),
    (lambda: object(), TypeError, "array", "object"),
]


@pytest.mark.parametrize(("make", "error", "parts"), [(m, e, p) for m, e, *p in BAD_BUFFERS])
def test_params_that_cannot_be_updated_in_place(make, error, parts):
    refused(lambda: fastlr.SGD(make()), error, "params", *parts)
    refused(lambda: fastlr.SGD([ones(), make()]), error, "params[1]", *parts)
    refused(lambda: fastlr.SGD({"w": ones(), "b": make()}), error, "params['b']", *parts)


def test_read_only_params():
    refused(lambda: fastlr.SGD([read_only()]), BufferError, "params[0]", "writable", "copy")


@pytest.mark.parametrize(("make", "error", "parts"), [(m, e, p) for m, e, *p in BAD_BUFFERS])
def test_grads_that_cannot_be_read(make, error, parts):
    p, q = ones(), ones()
    opt = fastlr.SGD([p, q], momentum=0.9)
    refused(lambda: opt.step([ones(), make()]), (error, ValueError), "grads[1]")
    np.testing.assert_array_equal([p, q], 1)
    np.testing.assert_array_equal(opt.state["b"], 0)
    assert opt.step_count == 0


def test_read_only_grads_are_read_but_not_zeroed():
    p = ones()
    opt = fastlr.SGD(p, lr=1)
    opt.step(read_only())
    np.testing.assert_array_equal(p, 0)
    refused(lambda: opt.step(read_only(), zero_grads=True), BufferError, "grads", "writable")
    np.testing.assert_array_equal(p, 0)


@pytest.mark.parametrize(
    ("grads", "error", "parts"),
    [
        (np.ones(3, np.float32), ValueError, ("shape (4,)", "(3,)")),
        (np.ones((2, 2), np.float32), ValueError, ("shape (4,)", "(2, 2)")),
        (np.ones((4, 1), np.float32), ValueError, ("shape (4,)", "(4, 1)")),
        (np.ones(4, np.float64), TypeError, ("float32", "float64", "astype")),
        ([np.ones(4, np.float32)], TypeError, ("array", "list")),
    ],
)
def test_grads_of_the_wrong_shape_or_dtype(grads, error, parts):
    p = ones()
    refused(lambda: fastlr.SGD(p).step(grads), error, "grads", *parts)
    np.testing.assert_array_equal(p, 1)


def test_structure_mismatch():
    opt = fastlr.SGD([ones(), ones()])
    refused(lambda: opt.step([ones()]), ValueError, "grads must have 2 entries", "got 1")
    refused(lambda: opt.step({"a": ones(), "b": ones()}), TypeError, "list", "dict")
    refused(lambda: opt.step(ones()), TypeError, "list", "ndarray")
    opt = fastlr.SGD({"w": ones(), "b": ones()})
    refused(lambda: opt.step({"w": ones()}), ValueError, "missing or unknown: b")
    refused(lambda: opt.step({"w": ones(), "b": ones(), "c": ones()}), ValueError, "missing or unknown: c")
    refused(lambda: opt.step([ones(), ones()]), TypeError, "mapping", "list")
    opt = fastlr.SGD(fastlr.FlatBuffer({"w": (4,)}))
    refused(lambda: opt.step(fastlr.FlatBuffer({"v": (4,)})), ValueError, "layout")
    refused(lambda: opt.step(ones(5)), ValueError, "shape (4,)")


def test_params_of_two_dtypes():
    refused(
        lambda: fastlr.SGD([ones(), ones(dtype=np.float64)]), TypeError, "params[1]", "float32", "float64", "each dtype"
    )


@pytest.mark.parametrize("params", [[], {}, (), [{"params": []}], fastlr.FlatBuffer({})])
def test_empty_parameter_list(params):
    if isinstance(params, fastlr.FlatBuffer):
        assert fastlr.SGD(params).step(params.like()).step == 1  # one buffer, of no elements
    else:
        refused(lambda: fastlr.SGD(params), ValueError, "at least one array")


def test_aliased_params():
    x = ones(8)
    for params in ([x, x], [x[:5], x[4:]], [x, x[2:3]], {"a": x, "b": x.reshape(2, 4)}):
        refused(lambda params=params: fastlr.SGD(params), ValueError, "params", "overlap", "share memory")
    fastlr.SGD([x[:4], x[4:]])  # neighbours are not aliases
    fastlr.SGD([x, x[:0], x[3:3]])  # nor are empty views


def test_grads_that_alias_params_or_state():
    x = ones(8)
    opt = fastlr.SGD([x[:4]], momentum=0.9)
    refused(lambda: opt.step([x[:4]]), ValueError, "grads[0]", "params[0]", "overlap")
    refused(lambda: opt.step([x[3:7]]), ValueError, "grads[0]", "params[0]", "overlap")
    refused(lambda: opt.step([opt.state["b"][0]]), ValueError, "grads[0]", "state['b'][0]", "overlap")
    opt.step([x[4:]])
    refused(lambda: opt.step([x[:4]]), ValueError, "overlap")  # found again after a good step


def test_grads_that_alias_each_other_may_be_read_but_not_zeroed():
    opt = fastlr.SGD([ones(), ones()])
    g = ones()
    opt.step([g, g])
    refused(lambda: opt.step([g, g], zero_grads=True), ValueError, "grads[0]", "grads[1]", "overlap")
    np.testing.assert_array_equal(g, 1)


def test_a_bound_array_cannot_be_resized():
    p = ones()
    opt = fastlr.SGD(p)
    with pytest.raises(ValueError, match="resize"):
        p.resize(100)
    del opt


# ---- groups ----------------------------------------------------------------------------------------------------------


def test_bad_groups():
    buf = fastlr.FlatBuffer({"a.weight": (2,), "a.bias": (2,)})
    refused(lambda: fastlr.SGD(buf, groups=[{"match": "*.gamma"}]), ValueError, "groups[0]", "'*.gamma'")
    refused(
        lambda: fastlr.SGD(buf, groups=[{"match": "*"}, {"match": "*.bias"}]),
        ValueError,
        "groups[1]",
        "before the others",
    )
    refused(lambda: fastlr.SGD(buf, groups=[{"lr": 1}]), TypeError, "groups[0]", "match")
    refused(lambda: fastlr.SGD(buf, groups=[{"match": "*", "lr": -1}]), ValueError, "groups[0].lr", "-1")
    refused(lambda: fastlr.SGD(buf, groups=[{"match": "*", "rate": 1}]), TypeError, "groups[0].rate")
    refused(lambda: fastlr.SGD([ones()], groups=[{"match": "*"}]), TypeError, "names")
    refused(lambda: fastlr.SGD([{"params": ones()}], groups=[{"match": "*"}]), ValueError, "one of the two")
    refused(lambda: fastlr.SGD([{"params": ones()}, {"lr": 1}]), TypeError, "groups[1]", "params")
    refused(lambda: fastlr.SGD([{"params": ones(), "lr": NAN}]), ValueError, "groups[0].lr")
    refused(lambda: fastlr.RMSprop([{"params": ones(), "centered": True}, {"params": ones()}]), ValueError, "centered")


# ---- functional ------------------------------------------------------------------------------------------------------


def test_functional_checks_the_same():
    f = fastlr.functional
    p, g, m, v = ones(), ones(), ones(), ones()
    for call, error, part in [
        (lambda: f.adamw(p, g, m, v, step=0), ValueError, "step must be >= 1"),
        (lambda: f.adamw(p, g, m, v, step=1.0), TypeError, "step must be an integer"),
        (lambda: f.adamw(p, g, m, v, step=True), TypeError, "step must be an integer"),
        (lambda: f.adamw(p, g, m, v, step=1, lr=-1), ValueError, "lr"),
        (lambda: f.adamw(p, g, m, v, step=1, lr=lambda n: 1), TypeError, "lr must be a real number"),
        (lambda: f.adamw(p, g, m, m, step=1), ValueError, "state['m'] and state['v'] must not overlap"),
        (lambda: f.adamw(p, p, m, v, step=1), ValueError, "overlap"),
        (lambda: f.adamw(p, g, m, ones(3), step=1), ValueError, "state['v'] must have the size of params"),
        (lambda: f.adamw(p, g, m, ones(dtype=np.float64), step=1), TypeError, "state['v']: expected float32"),
        (lambda: f.adamw(p, ones(3), m, v, step=1), ValueError, "grads: expected shape (4,)"),
        (lambda: f.adamw(read_only(), g, m, v, step=1), BufferError, "writable"),
        (lambda: f.sgd(p, g, m, step=1), ValueError, "state must be none"),
        (lambda: f.sgd(p, g, step=1, momentum=0.9), ValueError, "state must be b"),
        (lambda: f.adamw(p, g, m, v, step=1, maximise=True), TypeError, "maximise"),
        (lambda: f.adamw(p, g, m, v, step=1, grad_scale=0), ValueError, "grad_scale"),
    ]:
        refused(call, error, part)
    for x in (p, g, m, v):
        np.testing.assert_array_equal(x, 1)
