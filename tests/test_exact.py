"""The same bits for any instruction set, thread count, offset, length and split; and no byte beyond the buffers.

What everything is compared with is one run for each optimizer, type and weight decay: the baseline instruction set, one
thread, aligned, in one piece, of the longest length. Elements do not know their neighbours, so a run of any length must
give the first elements of that one. Where they do, because the rule sums over them, there is one for each length.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import mmap
import sys

import numpy as np
import pytest

import fastlr
from fastlr import _core
from tests.cases import CASES, nonzero

BLOCK = _core.BLOCK
ISAS = [name for name, runs in _core.isas().items() if runs]
THREADS = [1, 2, 3, 7]
OFFSETS = [0, 1, 3]
SHORT = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129]
LONG = [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3, 3 * BLOCK + 5, 8 * BLOCK + 17, 100_003]
MOST = max(LONG)
STEPS = 3
DECAYS = [0.0, 0.1]


def steps(case):
    """A rule that sums over the model finds its rate at the second, and uses it at the third."""
    return 3 if case.scope == "model" else 2


def lr(case):
    return 10.0 if case.scope == "model" else 0.01


every_case = pytest.mark.parametrize("case", CASES, ids=str)
both_types = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)


@pytest.fixture(autouse=True)
def machine():
    """What a test sets for the process, it does not leave behind."""
    isa, threads, ahead = _core.isa(), _core.get_threads(), _core.asks()
    yield
    _core.use_isa(isa)
    _core.set_threads(threads)
    _core.ask(ahead)


def use(isa, threads):
    _core.use_isa(isa)
    _core.set_threads(threads)


# ---- memory ---------------------------------------------------------------------------------------------------------

CANARY, MARGIN = 0xA5, 128


class Arena:
    """An array `offset` elements off a cache line, between bytes that nobody may touch."""

    def __init__(self, values, offset):
        size = values.dtype.itemsize
        self.memory = np.full(values.nbytes + 2 * MARGIN + 64 + 8 * size, CANARY, np.uint8)
        start = MARGIN + (-self.memory.ctypes.data - MARGIN) % 64 + offset * size
        self.outside = self.memory[:start], self.memory[start + values.nbytes :]
        self.array = self.memory[start : start + values.nbytes].view(values.dtype)
        self.array[:] = values
        assert values.size == 0 or (self.array.ctypes.data - offset * size) % 64 == 0

    def check(self):
        assert all((part == CANARY).all() for part in self.outside), "bytes beyond the buffer were written"


@pytest.mark.parametrize("where", [-1, 0])
def test_arena_notices_a_write_beyond_its_ends(where):
    arena = Arena(np.ones(5, np.float32), 1)
    arena.check()
    arena.outside[where][where] = 0
    with pytest.raises(AssertionError, match="beyond"):
        arena.check()


# ---- the baseline ---------------------------------------------------------------------------------------------------


@functools.cache
def data(dtype, scope):
    """Parameters, and gradients of each step: none of them zero, and of one sign, so that no step undoes another.

    Where tensors or groups are summed of either sign, so that terms cancel and cautious steps are masked, and each
    smaller than the last, which does as well.
    """
    arrays = [nonzero(MOST, dtype, seed) for seed in range(1 + STEPS)]
    if scope in ("tensor", "group"):
        arrays[1:] = [g * dtype(16.0**-k) for k, g in enumerate(arrays[1:])]
    else:
        arrays[1:] = [np.copysign(g, arrays[1]) for g in arrays[1:]]
    for x in arrays:
        x.flags.writeable = False
    return arrays[0], arrays[1:]


def update(case, p, gradients, state, decay, zero=False):
    for step, g in enumerate(gradients[: steps(case)], 1):
        options = {"grad_scale": 0.7, "zero_grads": zero}
        case.function(p, g, **state, step=step, lr=lr(case), **{**case.call_kwargs, "weight_decay": decay}, **options)


@functools.cache
def baseline(case_id, dtype, decay, n, first=0):
    """What elements `first` to `first + n` become by themselves, and what is carried."""
    case = next(c for c in CASES if c.id == case_id)
    use("baseline", 1)
    start, gradients = data(dtype, case.scope)
    p = start[first : first + n].copy()
    state = case.start(p)
    before = {"p": p.copy(), **{key: x.copy() for key, x in state.items()}}
    update(case, p, [g[first : first + n] for g in gradients], state, decay)
    after = {"p": p, **state}
    for key, x in after.items():
        assert np.isfinite(x).all(), key
        # Two steps of one length, of either sign, may cancel in a few elements, or in one that is alone.
        least = 0.9 * x.size - 10 if case.scope in ("tensor", "group") else x.size if n else 0
        assert np.count_nonzero(x != before[key]) >= least, f"{key}: not every element changed"
        x.flags.writeable = False
    if case.scope == "model" and n == MOST:
        assert state["numbers"][0] > case.kwargs.get("d0", 0)
    return after


def check_run(case, dtype, n, decay, zero, offsets):
    """One run through `fastlr.functional`, with every buffer in an arena, against the baseline."""
    start, gradients = data(dtype, case.scope)
    at = itertools.cycle(offsets)
    arenas = {"p": Arena(start[:n], next(at))}
    arenas |= {key: Arena(x, next(at)) for key, x in case.start(start[:n]).items()}
    grads = [Arena(g[:n], next(at)) for g in gradients[: steps(case)]]
    state = {key: arena.array for key, arena in arenas.items() if key != "p"}
    update(case, arenas["p"].array, [g.array for g in grads], state, decay, zero)
    for key, expected in baseline_first(case, dtype, decay, n).items():
        np.testing.assert_array_equal(arenas[key].array, expected, err_msg=key)
        arenas[key].check()
    for arena, g in zip(grads, gradients, strict=False):
        np.testing.assert_array_equal(arena.array, np.zeros_like(g[:n]) if zero else g[:n])
        arena.check()


def baseline_first(case, dtype, decay, n):
    of = kept(baseline, case.id, dtype, decay, MOST if case.scope == "alone" else n)
    return {key: x if key == "numbers" else x[:n] for key, x in of.items()}


def baseline_cut(case, dtype, decay, ends):
    """Of all elements in a list of arrays: each by itself where the rule sums over tensors."""
    if case.scope != "tensor":
        return baseline_first(case, dtype, decay, MOST)
    parts = [kept(baseline, case.id, dtype, decay, b - a, a) for a, b in ends if a < b]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def kept(run, *arguments):
    """The result of a run that sets instruction set and threads, which then are what they were."""
    isa, threads = _core.isa(), _core.get_threads()
    try:
        return run(*arguments)
    finally:
        use(isa, threads)


# ---- runs -----------------------------------------------------------------------------------------------------------


@both_types
@every_case
def test_short_buffers(case, dtype):
    """Every length on every instruction set at every offset; decay, zeroing and threads take turns."""
    turn = itertools.count()
    for n, isa, offset in itertools.product(SHORT, ISAS, OFFSETS):
        k = next(turn)
        use(isa, THREADS[k % 4])
        check_run(case, dtype, n, DECAYS[k % 2], k // 2 % 2 == 1, [offset])
    for n, isa in itertools.product(SHORT, ISAS):  # each buffer at another offset
        use(isa, 1)
        check_run(case, dtype, n, DECAYS[n % 2], n // 2 % 2 == 1, [3, 0, 1, 2])


@both_types
@every_case
def test_long_buffers(case, dtype):
    """Every length on every instruction set with every number of threads; decay, zeroing and offsets take turns."""
    turn = itertools.count()
    for n, isa, threads in itertools.product(LONG, ISAS, THREADS):
        k = next(turn)
        use(isa, threads)
        check_run(case, dtype, n, DECAYS[k % 2], k // 2 % 2 == 1, [OFFSETS[k % 3]])


@functools.cache
def splits():
    """Ways to cut MOST elements: each a list of ends, the last of which is MOST."""
    rng = np.random.default_rng(0)
    return {
        "first": [1],
        "last": [MOST - 1],
        "empty": [0, 0, 5, 5, 5, MOST, MOST],
        "ones": list(range(1, 70)),
        "odd": list(itertools.accumulate(range(1, 130, 2))),
        "vectors": [7, 8, 9, 15, 16, 17, 31, 33, 64, 65],
        "blocks": [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK + 1, 3 * BLOCK, 7 * BLOCK + 3],
        "chunks": [k * MOST // 7 + 1 for k in range(1, 7)],
        "random": sorted(rng.integers(0, MOST, 60).tolist()),
    }


@both_types
@every_case
def test_lists_of_arrays_cut_anywhere(case, dtype):
    """Every split on every instruction set; decay, zeroing, threads and offsets take turns."""
    start, gradients = data(dtype, case.scope)
    turn = itertools.count()
    for (name, cuts), isa in itertools.product(splits().items(), ISAS):
        k = next(turn)
        use(isa, THREADS[k % 4])
        decay, zero = DECAYS[k % 2], k // 2 % 2 == 1
        ends = list(itertools.pairwise([0, *cuts, MOST]))
        params = [Arena(start[a:b], (k + j) % 4) for j, (a, b) in enumerate(ends)]
        opt = case.build([x.array for x in params], lr=lr(case), weight_decay=decay)
        for g in gradients[: steps(case)]:
            grads = [Arena(g[a:b], (k + 2 * j) % 4) for j, (a, b) in enumerate(ends)]
            opt.step([x.array for x in grads], grad_scale=0.7, zero_grads=zero)
            for x, (a, b) in zip(grads, ends, strict=True):
                x.check()
                np.testing.assert_array_equal(x.array, np.zeros(b - a, dtype) if zero else g[a:b])
        found = {"p": np.concatenate([x.array for x in params])}
        found |= {key: np.concatenate(opt.state[key]) for key in opt.states}
        for key, expected in baseline_cut(case, dtype, decay, ends).items():
            if key != "numbers":
                np.testing.assert_array_equal(found[key], expected, err_msg=f"{key}, {name}")
            elif case.scope == "tensor":
                np.testing.assert_array_equal(np.ravel(opt._plan.numbers), expected, err_msg=name)
            else:  # the model's, the group's, or each array's own: one row or many, all the same; then the tuner's
                rows = opt._plan.numbers
                own = rows[: len(rows) - 4 * case.tuned]
                for row in own:
                    np.testing.assert_array_equal(np.concatenate([row, *rows[len(own) :]]), expected, err_msg=name)
        for x in params:
            x.check()


@both_types
@every_case
def test_instruction_set_threads_and_prefetching_may_change_between_steps(case, dtype):
    start, gradients = data(dtype, case.scope)
    p = start.copy()
    opt = case.build(p, lr=lr(case), weight_decay=0.1)
    ways = zip(reversed([*ISAS, *ISAS, *ISAS]), (7, 2, 3)[: steps(case)], _core.ASKINGS, gradients, strict=False)
    for isa, threads, asking, g in ways:
        use(isa, threads)
        _core.ask(asking)
        opt.step(g, grad_scale=0.7)
    expected = baseline_first(case, dtype, 0.1, MOST)
    np.testing.assert_array_equal(p, expected["p"])
    for key in opt.states:
        np.testing.assert_array_equal(opt.state[key], expected[key])


# ---- reads ----------------------------------------------------------------------------------------------------------


not_on_windows = pytest.mark.skipif(sys.platform == "win32", reason="mprotect")


def guarded(values, at_end):
    """A copy of `values` that ends where a page that may not be touched begins, or begins where one ends."""
    page = mmap.PAGESIZE
    inside = -(-max(values.nbytes, 1) // page) * page
    memory = mmap.mmap(-1, inside + 2 * page)
    whole = np.frombuffer(memory, np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    for first in (0, page + inside):
        address = ctypes.c_void_p(whole.ctypes.data + first)
        assert libc.mprotect(address, ctypes.c_size_t(page), mmap_none()) == 0, ctypes.get_errno()
    start = page + (inside - values.nbytes if at_end else 0)
    array = whole[start : start + values.nbytes].view(values.dtype)
    array[:] = values
    return array


def mmap_none():
    return ctypes.c_int(0)  # PROT_NONE, which the module mmap does not name


@not_on_windows
@pytest.mark.parametrize("at_end", [True, False], ids=["end", "start"])
@both_types
@every_case
def test_nothing_beyond_a_buffer_is_read(case, dtype, at_end):
    """A read beyond would end the process here, by SIGSEGV."""
    start, gradients = data(dtype, case.scope)
    for n, isa in itertools.product([1, 3, 33, BLOCK + 5], ISAS):
        use(isa, 1)
        p = guarded(start[:n], at_end)
        state = {key: guarded(x, at_end) for key, x in case.start(start[:n]).items()}
        update(case, p, [guarded(g[:n], at_end) for g in gradients], state, 0.1)
        expected = baseline_first(case, dtype, 0.1, n)
        np.testing.assert_array_equal(p, expected["p"])
        for key, x in state.items():
            np.testing.assert_array_equal(x, expected[key])


# ---- the norm -------------------------------------------------------------------------------------------------------


def norm(*gradients, limit=1e300):
    params = [np.zeros_like(g) for g in gradients]
    return fastlr.SGD(params, lr=0.0).step(list(gradients), clip_norm=limit).grad_norm


def exact_norm(g):
    """In the middle of double's range, summed without error."""
    scale = 2.0 ** -math.frexp(float(abs(g).max()))[1]
    return math.sqrt(math.fsum((float(x) * scale) ** 2 for x in g)) / scale


def norm_bound(n):
    """Half the relative error of the sum, of positive terms, and one rounding for the root; twice, for `exact_norm`.

    The sum: one rounding for a square, BLOCK / 32 in a lane, 32 for the lanes, and one a block.
    """
    return 2 * ((1 + BLOCK / 32 + 32 + n / BLOCK + 1) / 2 + 1) * 2**-53


@both_types
def test_norm_has_the_same_bits_everywhere(dtype):
    rng = np.random.default_rng(3)
    for n in [1, 2, 31, 32, 33, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5, MOST]:
        # Of many magnitudes, so that another order of summation has other bits.
        g = (nonzero(n, dtype, 1) * 10.0 ** rng.uniform(-8, 8, n)).astype(dtype)
        use("baseline", 1)
        expected = norm(g)
        assert expected == pytest.approx(exact_norm(g), rel=norm_bound(n))
        for isa, threads, offset in itertools.product(ISAS, THREADS, OFFSETS):
            use(isa, threads)
            arena = Arena(g, offset)
            assert norm(arena.array) == expected
            arena.check()


@both_types
def test_norm_does_not_know_how_a_model_is_cut(dtype):
    rng = np.random.default_rng(4)
    g = (nonzero(MOST, dtype, 1) * 10.0 ** rng.uniform(-8, 8, MOST)).astype(dtype)
    use("baseline", 1)
    expected = norm(g)
    for k, ((name, cuts), isa) in enumerate(itertools.product(splits().items(), ISAS)):
        use(isa, THREADS[k % 4])
        parts = [Arena(g[a:b], (k + j) % 4).array for j, (a, b) in enumerate(itertools.pairwise([0, *cuts, MOST]))]
        assert norm(*parts) == expected, name


def test_another_order_of_summation_would_be_seen():
    """The gradients above are such that the plain sum has other bits."""
    rng = np.random.default_rng(4)
    g = nonzero(MOST, np.float64, 1) * 10.0 ** rng.uniform(-8, 8, MOST)
    assert len({norm(g), norm(g[::-1].copy()), math.sqrt(np.sum(g * g))}) > 1


@pytest.mark.parametrize("n", [1, 7, 5000])
@pytest.mark.parametrize("size", [1e200, 1e-200, 1e300, 1e-300, 5e-324])
@pytest.mark.parametrize("isa", ISAS)
def test_norm_beyond_the_range_of_squares(isa, size, n):
    use(isa, 2)
    g = nonzero(n, np.float64, 1) * size
    assert norm(g, limit=sys.float_info.max) == pytest.approx(subnormal_norm(g), rel=norm_bound(n), abs=5e-324)


def subnormal_norm(g):
    """As `exact_norm`, where the scale itself would overflow."""
    shift = math.frexp(float(abs(g).max()))[1]
    return math.ldexp(math.sqrt(math.fsum(math.ldexp(float(x), -shift) ** 2 for x in g)), shift)


@pytest.mark.parametrize("isa", ISAS)
def test_norm_of_float32_extremes(isa):
    use(isa, 2)
    for size in (3e38, 1e-45, 1e-38):
        g = np.full(5000, size, np.float32)
        assert norm(g) == pytest.approx(exact_norm(g), rel=norm_bound(5000))


@both_types
@pytest.mark.parametrize("isa", ISAS)
def test_norm_of_nothing_of_zeros_and_of_what_is_not_finite(isa, dtype):
    use(isa, 3)
    assert norm(np.zeros(0, dtype)) == 0
    assert norm(np.zeros(100, dtype)) == 0
    assert norm(np.full(100, -0.0, dtype)) == 0
    for where in (0, 31, 32, 99):
        g = np.ones(100, dtype)
        g[where] = -np.inf
        assert norm(g) == np.inf
        g[where] = np.nan
        assert math.isnan(norm(g))
