"""Numbers in fewer bits, with whatever a step does beside: the same bits for any instruction set, thread count, offset
and split, and no byte beyond the buffers.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fastlr import _core
from fastlr.precision import Packed
from tests.cases import CASES
from tests.test_exact import Arena, use
from tests.test_precision import BLOCK, ISAS, NARROW, NARROWED, STORAGES, build, stored, values

N = 3 * BLOCK + 333
COPY = "copy_to"  # its dtype here
STEP = ("clip_value", "clip_norm", "zero_grads")  # options of a step, the others of an optimizer
HALF = ("bfloat16", "float16")
BESIDE = [
    {"ema": 0.9},
    {COPY: "float32"},
    {COPY: "float16"},
    {COPY: "bfloat16"},
    {"clip_value": 0.5},
    {"clip_norm": 1.0},
    {"zero_grads": True},
    {"ema": 0.9, COPY: "bfloat16", "clip_value": 0.5, "zero_grads": True},
    {"ema": 0.9, COPY: "float16", "clip_norm": 1.0, "zero_grads": True},
]
ROUNDED = [{"rounding": "stochastic"}, {"rounding": "kahan"}, {"master": "split"}, {"master": "float32"}]
TOGETHER = [
    {"rounding": "stochastic", **BESIDE[-1]},
    {"rounding": "kahan", **BESIDE[-2]},
    {"master": "split", **BESIDE[-1]},
    {"master": "float32", **BESIDE[-2]},
]


def allows(storage, options):
    if options.get("master") == "split":
        return storage[0] == "bfloat16"
    return storage[0] in HALF if options.keys() & {"rounding", "master"} else True


# Rules of 0 to 4 states; that sum over tensors, groups, the model; whose states are not all narrowed; with a Hessian.
SOME = (
    *("SGD-decay", "SGD-momentum", "Lion", "AMSGrad", "Adan", "Ftrl", "ScheduleFreeAdamW", "Sophia"),
    *("AdamW-cautious", "LAMB", "DoG", "Prodigy"),
)
FEW = [STORAGES[k] for k in (2, 6, 9, 11, 12)]
ADAMW = next(case for case in CASES if case.id == "AdamW")
RULES = [case for case in CASES if case.id in SOME]
assert len(RULES) == len(SOME)


def combinations(every, some):
    """Of rule, storage and options: AdamW with `every` storage, other rules with `some`."""
    pairs = [(ADAMW, s) for s in every] + [(case, s) for case in RULES for s in some]
    narrowed = [(case, s) for case, s in pairs if s[2] == "float32" or case in NARROWED]
    return [(*pair, o) for pair in narrowed for o in (*BESIDE, *ROUNDED, *TOGETHER) if allows(pair[1], o)]


def name_of(x):
    if isinstance(x, tuple):
        return "/".join(x)
    return ",".join(f"{key}={value}" for key, value in x.items()) if isinstance(x, dict) else str(x)


def parts_of(arenas):
    arrays = [arena.array for arena in arenas]
    return arrays if len(arrays) > 1 else arrays[0]


def run(case, storage, n, options=None, *, cuts=(), offset=0, steps=3):
    """Everything that some steps write, as bytes in the order of the elements: parameters, state, what is beside.

    State in 8 bits is unpacked, which keeps all that there is: each part's codes lie before its scales.
    """
    options = options or {}
    ends = list(itertools.pairwise([0, *cuts, n]))
    at = itertools.cycle([offset, 3 * offset % 4, 2 * offset % 4])

    def placed(x):
        return [Arena(x[a:b], next(at)) for a, b in ends]

    params, arenas = placed(stored(values(n, 1), storage[0])), []
    given = {key: value for key, value in options.items() if key not in (*STEP, COPY)}
    if COPY in options:
        copies = placed(stored(np.zeros(n, np.float32), options[COPY]))
        given[COPY] = parts_of(copies)
        arenas += copies
    opt = build(case, parts_of(params), lr=0.01, state_dtype=storage[2], dtype="bfloat16", **given)
    for step in range(steps):
        grads, extra = placed(stored(values(n, 2 + step), storage[1])), {}
        if case.optimizer.informed:
            extra["hessian"] = parts_of(placed(stored(np.abs(values(n, 9)), storage[1])))
        before = [g.array.copy() for g in grads]
        opt.step(parts_of(grads), **{key: options[key] for key in STEP if key in options}, **extra)
        for g, was in zip(grads, before, strict=True):
            np.testing.assert_array_equal(g.array, 0 if "zero_grads" in options else was)
        arenas += grads
    for arena in (*params, *arenas):
        arena.check()
    found = {"p": [x.array for x in params], **opt._entries, **opt._beside}
    for key in opt.states:
        if isinstance(opt.state[key], Packed):
            found[key] = opt.state[key].unpack() if len(ends) > 1 else [opt.state[key].unpack()]
    return {key: b"".join(a.tobytes() for a in arrays) for key, arrays in found.items()}, opt


# ---- instruction sets, threads and offsets --------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def machine():
    isa, threads = _core.isa(), _core.get_threads()
    yield
    use(isa, threads)


@pytest.mark.parametrize(("case", "storage", "options"), combinations(STORAGES, FEW), ids=name_of)
def test_bits_do_not_depend_on_instructions_threads_and_offset(case, storage, options):
    use("baseline", 1)
    expected, opt = run(case, storage, N, options)
    numbers = np.array(opt._plan.numbers)
    for isa, (threads, offset) in itertools.product(ISAS, [(1, 1), (2, 0), (3, 3)]):
        use(isa, threads)
        found, opt = run(case, storage, N, options, offset=offset)
        assert found == expected, (isa, threads, offset)
        np.testing.assert_array_equal(opt._plan.numbers, numbers)


@pytest.mark.parametrize("options", [*BESIDE, *ROUNDED, *TOGETHER], ids=name_of)
def test_each_option_changes_something(options):
    """So that the bits above are of what is asked for."""
    storage = ("bfloat16", "bfloat16", "float32")
    plain, _ = run(ADAMW, storage, N)
    found, opt = run(ADAMW, storage, N, options)
    assert found.keys() - plain.keys() == {
        {"ema": "ema", COPY: "copy", "kahan": "lost", "split": "low", "float32": "master"}[key]
        for key in (*options, *options.values())
        if key in ("ema", COPY, "kahan", "split") or (key == "float32" and "master" in options)
    }
    copies = opt._beside.get("copy", [])
    assert all(np.count_nonzero(x) > 0.9 * N for x in (*copies, *opt._beside.get("ema", [])))
    if options.keys() & {"rounding", "master", "clip_value", "clip_norm"}:
        assert found["p"] != plain["p"]


# ---- splits ---------------------------------------------------------------------------------------------------------

ANYWHERE = ([1], [7, 300, 4097], [BLOCK, 2 * BLOCK], [0, 5, 5, N - 1])
WHOLE = [case for case in NARROW if case.scope != "tensor"]


def same_when_cut(case, storage, options, n, ways):
    whole, opt = run(case, storage, n, options)
    numbers = opt._plan.numbers
    for k, cuts in enumerate(ways):
        use(ISAS[k % len(ISAS)], 1 + k % 3)
        parts, opt = run(case, storage, n, options, cuts=cuts, offset=k % 4)
        for key, expected in whole.items():
            assert parts[key] == expected, (key, cuts)
        for row in numbers:
            assert all(np.array_equal(row, x) for x in opt._plan.numbers[: len(numbers)]), cuts


@pytest.mark.parametrize(
    ("case", "storage", "options"),
    [x for x in combinations(STORAGES, FEW) if x[1][2] != "int8" and x[0].scope != "tensor"],
    ids=name_of,
)
def test_bits_do_not_depend_on_cuts(case, storage, options):
    same_when_cut(case, storage, options, N, ANYWHERE)


@pytest.mark.parametrize(
    ("case", "storage"),
    [(case, s) for case in WHOLE for s in STORAGES if s[2] == "float32" or (s[2] == "bfloat16" and case in NARROWED)],
    ids=name_of,
)
def test_bits_of_no_rule_depend_on_cuts(case, storage):
    same_when_cut(case, storage, {}, N, ANYWHERE)


BLOCKWISE = ([BLOCK], [BLOCK + 256, 2 * BLOCK + 512], [2 * BLOCK - 256, 3 * BLOCK])


@pytest.mark.parametrize(
    ("case", "storage", "options"),
    [(case, s, {}) for case in WHOLE if case in NARROWED for s in STORAGES if s[2] == "int8"]
    + [x for x in combinations(STORAGES, FEW) if x[1][2] == "int8" and x[0].scope != "tensor"],
    ids=name_of,
)
def test_bits_of_8_bit_state_do_not_depend_on_cuts_at_whole_blocks(case, storage, options):
    """Where every part has 4,096 elements or more; the last may end within a block."""
    same_when_cut(case, storage, options, 4 * BLOCK + 600 + 77, BLOCKWISE)


@pytest.mark.parametrize("cuts", [[BLOCK + 1], [BLOCK - 256], [BLOCK - 256, 2 * BLOCK]], ids=str)
def test_other_cuts_change_8_bit_state(cuts):
    """Within a block, or so that a part is shorter than 4,096 elements, which then is float32."""
    storage = ("float32", "float32", "int8")
    n = 4 * BLOCK
    assert run(ADAMW, storage, n)[0]["p"] != run(ADAMW, storage, n, cuts=cuts)[0]["p"]
