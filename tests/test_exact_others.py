"""As tests/test_exact.py, of what is not a row of tests/cases.py: steps of some rows, Schedule-Free's average, and the
kernel of Muon, without the products of matrices.

Each is a function of `place`, which says where a buffer lies. All that it is given back must have the bits of the run
whose buffers are aligned, on one thread of the baseline, wherever buffers lie and whoever runs it.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fastlr import _core
from fastlr.rules.muon import average
from tests import test_rows
from tests.cases import nonzero
from tests.test_exact import BLOCK, ISAS, Arena, guarded, not_on_windows, use
from tests.test_schedule_free import CLASSES

LONG = 2 * BLOCK + 37
both_types = pytest.mark.parametrize("dtype", [np.float32, np.float64])
every_rule = pytest.mark.parametrize("case", test_rows.CASES, ids=lambda case: case.id)


@pytest.fixture(autouse=True)
def machine():
    isa, threads = _core.isa(), _core.get_threads()
    yield
    use(isa, threads)


class Places:
    """Arenas at `offsets`, which take turns."""

    def __init__(self, *offsets):
        self.at, self.arenas = itertools.cycle(offsets), []

    def __call__(self, x):
        self.arenas.append(Arena(x.reshape(-1), next(self.at)))
        return self.arenas[-1].array.reshape(x.shape)

    def check(self):
        for arena in self.arenas:
            arena.check()


def beside_a_page(at_end):
    return lambda x: guarded(x.reshape(-1), at_end).reshape(x.shape)


def equal(found, expected, *where):
    assert len(found) == len(expected)
    for k, (x, y) in enumerate(zip(found, expected, strict=True)):
        np.testing.assert_array_equal(x, y, err_msg=f"result {k}, {where}")


def baseline(run):
    use("baseline", 1)
    return run(Places(0))


def same_anywhere(run):
    expected = baseline(run)
    for isa, threads, offset in itertools.product(ISAS, (1, 2, 3), (0, 1, 3)):
        use(isa, threads)
        places = Places(offset, 3 * offset % 4, 2 * offset % 4)
        equal(run(places), expected, isa, threads, offset)
        places.check()


def reads_nothing_beyond(run):
    """A read beyond would end the process here, by SIGSEGV."""
    expected = baseline(run)
    for isa, at_end in itertools.product(ISAS, (True, False)):
        use(isa, 1)
        equal(run(beside_a_page(at_end)), expected, isa, at_end)


# ---- some rows ------------------------------------------------------------------------------------------------------

TABLES = [(1, 1, 1), (3, 1, 5), (4, 2, 1), (40, 7, 60), (50, 16, 20), (90, 33, 300), (20, 65, 40)]  # rows, width, given


def of_rows(case, dtype, rows, width, n, index):
    """Three steps of a table, its states and what they are given; the gradients, in the end, are as they were."""
    rng = np.random.default_rng(rows + width)
    start = nonzero(rows * width, dtype, 0).reshape(rows, width)
    given = [test_rows.batch(rng, rows, width, n, dtype, index) for _ in range(3)]
    kwargs = {name: x for name, x in case.kwargs.items() if name != "initial_accumulator_value"}

    def run(place):
        p = place(start)
        state = {key: place(x) for key, x in case.fresh(rows, width, dtype).items()}
        for step, (chosen, g) in enumerate(given, 1):
            i, d = place(chosen), place(g)
            case.function(p, d, *state.values(), step=step, lr=0.1, rows=i, grad_scale=0.7, **kwargs)
            np.testing.assert_array_equal(i, chosen)
            np.testing.assert_array_equal(d, g)
        touched = np.unique(np.concatenate([chosen for chosen, _ in given]))
        assert (p[touched] != start[touched]).any() or case.id == "FTRL-odd"  # which may have it at 0
        return [p, *state.values()]

    return run


@every_rule
@both_types
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_rows_have_the_same_bits_anywhere(case, dtype, index):
    for rows, width, n in TABLES:
        same_anywhere(of_rows(case, dtype, rows, width, n, index))


@not_on_windows
@every_rule
@both_types
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_rows_read_nothing_beyond_a_buffer(case, dtype, index):
    for rows, width, n in TABLES:
        reads_nothing_beyond(of_rows(case, dtype, rows, width, n, index))


# ---- Schedule-Free's average ----------------------------------------------------------------------------------------


def of_average(cls, kwargs, dtype, n, cuts=()):
    """From y and z of any bits to x, in an array or several; y and z stay as they are."""
    y, z = nonzero(n, dtype, 0), nonzero(n, dtype, 1)
    group = cls(np.zeros(1, dtype), **kwargs).groups[0]

    def run(place):
        placed = [[place(part) for part in np.split(x, cuts)] for x in (y, z, np.zeros(n, dtype))]
        given, beside, out = placed
        pieces = [(k, 0, x.size, 0) for k, x in enumerate(out)]
        cls.average(out, [f"[{k}]" for k in range(len(out))], given, beside, pieces, [group])
        found = [np.concatenate(parts) for parts in placed]
        equal(found[:2], [y, z])
        assert np.count_nonzero(found[2]) == n
        return found

    return run


both = pytest.mark.parametrize(("cls", "kwargs"), CLASSES)


@both
@both_types
@pytest.mark.parametrize("n", [1, 7, 33, BLOCK - 1, LONG])
def test_the_average_has_the_same_bits_anywhere(cls, kwargs, dtype, n):
    same_anywhere(of_average(cls, kwargs, dtype, n))


@not_on_windows
@both
@both_types
@pytest.mark.parametrize("n", [1, 3, 33, BLOCK + 5])
def test_the_average_reads_nothing_beyond_a_buffer(cls, kwargs, dtype, n):
    reads_nothing_beyond(of_average(cls, kwargs, dtype, n))


@both
@both_types
@pytest.mark.parametrize("cuts", [[1], [0, 5, 5, 4097], [BLOCK, 2 * BLOCK], [LONG - 1]], ids=str)
def test_the_average_does_not_know_cuts(cls, kwargs, dtype, cuts):
    expected = baseline(of_average(cls, kwargs, dtype, LONG))
    for k, isa in enumerate(ISAS):
        use(isa, k + 1)
        equal(of_average(cls, kwargs, dtype, LONG, cuts)(Places(k, 3)), expected, isa)


@both
@both_types
def test_eval_params_is_that_average(cls, kwargs, dtype):
    """Through an optimizer, whose parameters and result lie anywhere."""
    start, grads = nonzero(LONG, dtype, 0), [nonzero(LONG, dtype, k) for k in (1, 2)]

    def run(place):
        p, out = place(start), place(np.zeros(LONG, dtype))
        opt = cls(p, **kwargs)
        for g in grads:
            opt.step(place(g))
        before = [p.copy(), opt.state["z"].copy()]
        assert opt.eval_params(out) is out
        equal([p, opt.state["z"]], before)
        return [out, *before]

    same_anywhere(run)


# ---- Muon's kernel --------------------------------------------------------------------------------------------------


def of_muon(dtype, n, cuts=()):
    """Two steps along directions that are given: b is exactly what rules/muon.py takes it to be."""
    start, momentum = nonzero(n, dtype, 0), nonzero(n, dtype, 1)
    given = [(nonzero(n, dtype, 2 + k), nonzero(n, dtype, 5 + k)) for k in range(2)]

    def run(place):
        p, b = ([place(part) for part in np.split(x, cuts)] for x in (start, momentum))
        pieces = [(k, 0, x.size, 0) for k, x in enumerate(p)]
        plan = _core.Plan("muon", np.dtype(dtype).char, p, [""] * len(p), {"b": b}, pieces, 1, "muon")
        plan.set_group(0, 0.1, 0.0, 0.2, (0.9,))
        expected = momentum
        for g, o in given:
            d, along = ([place(part) for part in np.split(x, cuts)] for x in (g, o))
            plan.step(d, 0.7, False, -1.0, False, _core.PROPAGATE, along)
            equal([np.concatenate(d), np.concatenate(along)], [g, o])
            expected = average(expected, dtype(0.7) * g, dtype(1 - 0.9))
        found = [np.concatenate(x) for x in (p, b)]
        np.testing.assert_array_equal(found[1], expected)
        exact, path = start.astype(np.float64), abs(start)
        for _, o in given:
            move = 0.1 * (o + 0.2 * exact)
            exact, path = exact - move, path + abs(move) + 0.02 * abs(exact)
        assert (abs(found[0] - exact) <= 4 * np.finfo(dtype).eps * path).all()  # five roundings of half of it a step
        return found

    return run


@both_types
@pytest.mark.parametrize("n", [1, 7, 33, BLOCK - 1, LONG])
def test_muons_kernel_has_the_same_bits_anywhere(dtype, n):
    same_anywhere(of_muon(dtype, n))


@not_on_windows
@both_types
@pytest.mark.parametrize("n", [1, 3, 33, BLOCK + 5])
def test_muons_kernel_reads_nothing_beyond_a_buffer(dtype, n):
    reads_nothing_beyond(of_muon(dtype, n))


@both_types
@pytest.mark.parametrize("cuts", [[1], [0, 5, 5, 4097], [BLOCK, 2 * BLOCK], [LONG - 1]], ids=str)
def test_muons_kernel_does_not_know_cuts(dtype, cuts):
    expected = baseline(of_muon(dtype, LONG))
    for k, isa in enumerate(ISAS):
        use(isa, k + 1)
        equal(of_muon(dtype, LONG, cuts)(Places(k, 3)), expected, isa)
