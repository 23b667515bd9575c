"""Numbers in fewer bits: exactness, rounding, and what must be the same as in float32."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import fastlr
from fastlr import _core, functional
from fastlr.precision import Packed, to_bfloat16, to_float32
from tests.cases import CASES

BLOCK = _core.BLOCK
ISAS = [name for name, runs in _core.isas().items() if runs]
# parameters, gradients, state
STORAGES = [
    ("float32", "float32", "float32"),
    ("float32", "float32", "bfloat16"),
    ("float32", "float32", "int8"),
    ("float32", "bfloat16", "float32"),
    ("float32", "bfloat16", "bfloat16"),
    ("float32", "bfloat16", "int8"),
    ("float32", "float16", "float32"),
    ("float32", "float16", "bfloat16"),
    ("float32", "float16", "int8"),
    ("bfloat16", "bfloat16", "float32"),
    ("bfloat16", "bfloat16", "bfloat16"),
    ("bfloat16", "bfloat16", "int8"),
    ("float16", "float16", "float32"),
    ("float16", "float16", "bfloat16"),
    ("float16", "float16", "int8"),
    ("bfloat16", "float32", "int8"),
    ("float64", "float32", "float32"),  # state is as the arithmetic
    ("float64", "float16", "float32"),
    ("float64", "bfloat16", "float32"),
]
NARROW = [case for case in CASES if case.optimizer.narrows]

ADAMW = next(case for case in CASES if case.id == "AdamW")


@pytest.fixture(autouse=True)
def machine():
    isa, threads, asking = _core.isa(), _core.get_threads(), _core.asks()
    yield
    _core.use_isa(isa)
    _core.set_threads(threads)
    _core.ask(asking)


def build(case, params, **options):
    """Without what some cases add for the Hessian, which is given here."""
    optimizer = case.optimizer.__mro__[1] if case.every else case.optimizer
    return optimizer(params, **{**case.kwargs, **options})


def stored(x, dtype):
    return to_bfloat16(x) if dtype == "bfloat16" else x.astype(dtype)


def values(n, seed=0, spread=2.0):
    """Of either sign and of many magnitudes."""
    rng = np.random.default_rng(seed)
    return (rng.choice([-1, 1], n) * np.exp(rng.normal(0, spread, n))).astype(np.float32)


def precise(case):
    """Whether no state of the rule can be narrowed."""
    states = case.states
    return bool(states) and _core.state_bits(build(case, np.zeros(1)).rule)[1] == 2 ** len(states) - 1


NARROWED = [case for case in NARROW if case.states and not precise(case)]
every_case = pytest.mark.parametrize("case", NARROW, ids=str)
every_narrowed = pytest.mark.parametrize("case", NARROWED, ids=str)
every_pair = pytest.mark.parametrize(
    ("case", "storage"),
    [(case, storage) for case in NARROW for storage in STORAGES if storage[2] == "float32" or case in NARROWED],
    ids=lambda x: "/".join(x) if isinstance(x, tuple) else str(x),
)


def bytes_of(opt, params):
    state = [a.tobytes() for arrays in opt._entries.values() for a in arrays]
    return [p.tobytes() for p in params], state, [a.tobytes() for k in opt._beside.values() for a in k]


def at_offset(x, offset):
    """A copy that starts `offset` elements off a cache line."""
    memory = np.zeros(x.nbytes + 64 + 8 * x.itemsize, np.uint8)
    start = -memory.ctypes.data % 64 + offset * x.itemsize
    y = memory[start : start + x.nbytes].view(x.dtype)
    y[:] = x
    return y


def train(case, storage, n, *, steps=3, offset=0, **options):
    """Parameters after some steps."""
    p, g, state = storage
    params = at_offset(stored(values(n, 1), p), offset)
    opt = build(case, params, lr=0.01, state_dtype=state, dtype="bfloat16", **options)
    for step in range(steps):
        extra = {"hessian": stored(np.abs(values(n, 9)), g)} if case.optimizer.informed else {}
        opt.step(at_offset(stored(values(n, 2 + step), g), (offset * 3) % 7), **extra)
    return opt, params


# ---- the same bits: of all rules; test_stored_bits.py has what is done beside, and splits ----------------------------


@every_pair
def test_bits_do_not_depend_on_instructions_threads_and_offset(case, storage):
    n = 3 * BLOCK + 333
    _core.use_isa("baseline")
    _core.set_threads(1)
    opt, p = train(case, storage, n)
    expected = bytes_of(opt, [p])
    for isa, (threads, offset) in itertools.product(ISAS, [(1, 1), (2, 0), (3, 3)]):
        _core.use_isa(isa)
        _core.set_threads(threads)
        opt, p = train(case, storage, n, offset=offset)
        assert bytes_of(opt, [p]) == expected, (isa, threads, offset)


@pytest.mark.parametrize("n", [1, 255, 256, 257, BLOCK - 1, BLOCK, BLOCK + 1, BLOCK + 255, 2 * BLOCK + 17])
def test_elements_before_do_not_know_what_follows(n):
    """A run of any length has the first elements of a longer one; in 8 bits, up to the last whole block."""
    case = ADAMW
    for state, same in [("bfloat16", n), ("int8", n // 256 * 256 if n >= BLOCK else 0)]:
        longer, shorter = stored(values(3 * BLOCK, 1), "bfloat16"), stored(values(3 * BLOCK, 1), "bfloat16")[:n].copy()
        long = build(case, longer, lr=0.01, state_dtype=state, dtype="bfloat16")
        short = build(case, shorter, lr=0.01, state_dtype=state, dtype="bfloat16")
        for step in range(3):
            g = stored(values(3 * BLOCK, 2 + step), "bfloat16")
            long.step(g)
            short.step(g[:n])
        np.testing.assert_array_equal(shorter[:same], longer[:same])


every_inlined = pytest.mark.parametrize(
    "case", [c for c in NARROWED if c.id in ("AdamW", "Lion", "SGD-momentum")], ids=str
)
# Options of an optimizer and of its steps: by the inlined loops, and by tiles.
INLINED: list[tuple[dict[str, float], dict[str, bool]]] = [({}, {}), ({}, {"zero_grads": True}), ({"ema": 0.5}, {})]


@every_inlined
@pytest.mark.parametrize("storage", [s for s in STORAGES if "float16" not in s and s[2] != "float32"], ids="/".join)
@pytest.mark.parametrize("isa", ISAS)
def test_loops_with_storage_inlined_do_what_tiles_do(case, storage, isa):
    """Also where gradients are zeroed, and whatever is asked for ahead. A running mean goes by tiles."""
    _core.use_isa(isa)
    n = 3 * BLOCK + 333
    params = [stored(values(n, 1), storage[0]) for _ in INLINED]
    options = {"lr": 0.01, "state_dtype": storage[2], "dtype": "bfloat16", "weight_decay": 0.1}
    opts = [build(case, p, **options, **ways[0]) for p, ways in zip(params, INLINED, strict=True)]
    for step in range(4):
        for k, (opt, (_, ways)) in enumerate(zip(opts, INLINED, strict=True)):
            _core.ask(_core.ASKINGS[(step + k) % 3])
            g = stored(values(n, 2 + step), storage[1])
            opt.step(g, **ways)
            assert g.any() != ways.get("zero_grads", False)
    first, *others = [bytes_of(opt, [p])[:2] for opt, p in zip(opts, params, strict=True)]
    assert all(other == first for other in others)


def held_alike(params, opts):
    """The parameters and states of the first of two optimizers, which the other must hold too."""
    first, second = (
        [p, *(x for key in opt.states for x in opt._entries[key])] for p, opt in zip(params, opts, strict=True)
    )
    for mine, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(mine, other)
    return first


def nans_of(halves):
    """The bfloat16 NaN that are among them, as bits."""
    return set(halves[halves & 0x7FFF > 0x7F80])


# NaN that rounding would carry out of, others, and infinities; their upper halves
ODD_BITS = np.uint32([0x7FFFFFFF, 0xFFFFFFFF, 0x7FFF0000, 0xFFFF0000, 0x7FC00000, 0xFFC00000, 0x7F800000, 0xFF800000])
ODD = {"float32": np.tile(ODD_BITS.view(np.float32), 20), "bfloat16": np.tile((ODD_BITS >> 16).astype(np.uint16), 20)}


@every_inlined
@pytest.mark.parametrize("storage", [s for s in STORAGES if "float16" not in s and s[2] != "float32"], ids="/".join)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("weight_decay", [0, 0.1])
def test_every_nan_becomes_one(case, storage, isa, weight_decay):
    """Of parameters, gradients and states, whether loops have storage inlined or go by tiles."""
    _core.use_isa(isa)
    n = 3 * BLOCK + 333
    where = np.random.default_rng(7).choice(n - 3, (2, 20 * len(ODD_BITS)), replace=False)
    p = stored(values(n, 1), storage[0])
    p[where[0]] = ODD[storage[0]]
    q = p.copy()
    options = {"lr": 0.01, "state_dtype": storage[2], "dtype": "bfloat16", "weight_decay": weight_decay}
    opts = [build(case, p, **options), build(case, q, **options, ema=0.5)]
    for step in range(3):
        g = stored(values(n, 2 + step), storage[1])
        g[where[1] + step] = ODD[storage[1]]
        for opt in opts:
            opt.step(g)
    for held in held_alike([p, q], opts):
        if held.dtype == np.uint16:
            assert nans_of(held) == {0x7FC0}


@every_inlined
@pytest.mark.parametrize("storage", [s for s in STORAGES if s[1] == "bfloat16" and s[2] != "float32"], ids="/".join)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("place", [BLOCK, BLOCK + 255])
def test_one_nan_among_small_numbers_is_found(case, storage, isa, place):
    """In either half of a word, where loops look at all of a quantum at once: a parameter, a gradient, and both."""
    _core.use_isa(isa)
    for odd_p, odd_g in [(True, False), (False, True), (True, True)]:
        p, g = (stored(values(2 * BLOCK, k, 0.01), half) for k, half in zip((1, 2), storage[:2], strict=True))
        if odd_p:
            p[place] = ODD[storage[0]][1]
        if odd_g:
            g[place] = ODD[storage[1]][1]
        q = p.copy()
        options = {"lr": 0.01, "state_dtype": storage[2], "dtype": "bfloat16"}
        opts = [build(case, p, **options), build(case, q, **options, ema=0.5)]
        for opt in opts:
            opt.step(g)
        for held in held_alike([p, q], opts):
            if held.dtype == np.uint16:
                assert nans_of(held) <= {0x7FC0}


# ---- what each storage is -------------------------------------------------------------------------------------------


@every_case
@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_a_step_is_that_of_float32_rounded_once(case, half):
    """From the same inputs: parameters, gradients, and where it is narrowed too the state."""
    n = 2 * BLOCK + 5
    p, g = values(n, 1, 1), values(n, 2, 1)
    narrow_p, narrow_g = stored(p, half), stored(g, half)
    wide_p, wide_g = to_float32(narrow_p), to_float32(narrow_g)
    extra = {"hessian": np.abs(wide_g)} if case.optimizer.informed else {}
    narrow = build(case, narrow_p, lr=0.01, dtype="bfloat16")
    narrow.step(narrow_g, **extra)
    wide = build(case, wide_p, lr=0.01)
    wide.step(wide_g, **extra)
    np.testing.assert_array_equal(narrow_p, stored(wide_p, half))
    for key in narrow.states:
        np.testing.assert_array_equal(narrow.state[key], wide.state[key])


@pytest.mark.parametrize("case", [c for c in NARROWED if not any(map(c.initial, c.states))], ids=str)
def test_bfloat16_state_is_the_new_one_rounded_once(case):
    n = BLOCK + 5
    p, g = values(n, 1, 1), values(n, 2, 1)
    q = p.copy()
    extra = {"hessian": np.abs(g)} if case.optimizer.informed else {}
    narrow, wide = build(case, p, lr=0.01, state_dtype="bfloat16"), build(case, q, lr=0.01)
    narrow.step(g, **extra)
    wide.step(g, **extra)
    np.testing.assert_array_equal(p, q)  # the step uses the state before it is rounded
    for j, key in enumerate(narrow.states):
        keeps = _core.state_bits(narrow.rule)[1] >> j & 1
        np.testing.assert_array_equal(narrow.state[key], wide.state[key] if keeps else to_bfloat16(wide.state[key]))


@pytest.mark.parametrize("case", [c for c in NARROWED if not any(map(c.initial, c.states))], ids=str)
@pytest.mark.parametrize("storage", [s for s in STORAGES if s[2] != "float32"], ids="/".join)
def test_the_first_step_does_not_know_how_state_is_stored(case, storage):
    """It uses the new state before that is rounded, and was 0 before; what it leaves differs."""
    n = 2 * BLOCK + 300
    start, g = stored(values(n, 1, 1), storage[0]), stored(values(n, 2, 1), storage[1])
    extra = {"hessian": np.abs(g) if g.dtype != np.uint16 else g & 0x7FFF} if case.optimizer.informed else {}
    opts, params = [], []
    for state in (storage[2], "float32"):
        params.append(start.copy())
        lr = 1e5 if case.scope == "model" else 1.0  # which such a rule multiplies by its d0
        opts.append(build(case, params[-1], lr=lr, state_dtype=state, dtype="bfloat16"))
        opts[-1].step(g, **extra)
    assert (params[0] != start).any() or case.optimizer is fastlr.Adopt  # whose first step only makes state
    np.testing.assert_array_equal(*params)
    if case.id == "AdamW":
        for opt in opts:
            opt.step(stored(values(n, 3, 1), storage[1]), **extra)
        assert storage[0] != "float32" or (params[0] != params[1]).any()


WITH_EPS = [case for case in NARROW if "eps" in case.optimizer.hypers]


@pytest.mark.parametrize("case", WITH_EPS, ids=str)
@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_eps_is_not_narrowed(case, half):
    """float16 has no 1e-8. Against float32, with gradients of that size, so that ε is a good part of what divides."""
    n = 600
    p = values(n, 1, 1)
    g = np.tile(np.float32([0, 6e-8, -1.2e-7, 2.4e-7]), n // 4)
    if half == "bfloat16":
        g *= np.float32(0.1)
    narrow_p, narrow_g = stored(p, half), stored(g, half)
    wide_p, wide_g = to_float32(narrow_p), to_float32(narrow_g)
    moved = []
    for eps in (1e-8, 1e-9):
        q, wide_q = narrow_p.copy(), wide_p.copy()
        narrow = build(case, q, lr=0.5, eps=eps, dtype="bfloat16")
        wide = build(case, wide_q, lr=0.5, eps=eps)
        for _ in range(2):
            extra = {"hessian": np.abs(wide_g)} if case.optimizer.informed else {}
            wide_q[:] = to_float32(q)
            narrow.step(narrow_g, **extra)
            wide.step(wide_g, **extra)
            assert np.isfinite(to_float32(q)).all()
            np.testing.assert_array_equal(q, stored(wide_q, half))
            for key in narrow.states:
                np.testing.assert_array_equal(narrow.state[key], wide.state[key])
        moved.append(q)
    if case.id in ("AdamW", "RMSprop", "Adagrad"):
        assert (moved[0] != moved[1]).any()


@pytest.mark.parametrize("half", ["bfloat16", "float16"])
@pytest.mark.parametrize("options", [{}, {"master": "float32"}, {"state_dtype": "bfloat16"}, {"state_dtype": "int8"},
                                     {"rounding": "stochastic"}], ids=str)  # fmt: skip
def test_gradients_of_0_are_not_divided_by_0(half, options):
    for optimizer in (fastlr.Adam, fastlr.AdamW, fastlr.RMSprop, fastlr.Adagrad, fastlr.AdaBelief, fastlr.LaProp):
        if options.get("state_dtype") and optimizer is fastlr.Adagrad:
            continue  # its sums stay float32
        p = stored(np.ones(2 * BLOCK + 5, np.float32), half)
        decay = {"weight_decay": 0.0}
        opt = optimizer(p, lr=1.0, eps=1e-8, dtype="bfloat16", **decay, **options)
        for _ in range(3):
            opt.step(np.zeros_like(p))
        assert (to_float32(p) == 1).all(), optimizer


@pytest.mark.parametrize(("half", "master"), [("float16", "float32"), ("bfloat16", "float32"), ("bfloat16", "split")])
def test_masters_have_the_eps_of_float32(half, master):
    """Every bit, where eps is as large as the root of v."""
    n = BLOCK + 7
    p = stored(values(n, 1, 1), half)
    wide_p, g = to_float32(p), stored(np.tile(np.float32([6e-8, -1.2e-7, 2.4e-7]), n // 3 + 1)[:n], half)
    narrow = fastlr.AdamW(p, lr=0.1, eps=1.23e-7, dtype="bfloat16", master=master)
    wide, other = fastlr.AdamW(wide_p, lr=0.1, eps=1.23e-7), wide_p.copy()
    for _ in range(3):
        narrow.step(g)
        wide.step(to_float32(g))
    fastlr.AdamW(other, lr=0.1, eps=float(to_float32(stored(np.float32([1.23e-7]), half))[0])).step(to_float32(g))
    kept = narrow._beside["master"][0] if master == "float32" else joined(p, narrow)
    np.testing.assert_array_equal(kept, wide_p)
    first = to_float32(stored(values(n, 1, 1), half))
    fastlr.AdamW(first, lr=0.1, eps=1.23e-7).step(to_float32(g))
    assert (first != other).any()  # which eps it is can be seen


def test_bfloat16_is_what_torch_makes():
    torch = pytest.importorskip("torch")
    bits = np.concatenate([np.arange(0, 2**32, 65521, dtype=np.uint64).astype(np.uint32), np.uint32([0x7F7FFFFF])])
    x = bits.view(np.float32)
    ours, theirs = to_bfloat16(x), torch.from_numpy(x).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    finite = ~np.isnan(x)
    np.testing.assert_array_equal(ours[finite], theirs[finite])
    assert np.isnan(to_float32(ours[~finite])).all()


@pytest.mark.parametrize("isa", ISAS)
def test_float16_is_what_numpy_makes(isa):
    _core.use_isa(isa)
    every = np.arange(65536, dtype=np.uint16)
    wide = np.empty(65536, np.float32)
    _core.widen("float16", every, wide)
    np.testing.assert_array_equal(wide, every.view(np.float16).astype(np.float32))
    bits = np.arange(0, 2**32, 65521, dtype=np.uint64).astype(np.uint32)
    ties = (wide[:31744].astype(np.float64) + wide[1:31745]) / 2
    x = np.concatenate([bits.view(np.float32), ties.astype(np.float32), np.float32([65519.99, 65520, 2**-25, 2**-24])])
    codes = np.empty(x.size, np.uint16)
    _core.narrow("float16", x, codes)
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16)
    np.testing.assert_array_equal(codes.view(np.float16), expected)


@pytest.mark.parametrize("format", ["bfloat16", "float16"])
@pytest.mark.parametrize("x", [1.001, -3.3333, 7e-5, 1e-6, 2.7e-8])
def test_stochastic_rounding_is_right_on_average(format, x):
    n = 100_000
    x = np.float32(x)
    codes, wide = np.empty(n, np.uint16), np.empty(n, np.float32)
    _core.narrow(format, np.full(n, x), codes, 7)
    _core.widen(format, codes, wide)
    found = np.unique(wide)
    assert len(found) == 2
    assert found[0] < x < found[1]
    deviation = wide.astype(np.float64)
    assert abs(deviation.mean() - np.float64(x)) <= 3 * deviation.std() / np.sqrt(n)


def test_stochastic_rounding_keeps_what_needs_none():
    x = np.float32([0, -0.0, 1, -2, np.inf, -np.inf, 2**-24, 2**-130])
    np.testing.assert_array_equal(to_bfloat16(x, 5), to_bfloat16(x))
    assert np.isnan(to_float32(to_bfloat16([np.nan], 5))).all()


def test_stochastic_rounding_depends_on_seed_and_step():
    case = ADAMW
    bf16 = ("bfloat16", "bfloat16", "float32")
    _, first = train(case, bf16, 5000, rounding="stochastic")
    _, again = train(case, bf16, 5000, rounding="stochastic", seed=0)
    _, other = train(case, bf16, 5000, rounding="stochastic", seed=1)
    np.testing.assert_array_equal(first, again)
    assert 0.1 < np.mean(first != other) < 0.9
    x = np.full(5000, 1.001, np.float32)
    assert 0.1 < np.mean(to_bfloat16(x, 1) != to_bfloat16(x, 2)) < 0.9


def joined(upper, opt):
    """float32 parameters, of which the lower halves are kept beside."""
    return (upper.astype(np.uint32) << 16 | opt._beside["low"][0]).view(np.float32)


@every_case
def test_split_parameters_train_as_float32(case):
    n = BLOCK + 77
    p = values(n, 1, 1)
    upper = (p.view(np.uint32) >> 16).astype(np.uint16)
    p = (upper.astype(np.uint32) << 16).view(np.float32)  # what the upper halves say
    wide, narrow = build(case, p, lr=0.01), build(case, upper, lr=0.01, dtype="bfloat16", master="split")
    for step in range(4):
        g = values(n, 2 + step)
        extra = {"hessian": np.abs(g)} if case.optimizer.informed else {}
        wide.step(g, **extra)
        narrow.step(g, **extra)
    np.testing.assert_array_equal(joined(upper, narrow), p)


@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_parameters_are_copies_of_their_master(half):
    n = BLOCK + 77
    narrow_p = stored(values(n, 1, 1), half)
    wide_p = to_float32(narrow_p)
    narrow, wide = fastlr.AdamW(narrow_p, master="float32", dtype="bfloat16"), fastlr.AdamW(wide_p)
    for step in range(4):
        g = stored(values(n, 2 + step, 1), half)
        narrow.step(g)
        wide.step(to_float32(g))
    np.testing.assert_array_equal(narrow._beside["master"][0], wide_p)
    np.testing.assert_array_equal(narrow_p, stored(wide_p, half))


@pytest.mark.parametrize(("half", "ulp"), [("bfloat16", 2**-8), ("float16", 2**-11)])
@pytest.mark.parametrize("start", [1.0, 2.0**-10])
def test_kahan_keeps_small_steps_that_rounding_loses(half, ulp, start):
    """Of small parameters too: what they lose is below what float16 can hold."""
    p, q = stored(np.full(100, start), half), stored(np.full(100, start), half)
    g = stored(np.full(100, 1e-4), half)
    plain = fastlr.SGD(p, lr=start, dtype="bfloat16")
    kahan = fastlr.SGD(q, lr=start, dtype="bfloat16", rounding="kahan")
    for _ in range(1000):
        plain.step(g)
        kahan.step(g)
    assert (to_float32(p) == start).all()
    np.testing.assert_allclose(to_float32(q), 0.9 * start, rtol=ulp)


@every_case
@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_kahan_adds_what_rounding_lost(case, half):
    """Before each step, in float32; what is lost is a bfloat16, and nothing where a parameter overflows."""
    n = BLOCK + 77
    p = stored(values(n, 1, 1), half)
    p[:2] = stored(np.float32([65000, -65000]), half)
    lost, wide = np.zeros(n, np.uint16), to_float32(p)
    kahan, plain = build(case, p, lr=0.01, dtype="bfloat16", rounding="kahan"), build(case, wide, lr=0.01)
    for step in range(4):
        np.add(to_float32(p), to_float32(lost), out=wide)
        g = stored(values(n, 2 + step, 1), half)
        extra = {"hessian": np.abs(to_float32(g))} if case.optimizer.informed else {}
        kahan.step(g, **extra)
        plain.step(to_float32(g), **extra)
        with np.errstate(over="ignore", invalid="ignore"):
            new = stored(wide, half)
            rest = wide - to_float32(new)
        lost = to_bfloat16(np.where(np.isfinite(rest), rest, np.float32(0)))
        np.testing.assert_array_equal(p, new)
        np.testing.assert_array_equal(kahan._beside["lost"][0], lost)
    assert np.count_nonzero(lost & 0x7FFF) > n / 2


# ---- float64 with gradients in fewer bits ---------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_float64_takes_narrower_gradients(case, dtype):
    """As their values; and they are zeroed where they lie."""
    p, q = (np.linspace(-1, 1, 70 * 72).reshape(70, 72) for _ in range(2))
    opt, plain = build(case, p, lr=0.01, dtype="bfloat16"), build(case, q, lr=0.01)
    if case.optimizer is fastlr.Adafactor:
        with pytest.raises(TypeError, match="grads: expected float64"):
            opt.step(stored(q.astype(np.float32), dtype))
        return
    for step in range(3):
        g = stored(values(p.size, 2 + step, 1).reshape(p.shape), dtype)
        wide = to_float32(g).astype(np.float64)
        extra = [{"hessian": np.abs(x)} if case.optimizer.informed else {} for x in (to_float32(g), wide)]
        before = g.copy()
        report = opt.step(g, clip_norm=0.5, zero_grads=step == 2, **extra[0])
        assert report.grad_norm == plain.step(wide, clip_norm=0.5, **extra[1]).grad_norm
        np.testing.assert_array_equal(g, 0 if step == 2 else before)
    np.testing.assert_array_equal(p, q)
    for key in opt.states:
        np.testing.assert_array_equal(opt.state[key], plain.state[key])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_float64_finds_what_is_not_finite_in_narrower_gradients(dtype):
    p = np.ones(BLOCK + 5)
    g = stored(np.ones(p.size, np.float32), dtype)
    g[-1] = stored(np.float32([np.inf]), dtype)[0]
    assert fastlr.AdamW(p, dtype="bfloat16", nonfinite="skip").step(g).skipped
    assert (p == 1).all()


@pytest.mark.parametrize("held", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_is_wrong_with_a_gradient_of_another_dtype_is_not_its_dtype(held, dtype):
    opt = fastlr.AdamW(stored(np.ones((4, 6), np.float32), held), dtype="bfloat16")
    g = stored(np.ones((4, 6), np.float32), dtype)
    with pytest.raises(ValueError, match=r"grads: expected shape \(4, 6\) to match the parameter, got \(6, 4\)"):
        opt.step(g.reshape(6, 4))
    with pytest.raises(BufferError, match="grads must be C-contiguous"):
        opt.step(stored(np.ones((4, 12), np.float32), dtype)[:, ::2])
    g.flags.writeable = False
    with pytest.raises(BufferError, match="grads must be writable"):
        opt.step(g, zero_grads=True)
    assert opt.step(g).step == 1


def test_float64_is_rounded_once():
    """On the way to bfloat16 or float16: not to float32 first, where what is next to the middle would become that."""
    codes = np.arange(0x3F80, 0x3F90, dtype=np.uint16)
    low, high = to_float32(codes).astype(np.float64), to_float32(codes + np.uint16(1)).astype(np.float64)
    middle = (low + high) / 2
    for x, expected in [
        (middle * (1 - 2**-50), codes),
        (middle * (1 + 2**-50), codes + 1),
        (middle, codes + codes % 2),
        (-middle * (1 + 2**-50), codes + 1 + 0x8000),
    ]:
        np.testing.assert_array_equal(to_bfloat16(x), expected)
    ends = np.array([0.0, -0.0, 1e-300, 1e300, -np.inf, 2**-133, 2**-134, 1.01 * 2**-134])
    np.testing.assert_array_equal(
        to_float32(to_bfloat16(ends)), np.float32([0, -0.0, 0, np.inf, -np.inf, 2**-133, 0, 2**-133])
    )
    assert np.isnan(to_float32(to_bfloat16(np.array([np.nan])))).all()
    x = np.concatenate([ends, middle, np.random.default_rng(0).normal(0, 1e-3, 10_000), [65519.99999, 65520, 2**-25]])
    half = np.empty(x.size, np.uint16)
    _core.narrow("float16", x, half)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(half.view(np.float16), x.astype(np.float16))
    with pytest.raises(TypeError, match="x must be float32 to be rounded by chance"):
        _core.narrow("bfloat16", x, half, 3)


def test_muon_sees_narrower_gradients_as_their_values():
    """Its input is made of them in Python."""
    for held, dtype in [
        ("float32", "float16"),
        ("float32", "bfloat16"),
        ("float64", "float32"),
        ("float64", "bfloat16"),
    ]:
        p, q = np.ones((8, 6), held), np.ones((8, 6), held)
        narrow, wide = fastlr.Muon(p, lr=0.1, dtype="bfloat16"), fastlr.Muon(q, lr=0.1)
        for step in range(3):
            g = stored(values(48, step).reshape(8, 6), dtype)
            narrow.step(g)
            wide.step(to_float32(g).astype(held))
        np.testing.assert_array_equal(p, q)


@pytest.mark.parametrize("state", ["bfloat16", "int8"])
def test_kahan_comes_closer_to_float32_than_rounding(state):
    n = BLOCK + 300
    start = to_bfloat16(values(n, 1, 1))
    wide, ends = to_float32(start), {}
    grads = [values(n, 2 + step) for step in range(50)]
    for rounding in ("nearest", "kahan"):
        p = start.copy()
        opt = fastlr.AdamW(p, lr=1e-3, dtype="bfloat16", state_dtype=state, rounding=rounding)
        for g in grads:
            opt.step(g)
        ends[rounding] = to_float32(p)
    opt = fastlr.AdamW(wide, lr=1e-3, state_dtype=state)
    for g in grads:
        opt.step(g)
    error = {rounding: np.abs(x - wide).mean() for rounding, x in ends.items()}
    assert error["kahan"] < 0.5 * error["nearest"]


def test_kahan_at_the_ends():
    """Infinity loses nothing, so that it does not become NaN; nor do the zeros lose their sign."""
    p = to_bfloat16([3.3e38, -3.3e38, 1.0, np.inf, -np.inf, -0.0, 0.0])
    opt = fastlr.SGD(p, lr=1.0, dtype="bfloat16", rounding="kahan")
    opt.step(np.float32([-3e38, 3e38, np.nan, 1, 1, 0, 0]))
    opt.step(np.zeros(7, np.float32))
    found = to_float32(p)
    np.testing.assert_array_equal(found, [np.inf, -np.inf, np.nan, np.inf, -np.inf, 0, 0])
    assert (opt._beside["lost"][0] == 0).all()


# ---- 8 bits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("squares", [False, True])
def test_8_bits_come_close_and_no_square_becomes_0(squares):
    n = 4 * BLOCK
    x = values(n, 3, 4)
    x = x * x if squares else x
    packed, back = np.zeros(_core.packed_size(n), np.uint8), np.empty(n, np.float32)
    _core.pack(x, packed, squares)
    _core.unpack(packed, back, squares)
    largest = np.abs(x).reshape(-1, 256).max(1, keepdims=True).repeat(256, 1).reshape(-1)
    if squares:
        assert (back > 0).all()
        normal = x >= largest * 2**-15
        assert (np.abs(back - x)[normal] <= x[normal] / 31).all()
        assert (back[~normal] <= largest[~normal] * 2**-15).all()
    else:
        assert (np.abs(back - x) <= largest / 253).all()
    top = np.abs(x) == largest
    np.testing.assert_allclose(back[top], x[top], rtol=2**-22)


@pytest.mark.parametrize("squares", [False, True])
@pytest.mark.parametrize("kind", ["zeros", "tiny", "denormal", "huge", "nan", "inf"])
def test_8_bits_at_the_ends(squares, kind):
    n = 2 * BLOCK
    x = np.ones(n, np.float32)
    x[:256] = {"zeros": 0, "tiny": 1e-36, "denormal": 1e-44, "huge": 3e38}.get(kind, 1)
    if kind in ("nan", "inf"):
        x[5] = float(kind)
    packed, back = np.zeros(_core.packed_size(n), np.uint8), np.empty(n, np.float32)
    _core.pack(x, packed, squares)
    _core.unpack(packed, back, squares)
    assert (back[256:] == 1).all()
    block = back[:256]
    if kind == "zeros":
        assert (block == 0).all()
    elif kind in ("nan", "inf"):
        assert np.isnan(block).all()
    elif kind == "huge":
        np.testing.assert_allclose(block, x[:256], rtol=1e-6)
    else:
        assert ((block > 0) if squares else (np.abs(block) < 1e-30)).all()


def test_bytes_of_state():
    n = 1 << 20
    expected = {"float32": 8.0, "bfloat16": 4.0, "int8": 2 * (1 + 4 / 256)}
    for dtype, nbytes in expected.items():
        opt = fastlr.Adam(np.zeros(n, np.float32), state_dtype=dtype)
        assert opt.nbytes == nbytes * n
        assert opt.nbytes == sum(a.nbytes for arrays in opt._entries.values() for a in arrays)
    assert expected["int8"] <= 2.1
    half = np.zeros(n, np.uint16)
    kept = {("master", "float32"): 4, ("master", "split"): 2, ("rounding", "kahan"): 2, ("ema", 0.9): 4}
    for (name, x), more in kept.items():
        kwargs = {name: x}
        opt = fastlr.Adam(half, state_dtype="int8", dtype="bfloat16", **kwargs)
        assert opt.nbytes == (expected["int8"] + more) * n


def test_short_buffers_and_tails_stay_float32():
    short = fastlr.Adam([np.zeros(BLOCK - 1, np.float32), np.zeros(BLOCK + 100, np.float32)], state_dtype="int8")
    first, second = (a.nbytes for a in short._entries["m"])
    assert first == -(-4 * (BLOCK - 1) // 64) * 64
    assert second == -(-(BLOCK + BLOCK // 256 * 4 + 100 * 4) // 64) * 64


@pytest.mark.parametrize("case", [c for c in NARROWED if c.scope == "alone"], ids=str)
def test_what_has_no_blocks_trains_as_float32(case):
    """A short array, and what follows the last whole block of a longer one, bit for bit; the blocks do not."""
    tail = 200
    sizes = (BLOCK - 1, BLOCK + tail)
    trained = {}
    for state in ("int8", "float32"):
        params = [values(n, 1 + k, 1) for k, n in enumerate(sizes)]
        opt = build(case, params, lr=0.01, state_dtype=state)
        for step in range(4):
            g = [values(n, 3 + 2 * step + k, 1) for k, n in enumerate(sizes)]
            opt.step(g, **({"hessian": [np.abs(x) for x in g]} if case.optimizer.informed else {}))
        trained[state] = params
    (short, long), (wide_short, wide_long) = trained["int8"], trained["float32"]
    np.testing.assert_array_equal(short, wide_short)
    np.testing.assert_array_equal(long[BLOCK:], wide_long[BLOCK:])
    assert (long[:BLOCK] != wide_long[:BLOCK]).any() or case.id == "Adam-no_average"  # which forgets its state


def test_groups_too_short_for_blocks_train_as_float32():
    """What of one array belongs to a group counts, and each part has a tail."""
    names = {"a": BLOCK - 1, "b": 2 * BLOCK + 100}
    trained = []
    for state in ("int8", "float32"):
        flat = fastlr.FlatBuffer.pack({name: values(n, 1, 1) for name, n in names.items()})
        opt = fastlr.AdamW(flat, groups=[{"match": "a", "lr": 0.02}], lr=0.01, state_dtype=state)
        for step in range(3):
            opt.step(fastlr.FlatBuffer.pack({name: values(n, 2 + step, 1) for name, n in names.items()}))
        trained.append({name: flat[name].copy() for name in names})
    narrow, wide = trained
    np.testing.assert_array_equal(narrow["a"], wide["a"])
    np.testing.assert_array_equal(narrow["b"][2 * BLOCK :], wide["b"][2 * BLOCK :])
    assert (narrow["b"][: 2 * BLOCK] != wide["b"][: 2 * BLOCK]).any()


def code_of(x, top):
    """Of blocks of float32: the factor on the way to the code and the scale on the way back."""
    most = np.abs(x).max(1, keepdims=True)
    bounded = np.maximum(most, np.float32(2.0**-100))
    return np.float32(top) / bounded, np.where(most > 0, bounded / np.float32(top), np.float32(0))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("squares", [False, True])
def test_8_bits_are_the_code_that_is_described(isa, squares):
    """In NumPy: integers to ±127; or floats of 4 + 4 bits, from 2⁻¹⁵ on, without 0 and denormals, ties away from 0."""
    _core.use_isa(isa)
    blocks = np.concatenate([values(2 * BLOCK, 3, spread) for spread in (0.5, 4, 9)]).reshape(-1, 256)
    blocks[3], blocks[4, 1:], blocks[5] = 0, 0, 1e-36
    x, top = (np.square(blocks), 1.9375) if squares else (blocks, 127)
    halfway = np.arange(256) / 64 if squares else np.arange(256) - 127.5
    x[6] = np.clip(halfway, -top, top)  # the largest is the top: these are their own codes, and there are ties
    factor, scale = code_of(x, top)
    y = x * factor
    if squares:
        exponent = np.frexp(y)[1]
        unit = np.ldexp(np.float32(1), np.maximum(exponent, -20) - 5)
        code = np.maximum(np.floor(y / unit + np.float32(0.5)) * unit, np.float32(2.0**-15))
    else:
        code = np.rint(y)
    packed, back = np.zeros(_core.packed_size(x.size), np.uint8), np.empty(x.size, np.float32)
    _core.pack(x.reshape(-1), packed, squares)
    _core.unpack(packed, back, squares)
    np.testing.assert_array_equal(back.reshape(x.shape), code * scale)


@every_case
def test_states_that_must_not_be_narrowed(case):
    p = np.zeros(2 * BLOCK, np.float32)
    if precise(case):
        with pytest.raises(TypeError, match=r"state_dtype must be 'float32'.* for .*, got 'int8'"):
            build(case, p, state_dtype="int8")
    else:
        opt = build(case, p, state_dtype="int8")
        keeps = _core.state_bits(opt.rule)[1]
        for j, key in enumerate(opt.states):
            assert isinstance(opt._layouts[key], Packed) != bool(keeps >> j & 1)


def test_rprops_last_gradient_may_be_bfloat16():
    """Of which the sign is all that counts: the same bits as in float32, for two bytes less."""
    p, q = values(BLOCK + 5, 1), values(BLOCK + 5, 1)
    narrow, wide = fastlr.Rprop(p, lr=0.01, state_dtype="bfloat16"), fastlr.Rprop(q, lr=0.01)
    for step in range(5):
        g = values(p.size, 2 + step, 20)
        narrow.step(g)
        wide.step(g)
        np.testing.assert_array_equal(p, q)
    np.testing.assert_array_equal(narrow.state["s"], wide.state["s"])
    np.testing.assert_array_equal(narrow.state["last"], to_bfloat16(wide.state["last"]))
    assert (narrow.nbytes, wide.nbytes) == (6 * p.size, 8 * p.size)
    s, last = wide.state["s"].copy(), narrow.state["last"].copy()
    functional.rprop(p, g, s, last, step=6, lr=0.01, dtype="bfloat16")
    wide.step(g)
    np.testing.assert_array_equal(p, q)
    with pytest.raises(TypeError, match="state_dtype must be 'float32' or 'bfloat16' for Rprop, got 'int8'"):
        fastlr.Rprop(p, state_dtype="int8")


# ---- what bfloat16 arrives as ---------------------------------------------------------------------------------------


def test_bfloat16_of_torch_is_updated_in_place():
    torch = pytest.importorskip("torch")
    p = torch.linspace(-1, 1, 5000).to(torch.bfloat16)
    g = torch.full((5000,), 0.5, dtype=torch.bfloat16)
    q = to_bfloat16(np.linspace(-1, 1, 5000, dtype=np.float32))
    fastlr.AdamW(p, lr=0.1).step(g)
    fastlr.AdamW(q, lr=0.1, dtype="bfloat16").step(to_bfloat16(np.full(5000, 0.5)))
    np.testing.assert_array_equal(p.view(torch.int16).numpy().view(np.uint16), q)
    x = np.zeros(5000, np.float32)
    fastlr.AdamW(x, lr=0.1).step(g)
    assert (x < 0).all()


def test_bfloat16_of_ml_dtypes_is_updated_in_place():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    p = np.linspace(-1, 1, 5000).astype(ml_dtypes.bfloat16)
    g = np.full(5000, 0.5, ml_dtypes.bfloat16)
    q = p.view(np.uint16).copy()
    fastlr.AdamW(p, lr=0.1).step(g)
    fastlr.AdamW(q, lr=0.1, dtype="bfloat16").step(to_bfloat16(np.full(5000, 0.5)))
    np.testing.assert_array_equal(p.view(np.uint16), q)
    x = np.zeros(5000, np.float32)
    fastlr.AdamW(x, lr=0.1).step(g)
    assert (x < 0).all()


def as_torch(x):
    torch = pytest.importorskip("torch")
    return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)


def as_ml_dtypes(x):
    return x.view(pytest.importorskip("ml_dtypes").bfloat16)


every_arrival = pytest.mark.parametrize(
    ("arrive", "declared"),
    [(as_torch, {}), (as_ml_dtypes, {}), (lambda x: x, {"dtype": "bfloat16"})],
    ids=["torch", "ml_dtypes", "uint16"],
)


@every_arrival
@pytest.mark.parametrize("held", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("state", ["own", "bfloat16"])
def test_functions_take_bfloat16_as_classes_do(arrive, declared, held, state):
    p, q = stored(values(BLOCK, 1, 1), held), stored(values(BLOCK, 1, 1), held)
    wide = {"float64": np.float64}.get(held, np.float32)
    m, v = (np.zeros(BLOCK, np.uint16 if state == "bfloat16" and held != "float64" else wide) for _ in range(2))
    opt = fastlr.AdamW(q, lr=0.01, dtype="bfloat16", state_dtype="bfloat16" if m.dtype == np.uint16 else "float32")
    given = [arrive(x) if x.dtype == np.uint16 else x for x in (p, m, v)]
    for step in range(3):
        g = to_bfloat16(values(BLOCK, 2 + step, 1))
        functional.adamw(given[0], arrive(g), *given[1:], step=step + 1, lr=0.01, **declared)
        opt.step(g)
    np.testing.assert_array_equal(p, q)
    np.testing.assert_array_equal(m, opt.state["m"])
    np.testing.assert_array_equal(v, opt.state["v"])


def test_functions_take_what_classes_take():
    """uint16 only declared, state in fewer bits only where the rule lets it, float16 parameters with float32 state."""
    p, half, wide = np.zeros(5, np.float32), np.zeros(5, np.uint16), np.zeros(5, np.float32)
    with pytest.raises(TypeError, match=r'^p must be .*; say dtype="bfloat16"'):
        functional.sgd(half, wide, step=1, lr=1.0)
    with pytest.raises(TypeError, match=r'grads: .*dtype="bfloat16"'):
        functional.sgd(p, half, step=1, lr=1.0)
    with pytest.raises(TypeError, match=r'^m must be .*; say dtype="bfloat16"'):
        functional.adam(p, wide, half, wide.copy(), step=1, lr=1.0)
    with pytest.raises(ValueError, match="dtype must be one of 'bfloat16', got 'float16'"):
        functional.sgd(half, wide, step=1, lr=1.0, dtype="float16")
    with pytest.raises(TypeError, match="s must be float32 for the rule of Adagrad, got uint16"):
        functional.adagrad(p, wide, half, step=1, dtype="bfloat16")
    with pytest.raises(TypeError, match="Adafactor has float32 or float64 parameters and state"):
        functional.adafactor(np.zeros((2, 2), np.float16), wide, wide, wide, wide, step=1)
    q = np.ones(5, np.float16)
    functional.sgd(q, np.ones(5, np.float16), wide, step=1, lr=0.5, momentum=0.9)
    np.testing.assert_array_equal(q, 0.5)
    np.testing.assert_array_equal(wide, 1)


def bfloat16_of_ml_dtypes():
    return pytest.importorskip("ml_dtypes").bfloat16


@pytest.mark.parametrize(
    "dtype", [lambda: "bfloat16", bfloat16_of_ml_dtypes, lambda: np.uint16], ids=["name", "ml_dtypes", "words"]
)
def test_flat_buffers_know_that_they_are_bfloat16(dtype):
    """As parameters, and as gradients of float32 ones: nothing need be declared."""
    p, wide = fastlr.FlatBuffer({"w": (3, 4), "b": (5,)}, dtype()), fastlr.FlatBuffer({"w": (3, 4), "b": (5,)})
    assert p.dtype == p["w"].dtype == np.uint16
    g = p.like()
    g.data[:] = to_bfloat16(values(17))
    fastlr.SGD(p, lr=0.5).step(g)
    opt = fastlr.SGD(wide, lr=0.5)
    opt.step(g)
    opt.accumulate(g)
    opt.step()
    np.testing.assert_array_equal(wide.data, -to_float32(g.data))
    np.testing.assert_array_equal(p.data, to_bfloat16(-0.5 * to_float32(g.data)))


@pytest.mark.parametrize("arrive", [as_torch, as_ml_dtypes], ids=["torch", "ml_dtypes"])
def test_flat_buffers_pack_bfloat16(arrive):
    x = {"w": to_bfloat16(values(12, 1)).reshape(3, 4), "b": to_bfloat16(values(5, 2))}
    buffer = fastlr.FlatBuffer.pack({name: arrive(a) for name, a in x.items()})
    for name, a in x.items():
        np.testing.assert_array_equal(buffer[name], a)
    over = fastlr.FlatBuffer.over(buffer.shapes, arrive(buffer.data))
    assert over.dtype == np.uint16
    assert np.shares_memory(over["b"], buffer["b"])


def test_uint16_must_be_declared():
    with pytest.raises(TypeError, match='say dtype="bfloat16"'):
        fastlr.Adam(np.zeros(3, np.uint16))
    opt = fastlr.Adam(np.zeros(3, np.float32))
    with pytest.raises(TypeError, match='build the optimizer with dtype="bfloat16"'):
        opt.step(np.zeros(3, np.uint16))
    fastlr.Adam(np.zeros(3, np.float32), dtype="bfloat16").step(np.zeros(3, np.uint16))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"state_dtype": "int4"}, ValueError, "state_dtype must be one of 'float32', 'bfloat16', 'int8', got 'int4'"),
        ({"master": "split"}, TypeError, "master='split' needs bfloat16 parameters"),
        ({"master": "float32"}, TypeError, "master='float32' needs bfloat16 or float16 parameters, got float32"),
        ({"rounding": "kahan"}, TypeError, "rounding='kahan' is of bfloat16 or float16 parameters, got float32"),
        ({"rounding": "stochastic"}, TypeError, "rounding='stochastic' is of bfloat16 or float16 parameters"),
        ({"seed": -1}, ValueError, "seed must be an integer in"),
        ({"ema": 1.0}, ValueError, "ema must be in"),
        ({"denormals": "no"}, ValueError, "denormals must be one of 'keep', 'flush', got 'no'"),
    ],
)
def test_options_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        fastlr.Adam(np.zeros(3, np.float32), **options)


@pytest.mark.parametrize("optimizer", [fastlr.Adafactor, fastlr.Muon, fastlr.LazyAdam, fastlr.RowAdagrad])
def test_rules_that_do_not_narrow_say_so(optimizer):
    with pytest.raises(TypeError, match="has float32 or float64 parameters and state"):
        optimizer(np.zeros((8, 8), np.float16))
    with pytest.raises(TypeError, match="has float32 or float64 parameters and state"):
        optimizer(np.zeros((8, 8), np.float32), state_dtype="bfloat16")


def test_rows_need_float32():
    opt = fastlr.SparseAdam(np.zeros((8, 8), np.float32), state_dtype="bfloat16")
    with pytest.raises(TypeError, match="step_rows needs float32"):
        opt.step_rows(np.array([1]), np.zeros((1, 8), np.float32))


# ---- checkpoints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("half", ["bfloat16", "float16"])
@pytest.mark.parametrize("options", [{}, {"master": "float32"}, {"master": "split"}, {"rounding": "kahan"},
                                     {"rounding": "stochastic", "seed": 3}, {"ema": 0.9}], ids=str)  # fmt: skip
def test_checkpoints_go_on_with_the_same_bits(state, half, options, tmp_path):
    if half == "float16" and options.get("master") == "split":
        options = {"master": "float32", "ema": 0.9}  # float16 is no half of a float32
    p, g = stored(values(5000, 1, 1), half), [stored(values(5000, 2 + k, 1), half) for k in range(4)]
    opt = fastlr.AdamW(p, dtype="bfloat16", state_dtype=state, **options)
    for x in g[:2]:
        opt.step(x)
    opt.save(tmp_path / "a")
    q = p.copy()
    other = fastlr.AdamW(q, dtype="bfloat16", state_dtype=state, **options)
    other.load(tmp_path / "a")
    for x in g[2:]:
        opt.step(x)
        other.step(x)
    assert bytes_of(opt, [p]) == bytes_of(other, [q])


def test_checkpoints_of_other_storage_are_refused():
    def build(**options):
        return fastlr.AdamW(np.zeros(5000, np.uint16), dtype="bfloat16", **options)

    saved = build(state_dtype="int8").state_dict()
    for other in ({"state_dtype": "bfloat16"}, {}, {"state_dtype": "int8", "master": "split"}):
        with pytest.raises(ValueError, match="state_dict"):
            build(**other).load_state_dict(saved)


# ---- what rules say of their states ---------------------------------------------------------------------------------


def test_variants_keep_their_states_as_the_rule_does():
    found = [case.optimizer for case in CASES if "cautious" in case.optimizer.hypers]
    assert len(found) > 10
    for optimizer in found:
        extra = {"momentum": 0.9} if "momentum" in optimizer.hypers else {}
        plain, masked = (optimizer(np.zeros(1), cautious=x, **extra).rule for x in (False, True))
        assert masked == f"{plain}_cautious"
        assert _core.state_bits(masked) == _core.state_bits(plain)


@pytest.mark.parametrize("case", NARROW, ids=str)
def test_states_that_are_said_not_to_be_negative_never_are(case):
    opt = build(case, np.ones(1000, np.float32), lr=0.01)
    squares, _ = _core.state_bits(opt.rule)
    for step in range(5):
        g = values(1000, step)
        opt.step(g, **({"hessian": np.abs(g)} if case.optimizer.informed else {}))
    for j, key in enumerate(opt.states):
        assert not squares >> j & 1 or (opt.state[key] >= 0).all()
