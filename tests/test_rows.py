"""Steps of some rows of a table: every rule against its paper, the same bits everywhere, peers, and what is refused."""

from __future__ import annotations

import itertools
import math
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastlr
from fastlr import _core
from tests import row_reference
from tests.tolerance import Bounded, check, hypers


@dataclass(frozen=True)
class Case:
    """`dense` is an optimizer that with all rows given makes the same step, bit for bit."""

    id: str
    optimizer: type[fastlr.Optimizer]
    kwargs: dict[str, Any]
    reference: Any
    function: Any
    dense: tuple[type[fastlr.Optimizer], dict[str, Any]] | None = None
    states: dict[str, str] = field(default_factory=dict)  # what each has: "element", "row" or "count"

    def build(self, params, **kwargs):
        return self.optimizer(params, **{**self.kwargs, **kwargs})

    def initial(self, key):
        return self.kwargs.get("initial_accumulator_value", 0.0) if key == "s" else 0

    def fresh(self, rows, width, dtype):
        shape = {"element": (rows, width), "row": (rows,), "count": (rows,)}
        return {
            key: np.full(shape[kind], self.initial(key), np.int64 if kind == "count" else dtype)
            for key, kind in self.states.items()
        }


F = fastlr.functional
ELEMENTS = {"m": "element", "v": "element"}
CASES = (
    Case("SGD", fastlr.SGD, {}, row_reference.sgd, F.sgd, (fastlr.SGD, {})),
    Case("SGD-decay", fastlr.SGD, {"weight_decay": 0.1}, row_reference.sgd, F.sgd, (fastlr.SGD, {"weight_decay": 0.1})),
    Case(
        "SGD-momentum",
        fastlr.SGD,
        {"momentum": 0.9, "dampening": 0.2},
        row_reference.sgd,
        F.sgd,
        (fastlr.SGD, {"momentum": 0.9, "dampening": 0.2}),
        {"b": "element"},
    ),
    Case(
        "SGD-nesterov",
        fastlr.SGD,
        {"momentum": 0.7, "nesterov": True},
        row_reference.sgd,
        F.sgd,
        (fastlr.SGD, {"momentum": 0.7, "nesterov": True}),
        {"b": "element"},
    ),
    Case(
        "Adagrad",
        fastlr.Adagrad,
        {"lr_decay": 0.1, "initial_accumulator_value": 0.5},
        row_reference.adagrad,
        F.adagrad,
        (fastlr.Adagrad, {"lr_decay": 0.1, "initial_accumulator_value": 0.5}),
        {"s": "element"},
    ),
    Case("RowAdagrad", fastlr.RowAdagrad, {}, row_reference.row_adagrad, F.row_adagrad, None, {"s": "row"}),
    Case(
        "RowAdagrad-odd",
        fastlr.RowAdagrad,
        {"lr_decay": 0.1, "initial_accumulator_value": 0.5, "weight_decay": 0.05, "eps": 0.01},
        row_reference.row_adagrad,
        F.row_adagrad,
        None,
        {"s": "row"},
    ),
    Case(
        "SparseAdam",
        fastlr.SparseAdam,
        {},
        row_reference.sparse_adam,
        F.sparse_adam,
        (fastlr.Adam, {"eps_mode": "keras"}),
        ELEMENTS,
    ),
    Case(
        "SparseAdam-odd",
        fastlr.SparseAdam,
        {"betas": (0.6, 0.8), "eps": 0.01, "weight_decay": 0.05},
        row_reference.sparse_adam,
        F.sparse_adam,
        (fastlr.Adam, {"betas": (0.6, 0.8), "eps": 0.01, "weight_decay": 0.05, "eps_mode": "keras"}),
        ELEMENTS,
    ),
    Case(
        "LazyAdam",
        fastlr.LazyAdam,
        {},
        row_reference.lazy_adam,
        F.lazy_adam,
        (fastlr.Adam, {}),
        {**ELEMENTS, "l": "count"},
    ),
    Case(
        "LazyAdam-odd",
        fastlr.LazyAdam,
        {"betas": (0.4, 0.9), "eps": 0.01, "weight_decay": 0.05},
        row_reference.lazy_adam,
        F.lazy_adam,
        (fastlr.Adam, {"betas": (0.4, 0.9), "eps": 0.01, "weight_decay": 0.05}),
        {**ELEMENTS, "l": "count"},
    ),
    Case("FTRL", fastlr.FTRL, {}, row_reference.ftrl, F.ftrl, (fastlr.FTRL, {}), {"z": "element", "n": "element"}),
    Case(
        "FTRL-odd",
        fastlr.FTRL,
        {"beta": 0.3, "l1": 3.0, "l2": 0.5, "weight_decay": 0.05},
        row_reference.ftrl,
        F.ftrl,
        (fastlr.FTRL, {"beta": 0.3, "l1": 3.0, "l2": 0.5, "weight_decay": 0.05}),
        {"z": "element", "n": "element"},
    ),
)
ELEMENTWISE = [c for c in CASES if c.dense]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
both_types = pytest.mark.parametrize("dtype", [np.float32, np.float64])
ISAS = [name for name, runs in _core.isas().items() if runs]


@pytest.fixture(autouse=True)
def machine():
    isa, threads = _core.isa(), _core.get_threads()
    yield
    _core.use_isa(isa)
    _core.set_threads(threads)


def zipf(rng, rows, n):
    """Row numbers of which few are frequent: the most frequent one fills several units of work."""
    weights = 1 / np.arange(1, rows + 1) ** 1.2
    return rng.permutation(rows)[rng.choice(rows, n, p=weights / weights.sum())]


def batch(rng, rows, width, n, dtype, index=np.int64):
    return zipf(rng, rows, n).astype(index), rng.standard_normal((n, width)).astype(dtype)


def table(rng, rows, width, dtype):
    return rng.standard_normal((rows, width)).astype(dtype)


def rate(step):
    return 0.05 * (1 + 0.5 * math.sin(step)) if step != 3 else 0.0


def rate_above_zero(step):
    return max(rate(step), 0.01)


# ---- against the papers ----------------------------------------------------------------------------------------------


@both_types
@pytest.mark.parametrize("case", ELEMENTWISE, ids=lambda c: c.id)
def test_reference(case, dtype):
    """Within the bound of tests/tolerance.py, row by row. RowAdagrad, with a mean of squares, is in the next test."""
    rng = np.random.default_rng(0)
    p = table(rng, 12, 5, dtype)
    opt = case.build(p, lr=rate)
    expected = [Bounded(row.copy(), dtype) for row in p]
    initial = case.fresh(12, 5, dtype)
    states = [
        {key: 0 if key == "l" else Bounded(initial[key][k], dtype) for key in case.states if key != "b"}
        for k in range(12)
    ]
    hyper = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0} if "Adam" in case.id else {"weight_decay": 0.0}
    if case.optimizer is fastlr.SGD:
        hyper |= {"momentum": 0.0, "dampening": 0.0}
    if case.optimizer is fastlr.Adagrad:
        hyper |= {"eps": 1e-10}
    if case.optimizer is fastlr.FTRL:
        hyper |= {"beta": 1.0, "l1": 0.0, "l2": 0.0}
    tested = 0
    for t in range(1, 16):
        rows, grads = batch(rng, 12, 5, 9, dtype)
        opt.step_rows(rows, grads)
        kwargs = hypers({**hyper, **case.kwargs, "lr": rate(t - 1)})
        for row, g in row_reference.summed(rows, grads).items():
            # A buffer that has never been touched is 0, and t counts steps of the table, not of the row.
            if "b" in case.states and t > 1:
                states[row].setdefault("b", Bounded(np.zeros(5, dtype), dtype))
            expected[row], states[row] = case.reference(expected[row], Bounded(g, dtype), states[row], t, **kwargs)
        for row in range(12):
            tested += np.count_nonzero(~np.isnan(check(p[row], expected[row], f"step {t}, row {row}")))
            for key, kind in case.states.items():
                if kind == "count":
                    assert opt.state[key][row] == states[row][key]
                elif key in states[row]:
                    check(opt.state[key][row], states[row][key], f"{key}, step {t}, row {row}")
    assert tested == 15 * 12 * 5


@both_types
@pytest.mark.parametrize("case", [c for c in CASES if c.optimizer is fastlr.RowAdagrad], ids=lambda c: c.id)
@pytest.mark.parametrize("width", [1, 5, 64, 77])
def test_row_adagrad_reference(case, dtype, width):
    """u for each rounding in the type, 2^-53 for each of a sum of squares in double, the reference's own too.

    Of s: g' has two, doubled by the square; one a step for s + …; the sum width / 32 in a lane, 32 of the lanes,
    three of a square, of the mean and of s. Half of that for the root, and seven more of the move; one a step of p.
    What p is off by comes back through the decay, times λ η < 5e-3: a tenth is added for that.
    """
    rng = np.random.default_rng(0)
    p = table(rng, 12, width, dtype)
    exact, path = p.astype(np.float64), abs(p.astype(np.float64))
    opt = case.build(p, lr=rate)
    states = [{"s": case.initial("s")} for _ in range(12)]
    u = 2.0 ** -(np.finfo(dtype).nmant + 1)
    for t in range(1, 16):
        rows, grads = batch(rng, 12, width, 9, dtype)
        opt.step_rows(rows, grads)
        for row, g in row_reference.summed(rows, grads).items():
            before = exact[row].copy()
            exact[row], states[row] = case.reference(
                exact[row], g.astype(np.float64), states[row], t, **{**case.kwargs, "lr": rate(t - 1)}
            )
            path[row] += abs(exact[row] - before)
        of_s = (4 + t) * u + 2 * (width / 32 + 35) * 2.0**-53
        assert (abs(p - exact) <= 1.1 * (of_s / 2 + (7 + t) * u) * path).all()
        s = np.array([state["s"] for state in states])
        assert (abs(opt.state["s"] - s) <= 1.1 * of_s * s).all()


@both_types
@pytest.mark.parametrize("case", ELEMENTWISE, ids=lambda c: c.id)
def test_all_rows_are_the_dense_step(case, dtype):
    """Bit for bit, in any order of the rows."""
    rng = np.random.default_rng(1)
    p = table(rng, 50, 7, dtype)
    q = p.copy()
    opt = case.build(p, lr=rate, nonfinite="skip")
    dense = case.dense[0](q, lr=rate, nonfinite="skip", **case.dense[1])
    for t in range(6):
        g = table(rng, 50, 7, dtype)
        order = rng.permutation(50)
        mine = opt.step_rows(order, g[order], grad_scale=0.7, clip_norm=3.0)
        theirs = dense.step(g, grad_scale=0.7, clip_norm=3.0 * (1 + 1e-15))
        assert mine.step == theirs.step == t + 1
        assert mine.lr == theirs.lr
        assert mine.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-14)
    # The norm is summed in another order: it may differ in its last bit, and then so may all else.
    np.testing.assert_allclose(p, q, rtol=0, atol=1e-15 if dtype is np.float64 else 1e-6)
    for _ in range(4):
        g = table(rng, 50, 7, dtype)
        p[...], dense_state = q, dense.state
        for key in dense.states:
            opt.state[key][...] = dense_state[key]
        order = rng.permutation(50)
        opt.step_rows(order, g[order], grad_scale=0.7)
        dense.step(g, grad_scale=0.7)
        np.testing.assert_array_equal(p, q)
        for key in dense.states:
            np.testing.assert_array_equal(opt.state[key], dense.state[key])


@every_case
def test_other_rows_stay_as_they_are(case):
    rng = np.random.default_rng(2)
    p = table(rng, 40, 6, np.float32)
    p[::2] = np.nan  # nothing of them is read
    opt = case.build(p, lr=0.1)
    odd = np.arange(1, 40, 2)
    before = p.copy()
    for _ in range(3):
        rows = rng.choice(odd, 30)
        opt.step_rows(rows, rng.standard_normal((30, 6)).astype(np.float32))
    np.testing.assert_array_equal(p[::2], before[::2])
    assert np.isfinite(p[1::2]).all()
    assert (p[1::2] != before[1::2]).any()
    for key, kind in case.states.items():
        np.testing.assert_array_equal(opt.state[key][::2], case.fresh(40, 6, np.float32)[key][::2], err_msg=kind)


@both_types
def test_lazy_adam_has_the_moments_of_adam(dtype):
    """m and v of a row that is given are Adam's with a gradient of 0 in between; one that is not is made up for
    later."""
    rng = np.random.default_rng(3)
    p, q = np.zeros((30, 4), dtype), np.zeros((30, 4), dtype)
    opt, dense = fastlr.LazyAdam(p, betas=(0.8, 0.99)), fastlr.Adam(q, betas=(0.8, 0.99))
    u = 2.0 ** -(np.finfo(dtype).nmant + 1)
    for t in range(1, 60):
        rows, grads = batch(rng, 30, 4, 5, dtype)
        opt.step_rows(rows, grads)
        whole = np.zeros((30, 4), dtype)
        for row, g in row_reference.summed(rows, grads).items():
            whole[row] = g
        dense.step(whole)
        for key in "mv":
            mine, theirs = opt.state[key][rows], dense.state[key][rows]
            # Of numbers up to 10 (squares 100), three roundings a step.
            np.testing.assert_allclose(mine, theirs, rtol=3 * t * u, atol=3 * t * u * (10 if key == "m" else 100))
        assert (opt.state["l"][rows] == t).all()


@both_types
def test_lazy_adam_after_a_long_time(dtype):
    """However long a row was away: its moments are gone, and nothing else is."""
    p = np.zeros((2, 3), dtype)
    opt = fastlr.LazyAdam(p, lr=1.0, betas=(0.9, 0.999))
    g = np.ones((1, 3), dtype)
    opt.step_rows(np.array([0]), g)
    saved = opt.state_dict()
    for t in (10**3, 10**6, 10**12, 2**62):
        saved["step"], saved["steps"] = t, [t]
        opt.load_state_dict(saved)
        opt.step_rows(np.array([0]), g)
        m, v = opt.state["m"][0], opt.state["v"][0]
        assert m == pytest.approx(0.1 + 0.1 * 0.9**t, rel=1e-6)
        assert v == pytest.approx(0.001 + 0.001 * 0.999**t, rel=1e-4 if dtype is np.float32 else 1e-9)
        assert (opt.state["l"] == [t + 1, 0]).all()
        assert np.isfinite(p).all()


@pytest.mark.parametrize("seen", [-(2**63), -1, 2**63 - 1, 5])
def test_lazy_adam_survives_any_counter(seen):
    """What no step leaves there, a user may: a time before the first step is the first, one to come is this one."""
    p, q = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)
    opt, other = fastlr.LazyAdam(p), fastlr.LazyAdam(q)
    opt.state["l"][0] = seen
    for x in (opt, other):
        x.step_rows(np.array([0]), np.ones((1, 3), np.float32))
    np.testing.assert_array_equal(p, q)
    assert opt.state["l"][0] == 1


# ---- duplicates ------------------------------------------------------------------------------------------------------


@both_types
@every_case
def test_duplicates_are_their_sum(case, dtype):
    """In float64 in their order, rounded once: the bits of the same step with each row given once."""
    rng = np.random.default_rng(4)
    p = table(rng, 30, 6, dtype)
    q = p.copy()
    opt, other = case.build(p, lr=0.1), case.build(q, lr=0.1)
    for _ in range(3):
        rows, grads = batch(rng, 30, 6, 500, dtype)
        grads *= (10.0 ** rng.uniform(-6, 6, (500, 1))).astype(dtype)
        sums = row_reference.summed(rows, grads)
        one = opt.step_rows(rows, grads, clip_norm=1e3)
        two = other.step_rows(np.array(list(sums)), np.array(list(sums.values())), clip_norm=1e3)
        assert one.grad_norm == two.grad_norm
        np.testing.assert_array_equal(p, q)


def test_sum_is_in_float64():
    """1 + 2^-30 in float32 is 1; two thousand such and −1 leave something only if they are added in more."""
    p = np.zeros((3, 2), np.float32)
    g = np.full((2049, 2), 2.0**-30, np.float32)
    g[0], g[-1] = 1, -1
    fastlr.SGD(p, lr=1.0).step_rows(np.full(2049, 2), g)
    np.testing.assert_array_equal(p[2], np.full(2, -2047 * 2.0**-30, np.float32))


def test_order_of_occurrence_decides():
    """In float64 a sum has an order: 1e16 + 1 − 1e16 is 0, 1e16 − 1e16 + 1 is 1."""
    for values, total in (((1e16, 1.0, -1e16), 0), ((1e16, -1e16, 1.0), 1)):
        p = np.zeros((4, 1))
        fastlr.SGD(p, lr=1.0).step_rows(np.array([2, 2, 2]), np.array(values)[:, None])
        assert p[2, 0] == -total


# ---- the same bits everywhere ----------------------------------------------------------------------------------------


def run(case, p, batches, isa, threads, **options):
    _core.use_isa(isa)
    _core.set_threads(threads)
    p = p.copy()
    opt = case.build(p, lr=0.05, **options)
    norms = [opt.step_rows(rows, grads, grad_scale=0.5, clip_norm=100.0).grad_norm for rows, grads in batches]
    for rows, grads in batches:
        opt.step_rows(rows, grads)
    return {"p": p, "norms": np.array(norms), **{key: opt.state[key].copy() for key in case.states}}


def shuffled(rng, rows, grads):
    """In another order, in which the gradients of each row keep theirs."""
    # A stable sort by a random number for each row, and then runs of rows dealt out at random.
    order = np.argsort(rng.permutation(rows.max() + 1)[rows], kind="stable")
    deal = rng.random(rows.size)
    for row in np.unique(rows):
        deal[rows == row] = np.sort(deal[rows == row])
    return order if rng.random() < 0.5 else np.argsort(deal, kind="stable")


@both_types
@every_case
def test_bits_do_not_depend_on_the_machine_or_the_order_of_rows(case, dtype):
    rng = np.random.default_rng(5)
    turn = itertools.count()
    for rows, width, n in ((700, 1, 3000), (700, 17, 1000), (300, 64, 1500), (90, 100, 700), (9, 33, 5)):
        p = table(rng, rows, width, dtype)
        batches = [batch(rng, rows, width, n, dtype) for _ in range(2)]
        expected = run(case, p, batches, "baseline", 1)
        assert all(np.isfinite(x).all() for x in expected.values())
        for isa, threads in itertools.product(ISAS, (1, 2, 3, 7)):
            given = batches
            if k := next(turn) % 3:
                orders = [shuffled(rng, *b) for b in batches]
                given = [
                    (r[o].astype(np.int32 if k == 1 else np.int64), g[o])
                    for (r, g), o in zip(batches, orders, strict=True)
                ]
            found = run(case, p, given, isa, threads)
            for key, x in expected.items():
                np.testing.assert_array_equal(found[key], x, err_msg=f"{key}, {isa}, {threads}, {rows} x {width}")


@pytest.mark.parametrize("rows", [1, 2, 255, 257, 2047, 2049, 2**16, 2**21 + 1, 2**22 + 3, 2**24 + 1])
@pytest.mark.parametrize("n", [1, 5, 2047, 2049, 6000])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_tables_of_any_length(rows, n, index):
    """All numbers of digits that are sorted by, with few rows and many; integers, so that the answer is exact."""
    rng = np.random.default_rng(rows + n)
    chosen = rng.integers(0, rows, n).astype(index)
    chosen[0], chosen[-1] = rows - 1, 0
    g = rng.integers(-100, 100, (n, 1)).astype(np.float32)
    p = np.zeros((rows, 1), np.float32)
    fastlr.SGD(p, lr=1.0).step_rows(chosen, g)
    touched, which = np.unique(chosen, return_inverse=True)
    np.testing.assert_array_equal(p[touched, 0], -np.bincount(which, g[:, 0]).astype(np.float32))
    assert np.count_nonzero(p) <= touched.size


@pytest.mark.parametrize("rows", [1, 200, 257, 2**20])
@pytest.mark.parametrize("n", [8191, 8192, 30_000])
@pytest.mark.parametrize("pattern", ["uniform", "zipf", "one bucket", "descending"])
def test_duplicates_are_added_in_the_order_of_their_places(rows, n, pattern):
    """In float64, where another order has other bits; so many that the threads share the sorting."""
    rng = np.random.default_rng(rows + n)
    chosen = {
        "uniform": lambda: rng.integers(0, rows, n),
        "zipf": lambda: zipf(rng, rows, n),
        "one bucket": lambda: np.minimum(rng.geometric(0.01, n), rows) - 1,
        "descending": lambda: np.sort(rng.integers(0, rows, n))[::-1].copy(),
    }[pattern]()
    g = rng.standard_normal((n, 3))
    expected = np.zeros((rows, 3))
    np.subtract.at(expected, chosen, g)
    for threads in (1, 2, 3, 8):
        _core.set_threads(threads)
        p = np.zeros((rows, 3))
        fastlr.SGD(p, lr=1.0).step_rows(chosen, g)
        np.testing.assert_array_equal(p, expected)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_index_patterns(data):
    """Whatever the pattern: runs, all one row, sorted, reversed, none at all."""
    rows = data.draw(st.integers(1, 40))
    chosen = data.draw(
        st.one_of(
            st.lists(st.integers(0, rows - 1), max_size=300),
            st.builds(lambda r, n: [r] * n, st.integers(0, rows - 1), st.integers(0, 600)),
            st.builds(sorted, st.lists(st.integers(0, rows - 1), max_size=300)),
            st.builds(lambda x: sorted(x, reverse=True), st.lists(st.integers(0, rows - 1), max_size=300)),
        )
    )
    dtype, index = data.draw(st.sampled_from(["f", "d"])), data.draw(st.sampled_from([np.int32, np.int64]))
    width, threads = data.draw(st.sampled_from([0, 1, 2, 31, 33])), data.draw(st.integers(1, 3))
    _core.set_threads(threads)
    rng = np.random.default_rng(len(chosen))
    g = rng.integers(-50, 50, (len(chosen), width)).astype(dtype)
    p = np.zeros((rows, width), dtype)
    opt = fastlr.SGD(p, lr=1.0)
    kept = g.copy()
    norm = opt.step_rows(np.array(chosen, index), g, clip_norm=1e30).grad_norm
    expected = np.zeros((rows, width))
    np.add.at(expected, np.array(chosen, int), g)
    np.testing.assert_array_equal(p, -expected)
    np.testing.assert_array_equal(g, kept)
    assert norm == pytest.approx(math.sqrt((expected**2).sum()), rel=1e-14)
    assert opt.step_count == 1


# ---- what step has ---------------------------------------------------------------------------------------------------


@every_case
def test_functional_is_the_class(case):
    rng = np.random.default_rng(6)
    p = table(rng, 20, 5, np.float64)
    q = p.copy()
    opt = case.build(p, lr=0.1, maximize=True)
    state = case.fresh(20, 5, np.float64)
    kwargs = {name: x for name, x in case.kwargs.items() if name != "initial_accumulator_value"}
    for t in range(1, 5):
        rows, grads = batch(rng, 20, 5, 30, np.float64)
        opt.step_rows(rows, grads, grad_scale=0.5)
        case.function(q, grads, *state.values(), step=t, lr=0.1, rows=rows, maximize=True, grad_scale=0.5, **kwargs)
        np.testing.assert_array_equal(p, q)
        for key in case.states:
            np.testing.assert_array_equal(opt.state[key], state[key])


@every_case
def test_maximize_scale_and_clipping(case):
    rng = np.random.default_rng(7)
    start = table(rng, 20, 5, np.float64)
    rows, grads = batch(rng, 20, 5, 30, np.float64)
    norm = math.sqrt(sum((g**2).sum() for g in row_reference.summed(rows, grads).values()))

    def after(scale=1.0, maximize=False, **step):
        p = start.copy()
        report = case.build(p, lr=0.1, maximize=maximize).step_rows(rows, scale * grads, **step)
        return p, report

    np.testing.assert_array_equal(after(maximize=True)[0], after(-1.0)[0])
    np.testing.assert_array_equal(after(grad_scale=0.25)[0], after(0.25)[0])
    p, report = after(clip_norm=2.0, grad_scale=0.5)
    assert report.grad_norm == pytest.approx(0.5 * norm, rel=1e-14)
    np.testing.assert_array_equal(p, after(grad_scale=0.5 * (2.0 / (report.grad_norm + 1e-6)))[0])
    assert after()[1].grad_norm is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@every_case
def test_nonfinite_policies_see_the_sum(case, bad):
    rng = np.random.default_rng(8)
    rows, grads = batch(rng, 20, 5, 300, np.float32)
    grads[17, 3] = bad
    for policy in ("skip", "raise", "propagate"):
        p = table(rng, 20, 5, np.float32)
        before = p.copy()
        opt = case.build(p, lr=0.1, nonfinite=policy)
        if policy == "raise":
            with pytest.raises(FloatingPointError, match="grads must be finite"):
                opt.step_rows(rows, grads)
        else:
            report = opt.step_rows(rows, grads)
            assert report.skipped == (policy == "skip")
        if policy == "propagate":
            assert not np.isfinite(p[rows[17], 3]) or case.id == "LazyAdam"
            others = np.arange(20) != rows[17]
            assert np.isfinite(p[others]).all()
            continue
        np.testing.assert_array_equal(p, before)
        assert opt.step_count == 0
        for key in case.states:
            np.testing.assert_array_equal(opt.state[key], case.fresh(20, 5, np.float32)[key])


def test_overflow_of_the_sum_is_not_finite():
    p = np.zeros((3, 2), np.float32)
    g = np.full((2, 2), 3e38, np.float32)
    opt = fastlr.SGD(p, nonfinite="skip")
    assert opt.step_rows(np.array([1, 1]), g).skipped
    assert not opt.step_rows(np.array([1, 2]), g).skipped
    assert not opt.step_rows(np.array([1, 1]), np.array([[3e38] * 2, [-3e38] * 2], np.float32)).skipped


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_norm_beyond_the_range_of_squares(size):
    p = np.zeros((10, 3))
    g = np.array([[1.0, 2, 2], [0, 0, 0], [2, 4, 4]]) * size
    report = fastlr.SGD(p, lr=0.0).step_rows(np.array([4, 2, 4]), g, clip_norm=1e308)
    assert report.grad_norm == pytest.approx(9 * size, rel=1e-14)


@every_case
def test_several_tables_and_groups(case):
    rng = np.random.default_rng(9)
    a, b, c = (table(rng, n, 4, np.float64) for n in (10, 20, 30))
    alone = [x.copy() for x in (a, b, c)]
    opt = case.build({"a": a, "b": b, "c": c}, lr=rate_above_zero, groups=[{"match": "b", "lr_scale": 0.5}])
    singles = [
        case.build(x, lr=lambda t, k=k: rate_above_zero(t) * (0.5 if k == 1 else 1.0)) for k, x in enumerate(alone)
    ]
    for t in range(4):
        batches = [batch(rng, len(x), 4, 15, np.float64) for x in (a, b, c)]
        rows = {key: None if t == 2 and key == "c" else r for key, (r, _) in zip("abc", batches, strict=True)}
        grads = {key: None if t == 2 and key == "c" else g for key, (_, g) in zip("abc", batches, strict=True)}
        report = opt.step_rows(rows, grads, clip_norm=1e9)
        squares = 0.0
        for k, key in enumerate("abc"):
            if rows[key] is not None:
                # A table left out has made fewer steps; its schedule goes by the optimizer's.
                singles[k].groups[0].lr = rate_above_zero(t) * (0.5 if k == 1 else 1.0)
                squares += singles[k].step_rows(rows[key], grads[key], clip_norm=1e9).grad_norm ** 2
        assert report.grad_norm == pytest.approx(math.sqrt(squares), rel=1e-14)
        for mine, other in zip((a, b, c), alone, strict=True):
            np.testing.assert_array_equal(mine, other)
    assert opt.step_count == 4


@pytest.mark.parametrize("case", [c for c in ELEMENTWISE if "l" not in c.states], ids=lambda c: c.id)
def test_steps_and_step_rows_share_the_count(case):
    rng = np.random.default_rng(10)
    p = table(rng, 10, 4, np.float64)
    q = p.copy()
    opt, other = case.build(p, lr=rate), case.build(q, lr=rate)
    for t in range(6):
        g = table(rng, 10, 4, np.float64)
        opt.step(g) if t % 2 else opt.step_rows(np.arange(10), g)
        other.step(g)
        np.testing.assert_array_equal(p, q)
    assert opt.step_count == 6


@every_case
def test_checkpoints(case, tmp_path):
    rng = np.random.default_rng(11)
    p = table(rng, 10, 4, np.float32)
    opt = case.build(p, lr=0.1)
    for _ in range(3):
        opt.step_rows(*batch(rng, 10, 4, 8, np.float32))
    opt.save(tmp_path / "state.safetensors")
    q = p.copy()
    other = case.build(q, lr=0.2)
    other.load(tmp_path / "state.safetensors")
    saved = opt.state_dict()
    for key, kind in case.states.items():
        assert saved["state"][key]["0"].dtype == (np.int64 if kind == "count" else np.float32)
        assert saved["state"][key]["0"].shape == ((10, 4) if kind == "element" else (10,))
        wrong = {**saved, "state": {**saved["state"], key: {"0": saved["state"][key]["0"][:-1]}}}
        with pytest.raises(ValueError, match="shape must be"):
            other.load_state_dict(wrong)
    for _ in range(3):
        rows, grads = batch(rng, 10, 4, 8, np.float32)
        opt.step_rows(rows, grads)
        other.step_rows(rows, grads)
        np.testing.assert_array_equal(p, q)
        for key in case.states:
            np.testing.assert_array_equal(opt.state[key], other.state[key])


def test_lr_is_checked_and_scheduled():
    p = np.zeros((3, 2))
    opt = fastlr.SGD(p, lr=lambda step: [0.5, -1.0][step])
    assert opt.step_rows(np.array([1]), np.ones((1, 2))).lr == 0.5
    with pytest.raises(ValueError, match=r"lr\(1\) must be finite and >= 0"):
        opt.step_rows(np.array([1]), np.ones((1, 2)))
    assert opt.step_count == 1


def test_schedules_are_followed():
    """Those that the kernels read by themselves too, of the rate and of other hyper-parameters."""
    curve = fastlr.schedules.cosine(0.5, 0.1, 5)
    rng = np.random.default_rng(15)
    p = table(rng, 10, 4, np.float64)
    q = p.copy()
    opt, other = fastlr.LazyAdam(p, lr=curve), fastlr.LazyAdam(q, lr=0.0)
    for t in range(5):
        rows, grads = batch(rng, 10, 4, 8, np.float64)
        other.groups[0].lr = float(curve(t))
        assert opt.step_rows(rows, grads).lr == other.step_rows(rows, grads).lr == curve(t)
        np.testing.assert_array_equal(p, q)


def test_nothing_given_is_a_step():
    """As in torch's SparseAdam: the count moves, the bias correction with it."""
    p = np.ones((3, 2))
    opt = fastlr.SparseAdam(p)
    opt.step_rows(np.zeros(0, np.int64), np.zeros((0, 2)))
    assert opt.step_count == 1
    np.testing.assert_array_equal(p, np.ones((3, 2)))
    empty = fastlr.LazyAdam(np.zeros((0, 2)))
    assert empty.step_rows(np.zeros(0, np.int32), np.zeros((0, 2)), clip_norm=1.0).grad_norm == 0


def test_threads_take_turns():
    p = np.zeros((100, 8))
    opt = fastlr.SGD(p, lr=1.0)
    rows = np.arange(100).repeat(20)
    g = np.ones((2000, 8))
    workers = [threading.Thread(target=lambda: [opt.step_rows(rows, g) for _ in range(25)]) for _ in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert opt.step_count == 100
    np.testing.assert_array_equal(p, np.full((100, 8), -2000.0))


# ---- what is refused -------------------------------------------------------------------------------------------------

N = 400


def good():
    return np.arange(N) % 10, np.ones((N, 4), np.float32)


def changed(where, value, index):
    rows = good()[0].astype(index)
    rows[where] = value
    return rows


REFUSED = {
    "negative": (lambda: changed(399, -1, np.int64), None, IndexError, ["rows[399] must be in [0, 10)", "-1", "end"]),
    "negative int32": (lambda: changed(0, -(2**31), np.int32), None, IndexError, ["rows[0]", str(-(2**31))]),
    "past the end": (lambda: changed(7, 10, np.int64), None, IndexError, ["rows[7] must be in [0, 10)", "got 10"]),
    "far": (lambda: changed(7, 2**32 + 1, np.int64), None, IndexError, ["rows[7]", str(2**32 + 1)]),
    "smallest": (lambda: changed(7, -(2**63), np.int64), None, IndexError, ["rows[7]", str(-(2**63))]),
    "float": (lambda: good()[0].astype(np.float32), None, TypeError, ["rows must be int32 or int64", "float32"]),
    "unsigned": (lambda: good()[0].astype(np.uint64), None, TypeError, ["rows must be int32 or int64", "uint64"]),
    "int16": (lambda: good()[0].astype(np.int16), None, TypeError, ["rows must be int32 or int64", "int16"]),
    "bool": (lambda: good()[0] > 3, None, TypeError, ["rows must be int32 or int64", "bool"]),
    "other order": (lambda: good()[0].astype(">i8"), None, TypeError, ["native byte order"]),
    "list": (lambda: good()[0].tolist(), None, TypeError, ["rows must be an array"]),
    "2-D": (lambda: good()[0][:, None], None, ValueError, ["rows must have 1 dimension", "(400, 1)"]),
    "not contiguous": (lambda: (np.arange(2 * N) % 10)[::2], None, BufferError, ["rows must be contiguous", "(16,)"]),
    "too few": (lambda: good()[0][:-1], None, ValueError, ["grads: expected shape (399, 4)", "each of rows"]),
    "no rows": (lambda: None, None, TypeError, ["rows", "grads", "both"]),
    "no grads": (None, lambda: None, TypeError, ["rows", "grads", "both"]),
    "width": (None, lambda: np.ones((N, 5), np.float32), ValueError, ["expected shape (400, 4)", "(400, 5)"]),
    "1-D grads": (None, lambda: np.ones(4 * N, np.float32), ValueError, ["expected shape (400, 4)", "(1600,)"]),
    "dtype": (None, lambda: np.ones((N, 4)), TypeError, ["grads: expected float32", "float64"]),
    "strided grads": (None, lambda: np.ones((N, 8), np.float32)[:, ::2], BufferError, ["grads must be C-contiguous"]),
    "list of grads": (None, lambda: [[1.0] * 4] * N, TypeError, ["grads must be an array"]),
}


@pytest.mark.parametrize("name", REFUSED)
@every_case
def test_bad_input_is_refused_before_anything_is_written(case, name):
    rows, grads, error, parts = REFUSED[name]
    p = np.ones((10, 4), np.float32)
    opt = case.build(p)
    opt.step_rows(*good())
    before = [p.copy(), *(opt.state[key].copy() for key in case.states)]
    with pytest.raises(error) as caught:
        opt.step_rows(rows() if rows else good()[0], grads() if grads else good()[1])
    for part in parts:
        assert part in str(caught.value)
    for old, now in zip(before, [p, *(opt.state[key] for key in case.states)], strict=True):
        np.testing.assert_array_equal(old, now)
    assert opt.step_count == 1
    opt.step_rows(*good())


def test_one_bad_table_stops_all():
    a, b = np.ones((5, 2)), np.ones((5, 2))
    opt = fastlr.SGD([a, b])
    g = np.ones((3, 2))
    with pytest.raises(IndexError, match=r"rows\[1\]\[2\] must be in \[0, 5\), the rows of params\[1\], got 5"):
        opt.step_rows([np.array([0, 1, 2]), np.array([0, 1, 5])], [g, g])
    assert (a == 1).all()
    assert opt.step_count == 0


def test_gradients_may_not_be_the_model():
    p = np.ones((10, 4), np.float32)
    opt = fastlr.SparseAdam(p)
    with pytest.raises(ValueError, match="grads and params must not overlap"):
        opt.step_rows(np.arange(10), p)
    with pytest.raises(ValueError, match=r"grads and state\['m'\] must not overlap"):
        opt.step_rows(np.arange(10), opt.state["m"])


def test_gradients_may_be_read_only_and_stay_as_they_are():
    rows, grads = good()
    kept = grads.copy()
    for x in (rows, grads):
        x.flags.writeable = False
    for case in CASES:
        case.build(np.ones((10, 4), np.float32)).step_rows(rows, grads)
        np.testing.assert_array_equal(grads, kept)


def test_parameters_must_be_tables():
    for p in (np.ones(4), np.ones((2, 2, 2))):
        with pytest.raises(ValueError, match=f"must have 2 dimensions for step_rows, got {p.ndim}"):
            fastlr.SGD(p).step_rows(np.array([0]), np.ones((1, 4)))
        for cls in (fastlr.LazyAdam, fastlr.RowAdagrad):
            with pytest.raises(ValueError, match="must have 2 dimensions for"):
                cls(p)
    flat = fastlr.SGD(fastlr.FlatBuffer({"w": (3, 2)}, np.float64))
    with pytest.raises(ValueError, match="FlatBuffer"):
        flat.step_rows(np.array([0]), np.ones((1, 2)))


def test_rules_for_whole_gradients_say_so():
    p, g = np.ones((3, 2)), np.ones((1, 2))
    for cls in (fastlr.Adam, fastlr.AdamW, fastlr.RMSprop, fastlr.Lion, fastlr.RAdam):
        with pytest.raises(TypeError, match=f"{cls.__name__} has no step_rows.*SparseAdam, LazyAdam or FTRL"):
            cls(p).step_rows(np.array([0]), g)
    with pytest.raises(TypeError, match="rows must be None for the rule of AdamW"):
        F.adamw(p, g, p * 0, p * 0, step=1, rows=np.array([0]))
    careful = fastlr.SGD(p, momentum=0.9, cautious=True)
    with pytest.raises(TypeError, match="momentum_cautious has no step_rows: it sums over whole tensors"):
        careful.step_rows(np.array([0]), g)
    for cls in (fastlr.LazyAdam, fastlr.RowAdagrad):
        with pytest.raises(TypeError, match=r"use step_rows\(rows, grads\), for all of them with numpy.arange"):
            cls(p).step(np.ones((3, 2)))


def test_options_that_make_no_sense_are_refused():
    p, rows, g = np.ones((3, 2)), np.array([0]), np.ones((1, 2))
    opt = fastlr.SGD(p)
    with pytest.raises(TypeError, match="zero_grads"):
        opt.step_rows(rows, g, zero_grads=True)
    with pytest.raises(ValueError, match="zero_grads must be False with rows"):
        F.sgd(p, g, step=1, rows=rows, zero_grads=True)
    with pytest.raises(ValueError, match="grad_scale must be finite and > 0"):
        opt.step_rows(rows, g, grad_scale=0.0)
    with pytest.raises(ValueError, match="clip_norm must be finite and > 0"):
        opt.step_rows(rows, g, clip_norm=-1.0)
    with pytest.raises(ValueError, match="must stay finite in float32"):
        fastlr.SGD(np.ones((3, 2), np.float32), lr=1e300).step_rows(rows, g.astype(np.float32))
    assert (p == 1).all()


def test_hyper_parameters_are_checked():
    p = np.ones((3, 2))
    for cls in (fastlr.SparseAdam, fastlr.LazyAdam, fastlr.RowAdagrad):
        with pytest.raises(ValueError, match="eps must be finite and > 0"):
            cls(p, eps=0.0)
        with pytest.raises(ValueError, match="weight_decay must be finite and >= 0"):
            cls(p, weight_decay=-1.0)
    with pytest.raises(ValueError, match=r"betas\[0\] must be in \[0, 1\)"):
        fastlr.LazyAdam(p, betas=(1.0, 0.9))
    with pytest.raises(ValueError, match="lr_decay must be finite and >= 0"):
        fastlr.RowAdagrad(p, lr_decay=-1.0)


# ---- peers and adapters ----------------------------------------------------------------------------------------------

TORCH = {
    "SGD": ("SGD", {}),
    "Adagrad": ("Adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.5}),
    "SparseAdam": ("SparseAdam", {}),
    "SparseAdam-odd": ("SparseAdam", {"betas": (0.6, 0.8), "eps": 0.01}),
}
TORCH_STATES = {"m": "exp_avg", "v": "exp_avg_sq", "s": "sum", "b": "momentum_buffer"}


def close(actual, expected):
    assert (abs(actual - expected) / np.maximum(1, abs(expected))).max() <= 1e-12


@pytest.fixture
def torch():
    """With its checks of sparse tensors on; that they are off by default is a warning."""
    torch = pytest.importorskip("torch")
    with torch.sparse.check_sparse_tensor_invariants():
        yield torch


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("coalesced", [False, True])
@pytest.mark.parametrize("name", TORCH)
def test_torch(torch, name, coalesced, maximize):
    """Twenty steps in float64 with changing rates and rows, through the adapter."""
    case = next(c for c in CASES if c.id == name)
    rng = np.random.default_rng(12)
    p = table(rng, 50, 6, np.float64)
    other = torch.nn.Parameter(torch.from_numpy(p.copy()))
    opt = case.build(p, lr=lambda t: max(rate(t), 1e-3), maximize=maximize, weight_decay=0.0)
    cls, kwargs = TORCH[name]
    theirs = getattr(torch.optim, cls)([other], lr=0.01, maximize=maximize, **kwargs)
    for t in range(20):
        rows, grads = batch(rng, 50, 6, 30, np.float64)
        grad = torch.sparse_coo_tensor(rows[None], grads, (50, 6))
        other.grad = grad.coalesce() if coalesced else grad
        opt.step_rows(*fastlr.rows_of(other.grad))
        theirs.param_groups[0]["lr"] = max(rate(t), 1e-3)
        theirs.step()
        close(p, other.detach().numpy())
        for key in case.states:
            close(opt.state[key], theirs.state[other][TORCH_STATES[key]].numpy())


def test_torch_momentum_with_the_same_rows(torch):
    """torch moves all rows that ever had a gradient; with the same ones each time that is what fastlr does."""
    rng = np.random.default_rng(13)
    p = table(rng, 50, 6, np.float64)
    other = torch.nn.Parameter(torch.from_numpy(p.copy()))
    opt = fastlr.SGD(p, lr=0.1, momentum=0.9)
    theirs = torch.optim.SGD([other], lr=0.1, momentum=0.9)
    rows = np.array([3, 9, 3, 41])
    for _ in range(20):
        grads = table(rng, 4, 6, np.float64)
        other.grad = torch.sparse_coo_tensor(rows[None], grads, (50, 6))
        opt.step_rows(*fastlr.rows_of(other.grad))
        theirs.step()
        close(p, other.detach().numpy())


def test_torch_embedding(torch):
    layer = torch.nn.Embedding(20, 3, sparse=True)
    opt = fastlr.SGD(layer.weight, lr=1.0)
    before = layer.weight.detach().numpy().copy()
    layer(torch.tensor([4, 7, 4])).sum().backward()  # values of stride 0
    opt.step_rows(*fastlr.rows_of(layer.weight.grad))
    before[4] -= 2
    before[7] -= 1
    np.testing.assert_array_equal(layer.weight.detach().numpy(), before)


def test_torch_adapter(torch):
    g = torch.arange(6.0).reshape(3, 2)
    sparse = torch.sparse_coo_tensor([[5, 1, 5]], g, (8, 2))
    rows, grads = fastlr.rows_of(sparse)
    assert rows.tolist() == [5, 1, 5]
    assert grads.ctypes.data == g.data_ptr()  # no copy
    rows, grads = fastlr.rows_of(sparse.coalesce())
    assert rows.tolist() == [1, 5]
    assert grads.tolist() == [[2, 3], [4, 6]]
    elements = torch.sparse_coo_tensor([[5, 1, 5], [1, 0, 1]], [1.0, 2, 4], (8, 2))
    rows, grads = fastlr.rows_of(elements)
    assert rows.tolist() == [1, 5]
    assert grads.tolist() == [[2, 0], [0, 5]]
    assert grads.dtype == np.float32
    for wrong, error, part in (
        (torch.ones(3, 2), TypeError, "layout torch.strided"),
        (torch.ones(3, 2).to_mkldnn(), TypeError, "layout torch._mkldnn"),
        (torch.ones(3).to_sparse(), ValueError, "2 dimensions"),
    ):
        with pytest.raises(error, match=part):
            fastlr.rows_of(wrong)


@pytest.mark.parametrize("format", ["csr", "csc", "coo"])
@pytest.mark.parametrize("kind", ["array", "matrix"])
@both_types
def test_scipy_adapter(format, kind, dtype):
    sparse = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(14)
    whole = table(rng, 30, 5, dtype) * (rng.random((30, 5)) < 0.2)
    made = getattr(sparse, f"{format}_{kind}")(whole)
    rows, grads = fastlr.rows_of(made)
    np.testing.assert_array_equal(rows, np.flatnonzero(whole.any(axis=1)))
    np.testing.assert_array_equal(grads, whole[rows])
    assert grads.dtype == dtype
    p, q = np.zeros((30, 5), dtype), np.zeros((30, 5), dtype)
    fastlr.Adagrad(p).step_rows(rows, grads)
    fastlr.Adagrad(q).step(whole)
    np.testing.assert_array_equal(p, q)


def test_scipy_elements_given_twice_are_added():
    sparse = pytest.importorskip("scipy.sparse")
    made = sparse.coo_array((np.float32([1, 2, 4]), ([3, 3, 0], [1, 1, 0])), shape=(5, 2))
    rows, grads = fastlr.rows_of(made)
    assert rows.tolist() == [0, 3]
    assert grads.tolist() == [[4, 0], [0, 3]]


def test_adapter_refuses_what_is_not_sparse():
    for wrong in (np.ones((3, 2)), [[1.0]], None):
        with pytest.raises(TypeError, match="sparse torch tensor or SciPy matrix"):
            fastlr.rows_of(wrong)
