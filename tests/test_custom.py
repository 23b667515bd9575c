"""Rules of the user's own: the bits of the built-in ones where the formula is theirs, and errors at the user's line."""

from __future__ import annotations

import math
import pathlib
import platform
import re
import subprocess
import sys

import numpy as np
import pytest

import fastlr
from fastlr import schedules
from fastlr.custom import average, complement, larger, root, sign, square
from fastlr.hyper import pair_of_betas, positive

pytest.importorskip("numba.extending")

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINE = r'file "[^"]*test_custom.py", line {}'


@fastlr.rule(
    states=("m", "v"),
    squares=("v",),
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=1e-2,
    decoupled=True,
    checks={"betas": pair_of_betas, "eps": positive},
)
def Mine(g, m, v, a1, a2, eps):
    """AdamW by hand."""
    m = average(m, g, a1)
    v = average(v, square(g), a2)
    return m / (root(v) + eps), m, v


@Mine.prepare
def scalars(t, lr, betas, eps):
    c1, c2 = complement(betas[0], t), complement(betas[1], t)
    return lr * (root(c2) / c1), 1 - betas[0], 1 - betas[1], eps * root(c2)


@fastlr.rule(states=("m",), betas=(0.9, 0.99), decoupled=True)
def MyLion(g, m, betas):
    b1, b2 = betas
    c = (1 - b1) * g + b1 * m
    return sign(c), b2 * m + (1 - b2) * g


@fastlr.rule()
def Plain(g):
    return g


@fastlr.rule(states=("x",), pull=0.5)
def Pulled(g, p, x, pull):
    """Sees the parameter, has integers and floats in it, and branches."""
    x = larger(x, abs(g))
    if p > 1:  # noqa: SIM108 - a branch is what is tested
        u = 2 * g + pull * p
    else:
        u = 0.1 * g / (x + 1)
    return u, x


def trained(optimizer, dtype, n=30_000, steps=5, **kwargs):
    random = np.random.default_rng(1)
    p = random.standard_normal(n).astype(dtype)
    opt = optimizer(p, **kwargs)
    for _ in range(steps):
        opt.step((random.standard_normal(n) * 10.0 ** random.integers(-4, 5, n)).astype(dtype), clip_norm=50.0)
    return p, opt


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_adamw_has_the_bits_of_the_built_in(dtype, threads):
    with fastlr.num_threads(threads):
        p, mine = trained(Mine, dtype)
    q, theirs = trained(fastlr.AdamW, dtype)
    np.testing.assert_array_equal(p, q)
    for key in ("m", "v"):
        np.testing.assert_array_equal(mine.state[key], theirs.state[key])


@pytest.mark.parametrize("special", [np.inf, -np.inf, np.nan, 1e30, 1e-42, 0.0])
def test_special_gradients_have_the_bits_of_the_built_in(special):
    g, p, q = np.full(40, special, np.float32), np.ones(40, np.float32), np.ones(40, np.float32)
    mine, theirs = Mine(p), fastlr.AdamW(q)
    for _ in range(2):
        mine.step(g)
        theirs.step(g)
    np.testing.assert_array_equal(p, q)
    np.testing.assert_array_equal(mine.state["v"], theirs.state["v"])


def both(**kwargs):
    """The user's rule and the built-in one after the same steps: parameters."""
    found = []
    for optimizer in (Mine, fastlr.AdamW):
        random = np.random.default_rng(2)
        params = {name: random.standard_normal((40, 30)).astype(np.float32) for name in ("w", "b")}
        opt = optimizer(params, **kwargs)
        for k in range(4):
            grads = {name: random.standard_normal((40, 30)).astype(np.float32) for name in params}
            opt.step({**grads, "b": None} if k == 1 else grads)
        found.append((params, opt))
    (p, mine), (q, theirs) = found
    for name in p:
        np.testing.assert_array_equal(p[name], q[name])
    return mine, theirs


def test_it_has_groups_schedules_and_skipped_tensors():
    mine, _ = both(
        lr=schedules.linear(0.1, 0.01, 10),
        betas=(schedules.linear(0.8, 0.9, 10), 0.99),
        weight_decay=schedules.constant(0.2),
        maximize=True,
        groups=[{"match": "b", "lr": 0.5, "weight_decay": 0.0}],
    )
    mine.groups[0].eps = 0.0
    with pytest.raises(ValueError, match=r"eps must be finite and > 0, got 0\.0"):
        mine.step({"w": np.zeros((40, 30), np.float32), "b": None})


@pytest.mark.parametrize("state_dtype", ["bfloat16", "int8"])
def test_it_has_state_in_fewer_bits(state_dtype):
    p, mine = trained(Mine, np.float32, lr=0.01, state_dtype=state_dtype)
    q, theirs = trained(fastlr.AdamW, np.float32, lr=0.01, state_dtype=state_dtype)
    np.testing.assert_array_equal(p, q)
    assert mine.nbytes == theirs.nbytes < 0.6 * 8 * len(p)


def test_it_has_bfloat16_parameters():
    bits = (np.random.default_rng(3).standard_normal(5000).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    p, q, g = bits.copy(), bits.copy(), bits.copy()
    for optimizer, x in ((Mine, p), (fastlr.AdamW, q)):
        optimizer(x, lr=0.1, dtype="bfloat16").step(g)
    np.testing.assert_array_equal(p, q)
    assert (p != bits).mean() > 0.9


def test_checkpoints_continue_with_the_same_bits(tmp_path):
    p, opt = trained(Mine, np.float32, n=500)
    saved = opt.state_dict()
    assert saved["rule"] == "tests.test_custom.Mine"
    q = p.copy()
    other = Mine(q)
    other.load_state_dict(saved)
    pytest.importorskip("safetensors")
    opt.save(tmp_path / "x.safetensors")
    r = p.copy()
    third = Mine(r)
    third.load(tmp_path / "x.safetensors")
    for x, o in ((p, opt), (q, other), (r, third)):
        o.step(np.full(500, 0.5, np.float32))
        np.testing.assert_array_equal(x, p)


def test_the_function_owns_no_state():
    p, q, g = np.ones(50), np.ones(50), np.linspace(-1, 1, 50)
    m, v = np.zeros(50), np.zeros(50)
    opt = fastlr.AdamW(q, lr=0.1)
    for t in (1, 2):
        Mine.function(p, g, m, v, step=t, lr=0.1)
        opt.step(g)
    np.testing.assert_array_equal(p, q)


def test_zeroing_the_gradients():
    p, g = np.ones(5000, np.float32), np.full(5000, 2, np.float32)
    Plain(p, lr=0.25).step(g, zero_grads=True)
    np.testing.assert_array_equal(p, 0.5)
    np.testing.assert_array_equal(g, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_formula_is_what_numpy_computes_with_its_scalars(dtype):
    """Also where it has literals, integers, branches and tuples: each result rounded to the arrays' type."""
    random = np.random.default_rng(4)
    g, p0 = random.standard_normal((3, 200)).astype(dtype), (2 * random.standard_normal(200)).astype(dtype)
    for optimizer, hyper in ((MyLion, [(0.9, 0.99)]), (Pulled, [0.5])):
        numbers = [tuple(map(dtype, x)) if isinstance(x, tuple) else dtype(x) for x in hyper]
        p, wanted, state = p0.copy(), p0.copy(), np.zeros_like(p0)
        opt = optimizer(p, lr=0.25)
        for step in g:
            opt.step(step)
            for i in range(200):
                seen = [wanted[i]] if optimizer.sees_p else []
                u, state[i] = optimizer.formula(step[i], *seen, state[i], *numbers)
                wanted[i] -= dtype(0.25) * u
        np.testing.assert_array_equal(p, wanted)
        np.testing.assert_array_equal(opt.state[optimizer.states[0]], state)


def test_the_code_is_vectorised_and_contracts_nothing():
    Mine(np.zeros(3, np.float32))
    code = Mine._kept[0][1]._library.get_asm_str()
    assert not re.search(r"\bv?fn?m(add|sub)\d", code)
    if platform.machine() == "x86_64":
        assert re.search(r"\bv?sqrtps\b", code), "one root at a time"


COLD = """
import sys, time
import numpy as np
from bench.engines.rule_ import AdamW

p = np.ones(10, np.float32)
assert "numba" not in sys.modules
start = time.process_time()
AdamW(p, lr=0.1).step(p.copy())
print(time.process_time() - start, p[0])
"""


def test_the_first_step_of_a_process_takes_less_than_three_seconds():
    """Numba's import included; of a processor, which others may be using."""
    done = subprocess.run(
        [sys.executable, "-c", COLD], capture_output=True, text=True, timeout=100, check=True, cwd=ROOT
    )
    seconds, p = map(float, done.stdout.split())
    q = np.ones(10, np.float32)
    fastlr.AdamW(q, lr=0.1).step(q.copy())
    assert np.float32(p) == q[0]
    assert seconds < 3


# ---- errors ---------------------------------------------------------------------------------------------------------


def first_step(optimizer):
    optimizer(np.ones(3, np.float32)).step(np.ones(3, np.float32))


def test_an_error_of_python_is_the_users_own():
    @fastlr.rule(states=("m",))
    def Wrong(g, m):
        return g / unknown, m  # noqa: F821

    with pytest.raises(NameError, match="unknown") as caught:
        first_step(Wrong)
    assert caught.traceback[-1].lineno == Wrong.formula.__code__.co_firstlineno + 1  # counts from 0


def test_what_does_not_compile_is_named_by_its_line():
    @fastlr.rule(states=("m",))
    def Wrong(g, m):
        m = m + g
        u = g * eval("1")
        return u, m

    line = Wrong.formula.__code__.co_firstlineno + 3
    with pytest.raises(TypeError, match=LINE.format(line)):
        first_step(Wrong)


def test_raising_is_refused_by_its_line():
    @fastlr.rule()
    def Wrong(g):
        if g > 1e6:
            raise ValueError("too large")
        return g

    line = Wrong.formula.__code__.co_firstlineno + 3
    with pytest.raises(TypeError, match=LINE.format(line) + ".*a rule must not raise"):
        first_step(Wrong)


def test_a_wrong_number_of_results_is_refused():
    @fastlr.rule(states=("m",))
    def Wrong(g, m):
        return g

    with pytest.raises(TypeError, match=LINE.format(r"\d+") + r"\) must return u, m, got 1 values"):
        first_step(Wrong)

    @fastlr.rule(a=1.0)
    def Unprepared(g, b):
        return b * g

    with pytest.raises(TypeError, match=r"'b' must be g, p, a state or a hyper-parameter.*there are a"):
        first_step(Unprepared)

    @Unprepared.prepare
    def few(t, lr, a):
        return lr

    with pytest.raises(TypeError, match=r"must return the rate, b, got 1 values"):
        first_step(Unprepared)


def test_a_kernel_that_differs_from_the_function_is_refused():
    """As where a function that it calls is another for Numba."""

    numba = pytest.importorskip("numba")

    def direction():
        return 1

    numba.extending.overload(direction)(lambda: lambda: -1)

    @fastlr.rule()
    def Changing(g):
        return direction() * g

    with pytest.raises(RuntimeError, match=r"test_custom\.py"):
        first_step(Changing)


def test_wrong_declarations_are_refused():
    with pytest.raises(TypeError, match="must take g, m first, got g, v"):
        fastlr.rule(states=("m",))(lambda g, v: (g, v))
    with pytest.raises(ValueError, match="states must be at most 5, got 6"):
        fastlr.rule(states="abcdef")
    with pytest.raises(ValueError, match="squares must be states, got v"):
        fastlr.rule(squares=("v",))
    with pytest.raises(ValueError, match="checks: no hyper-parameter eps; there are none"):
        fastlr.rule(checks={"eps": positive})
    with pytest.raises(ValueError, match="hyper-parameters must be at most 9 numbers"):
        fastlr.rule(a=(0.0,) * 10)(lambda g, a: g)
    with pytest.raises(TypeError, match="must take t and lr first, got lr"):
        Mine.prepare(lambda lr: lr)
    with pytest.raises(TypeError, match="no hyper-parameter 'rho'; there are betas, eps"):
        Mine.prepare(lambda t, lr, rho: lr)
    first_step(Plain)
    with pytest.raises(RuntimeError, match="before the first use of Plain"):
        Plain.prepare(lambda t, lr: lr)
    with pytest.raises(TypeError, match="betas must be 2 numbers"):
        MyLion(np.zeros(2), betas=0.9)
    with pytest.raises(
        TypeError, match="nu: unknown hyper-parameter; there are lr, lr_scale, weight_decay, betas, eps"
    ):
        Mine(np.zeros(2), nu=1)


def test_the_python_functions_are_the_kernels():
    for x in (np.float32(1e30), np.float64(1e200), np.float32(3), np.float64(-2)):
        assert type(square(x)) is type(x)
        assert math.isfinite(square(x))
    assert math.isnan(square(np.float32(np.nan)))
    assert complement(0.999, 1) == 1 - 0.999
    assert complement(0.9, 1000) == 1
    assert math.isnan(larger(np.float32(np.nan), np.float32(1)))
    assert sign(np.float64(-0.5)) == -1


# ---- numbers carried, rows -------------------------------------------------------------------------------------------


@fastlr.rule(states=("m", "v"), betas=(0.9, 0.999), eps=1e-8, psi=0.004, carried={"product": 1.0})
def MyNAdam(g, m, v, a1, a2, of_m, of_g, eps):
    m = average(m, g, a1)
    v = average(v, square(g), a2)
    return (of_m * m + of_g * g) / (root(v) + eps), m, v


@MyNAdam.prepare
def nesterov(t, lr, product, betas, eps, psi):
    mu, following = betas[0] * (1 - 0.5 * 0.96 ** (t * psi)), betas[0] * (1 - 0.5 * 0.96 ** ((t + 1) * psi))
    product = product * mu
    c2 = math.sqrt(complement(betas[1], t))
    of_m, of_g = following / (1 - product * following), (1 - mu) / (1 - product)
    return lr * c2, 1 - betas[0], 1 - betas[1], of_m, of_g, eps * c2, product


def nadams(steps, *classes, **kwargs):
    """The optimizers and the parameters, one of which has no gradient at first."""
    made = []
    for cls in classes:
        params = {"w": np.linspace(-1, 1, 50), "b": np.ones(3)}
        opt = cls(params, lr=0.01, **kwargs)
        for t in range(steps):
            g = np.random.default_rng(t).standard_normal(50)
            opt.step({"w": g, "b": None if t == 0 else g[:3]})
        made.append((opt, params))
    return made


def test_numbers_are_carried_a_parameter_each():
    (mine, p), (theirs, q) = nadams(6, MyNAdam, fastlr.NAdam)
    for name in p:
        np.testing.assert_allclose(p[name], q[name], rtol=1e-12)
    found = np.array(mine._plan.numbers)
    np.testing.assert_allclose(found, theirs._plan.numbers, rtol=1e-12)
    assert found[0] < found[1] < 1  # six steps, and five


def test_what_is_carried_is_in_checkpoints_and_the_callers_business_in_functions(tmp_path):
    ((opt, p),) = nadams(3, MyNAdam)
    q = {name: x.copy() for name, x in p.items()}
    other = MyNAdam(q, lr=0.01)
    other.load_state_dict(opt.state_dict())
    g, numbers = {"w": np.ones(50), "b": np.ones(3)}, np.array(opt._plan.numbers[0])
    r, m, v = p["w"].copy(), opt.state["m"]["w"].copy(), opt.state["v"]["w"].copy()
    MyNAdam.function(r, g["w"], m, v, step=4, lr=0.01, numbers=numbers)
    for o in (opt, other):
        o.step(g)
    for name in p:
        np.testing.assert_array_equal(p[name], q[name])
    np.testing.assert_array_equal(r, p["w"])
    assert numbers == opt._plan.numbers[0]


@fastlr.rule(states=("s",), squares=("s",), eps=1e-10, rows=True)
def MyAdagrad(g, s, eps):
    s = s + square(g)
    return g / (root(s) + eps), s


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_alone_where_the_rule_allows_it(dtype):
    random = np.random.default_rng(0)
    p = random.standard_normal((400, 24)).astype(dtype)
    q = p.copy()
    mine, theirs = MyAdagrad(p, lr=0.1), fastlr.Adagrad(q, lr=0.1)
    for _ in range(4):
        rows, g = random.integers(0, 400, 90), random.standard_normal((90, 24)).astype(dtype)
        for opt in (mine, theirs):
            opt.step_rows(rows, g, clip_norm=20.0)
    np.testing.assert_array_equal(p, q)
    np.testing.assert_array_equal(mine.state["s"], theirs.state["s"])
    with pytest.raises(TypeError, match="Mine has no step_rows"):
        Mine(p).step_rows(rows, g)


def test_wrong_numbers_to_carry_are_refused():
    with pytest.raises(ValueError, match="carried must be at most 4 numbers, got 5"):
        fastlr.rule(carried=dict.fromkeys("abcde", 0.0))
    with pytest.raises(ValueError, match="carried: eps must not be hyper-parameters too"):
        fastlr.rule(carried={"eps": 0.0}, eps=1e-8)
    with pytest.raises(ValueError, match=r"carried\['a'\] must be finite"):
        fastlr.rule(carried={"a": math.inf})
    with pytest.raises(ValueError, match="rows must be False where numbers are carried"):
        fastlr.rule(carried={"a": 1.0}, rows=True)

    @fastlr.rule(carried={"a": 1.0})
    def Unprepared(g):
        return g

    with pytest.raises(TypeError, match=r"a must come from @Unprepared\.prepare"):
        first_step(Unprepared)

    @Unprepared.prepare
    def forgets(t, lr, a):
        return lr

    with pytest.raises(TypeError, match=r"must return the rate, a, got 1 values"):
        first_step(Unprepared)


# ---- in other libraries ---------------------------------------------------------------------------------------------


def test_as_an_optimizer_of_torch():
    torch = pytest.importorskip("torch")
    import fastlr.torch

    with pytest.raises(TypeError, match=r"must be a class that fastlr\.rule made, got .*AdamW"):
        fastlr.torch.optimizer_of(fastlr.AdamW)
    for mine, theirs in ((Mine, fastlr.torch.AdamW), (MyNAdam, fastlr.torch.NAdam)):
        found = []
        for build in (fastlr.torch.optimizer_of(mine), theirs):
            torch.manual_seed(0)
            model = torch.nn.Linear(30, 20)
            opt = build(model.parameters(), lr=0.01, clip_norm=1.0)
            for t in range(6):
                if t == 3:  # a checkpoint midway
                    saved, opt = opt.state_dict(), build(model.parameters(), lr=0.01, clip_norm=1.0)
                    opt.load_state_dict(saved)
                opt.zero_grad()
                model(torch.randn(8, 30)).square().sum().backward()
                opt.step()
            found.append(model.weight.detach().numpy())
        np.testing.assert_allclose(*found, rtol=0 if mine is Mine else 1e-5)


@pytest.mark.parametrize("x64", [False, True])
def test_in_jax(x64):
    jax = pytest.importorskip("jax")
    import fastlr.jax

    with jax.enable_x64(x64):
        p = np.linspace(-1, 1, 5000, dtype=np.float64 if x64 else np.float32)
        params, g = jax.numpy.array(p), jax.numpy.array(p[::-1])
        rule, opt = fastlr.jax.in_place(MyLion, lr=0.01), MyLion(p, lr=0.01)
        state = rule.init(params)
        for _ in range(3):
            params, state = jax.jit(rule.step)(params, g, state)
            opt.step(np.array(g))
        np.testing.assert_array_equal(params, p)
    with pytest.raises(TypeError, match="nothing else, unlike MyNAdam"):
        fastlr.jax.in_place(MyNAdam)


def test_in_thinc():
    pytest.importorskip("thinc")
    from fastlr.thinc import ThincOptimizer

    p, q = np.ones(9, np.float32), np.ones(9, np.float32)
    ThincOptimizer(Plain, lr=0.25)(0, p, np.ones(9, np.float32))
    Plain(q, lr=0.25).step(np.ones(9, np.float32))
    np.testing.assert_array_equal(p, q)
