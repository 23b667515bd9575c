"""States in bitsandbytes' 8 bits: the map, the codes, and what an optimizer makes of them."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import fastlr
from fastlr.bitsandbytes import BLOCK, dequantize, dynamic_map, load_states, quantize, states_of
from fastlr.precision import to_float32
from tests.test_precision import values

N = 5000
BOTH = pytest.mark.parametrize("signed", [True, False])
HYPER = {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}


def numbers(signed, n=40 * BLOCK + 77):
    x = values(n, 5, 3)
    x[:BLOCK] = 0
    return x if signed else np.abs(x)


def scales(x):
    padded = np.zeros(-(-x.size // BLOCK) * BLOCK, np.float32)
    padded[: x.size] = np.abs(x)
    return np.repeat(padded.reshape(-1, BLOCK).max(1), BLOCK)[: x.size]


# ---- maps and codes -------------------------------------------------------------------------------------------------


@BOTH
def test_the_map_is_its_formula(signed):
    found = dynamic_map(signed).tolist()
    expected = {0.0, 1.0}
    for power in range(-6, 1):
        count = 2 ** (power + 6 + (not signed))
        for k in range(count):
            x = float(np.float32((0.1 + 0.9 * (k + 0.5) / count) * 10.0**power))
            expected |= {x, -x} if signed else {x}
    assert len(found) == 256
    np.testing.assert_allclose(found, sorted(expected), rtol=2**-23)


@BOTH
def test_codes_are_of_the_nearest_number(signed):
    qmap, x = dynamic_map(signed), numbers(signed)
    codes, absmax = quantize(x, qmap)
    assert absmax.size == 41
    share = np.divide(x, scales(x), out=np.zeros_like(x), where=scales(x) > 0)
    np.testing.assert_array_equal(np.abs(share - qmap[codes]), np.abs(share[:, None] - qmap).min(1))


@BOTH
def test_the_error_is_at_most_half_the_widest_gap(signed):
    x = numbers(signed)
    error = np.abs(dequantize(*quantize(x, dynamic_map(signed)), dynamic_map(signed)) - x)
    widest = np.diff(dynamic_map(signed)).max() / 2
    assert widest < (0.0071 if signed else 0.0036)
    assert (error <= widest * scales(x) * (1 + 2**-16)).all()
    assert (error / np.maximum(scales(x), 1e-30)).max() > 0.9 * widest


def test_blocks_that_hold_what_is_not_finite_are_refused():
    with pytest.raises(ValueError, match="x must be finite"):
        quantize([1.0, np.nan], dynamic_map(True))


def test_parts_that_do_not_fit_are_refused():
    codes, absmax = quantize(np.ones(300, np.float32), dynamic_map(False))
    with pytest.raises(ValueError, match="absmax must have 2 entries, one for each 256 of 300 codes"):
        dequantize(codes, absmax[:1], dynamic_map(False))
    with pytest.raises(ValueError, match="qmap must have 256 numbers in ascending order"):
        dequantize(codes, absmax, dynamic_map(False)[::-1])
    with pytest.raises(TypeError, match="codes must be uint8, got int64"):
        dequantize(codes.astype(np.int64), absmax, dynamic_map(False))


# ---- optimizers -----------------------------------------------------------------------------------------------------


def trained(params, steps=3, **options):
    opt = fastlr.AdamW(params, **{**HYPER, **options})
    for k in range(steps):
        opt.step(values(N, 2 + k, 1))
    return opt


@pytest.mark.parametrize("source", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("target", ["float32", "bfloat16", "int8"])
def test_moments_come_over_within_the_bounds_that_are_stated(source, target):
    opt = trained(np.zeros(N, np.float32), state_dtype=source)
    (state,) = states_of(opt)
    other = fastlr.AdamW(np.zeros(N, np.float32), state_dtype=target, **HYPER)
    load_states(other, [state])
    assert other.step_count == 3
    for key, number in (("m", 1), ("v", 2)):
        coded = dequantize(*(state[f"{part}{number}"] for part in ("state", "absmax", "qmap")))
        ours = opt.state[key].unpack() if source == "int8" else to_float32(opt.state[key])
        assert (np.abs(coded - ours) <= (0.0071 if key == "m" else 0.0036) * scales(ours)).all()
        found = other.state[key].unpack() if target == "int8" else to_float32(other.state[key])
        if target == "float32":
            np.testing.assert_array_equal(found, coded)
        elif target == "bfloat16":
            assert (np.abs(found - coded) <= 2**-8 * np.abs(coded)).all()
        elif key == "m":
            assert (np.abs(found - coded) <= scales(coded) / 253.9).all()
        else:
            least = 1.6e-5 * scales(coded)
            assert (np.abs(found - coded) <= np.where(coded >= least, coded / 31.9, least)).all()
            assert (found > 0).all()


def test_every_structure_has_a_state_for_each_tensor():
    shapes = {"w": (70, 80), "b": (80,), "none": (0, 4)}
    g = {name: values(int(np.prod(shape)), 4, 1).reshape(shape) for name, shape in shapes.items()}

    def models():
        arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        yield arrays, g
        yield list(arrays.values()), list(g.values())
        yield fastlr.FlatBuffer.pack(arrays), fastlr.FlatBuffer.pack(g)
        yield [{"params": [a]} for a in arrays.values()], [[x] for x in g.values()]

    found = []
    for params, grads in models():
        opt = fastlr.Adam(params, lr=0.1)
        opt.step(grads)
        found.append(states_of(opt))
        again = fastlr.Adam(params, lr=0.1)
        load_states(again, found[0])
        for key, entries in opt._entries.items():
            for ours, there in zip(again._entries[key], entries, strict=True):
                np.testing.assert_allclose(ours, there, atol=0.0071 * np.abs(there).max(initial=0))
    assert [state["state1"].shape for state in found[0]] == list(shapes.values())
    assert [state["state1"].dtype for state in found[0]] == [np.uint8, np.float32, np.float32]
    for other in found[1:]:
        np.testing.assert_equal(other, found[0])


def test_tensors_without_a_step_may_be_missing():
    opt = fastlr.Adam([np.zeros(N, np.float32), np.zeros(3, np.float32)])
    opt.step([np.ones(N, np.float32), np.ones(3, np.float32)])
    load_states(opt, {1: {"step": 7, "state1": np.ones(3, np.float32), "state2": np.ones(3, np.float32)}})
    assert opt._plan.steps_made == [0, 7]
    assert (opt.state["m"][0] == 0).all()
    assert (opt.state["v"][1] == 1).all()


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda s: s.clear(), ValueError, "states must have 1 entries like the parameters, got 0"),
        (lambda s: s[0].pop("step"), ValueError, r"states\[0\] must have 'step'"),
        (lambda s: s[0].pop("qmap2"), ValueError, r"states\[0\] must have 'qmap2'"),
        (lambda s: s[0].update(step=-1), ValueError, r"states\[0\]\['step'\] must be >= 0, got -1"),
        (lambda s: s[0].update(state2=s[0]["state2"][:-1]), ValueError, r"\['state2'\] must have 5000 elements"),
        (lambda s: s[0].update(state1=s[0]["state1"].astype(int)), TypeError, r"\['state1'\] must be float32, got int"),
        (lambda s: s[0].update(absmax1=s[0]["absmax1"][::8]), ValueError, "absmax must have 20 entries"),
    ],
)
def test_states_that_do_not_fit_change_nothing(spoil, error, message):
    opt = trained(np.zeros(N, np.float32))
    states = copy.deepcopy(states_of(trained(np.zeros(N, np.float32), steps=1)))
    spoil(states)
    before = opt.state_dict()
    with pytest.raises(error, match=message):
        load_states(opt, states)
    np.testing.assert_equal(opt.state_dict(), before)


def test_what_has_no_such_states_is_refused():
    with pytest.raises(TypeError, match="opt must be an Adam or AdamW, whose states are m and v, got SGD"):
        states_of(fastlr.SGD(np.zeros(3)))
    with pytest.raises(ValueError, match="numbered from 0 to 0 like the parameters, got 'w'"):
        load_states(fastlr.Adam(np.zeros(3)), {"w": {}})
    flat = fastlr.Adam(fastlr.FlatBuffer({"a": (2,), "b": (2,)}, np.float32))
    state = {"state1": np.ones(2, np.float32), "state2": np.ones(2, np.float32)}
    with pytest.raises(ValueError, match=r"states must have one step for all tensors .* got \[1, 2\]"):
        load_states(flat, [{"step": 1, **state}, {"step": 2, **state}])


# ---- the library itself ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bnb():
    pytest.importorskip("torch")
    return pytest.importorskip("bitsandbytes")


@BOTH
def test_map_and_decoded_numbers_are_the_librarys(bnb, signed):
    import torch

    qmap = bnb.functional.create_dynamic_map(signed)
    np.testing.assert_allclose(dynamic_map(signed), qmap.numpy(), rtol=2**-22)
    x = numbers(signed)
    codes, rest = bnb.functional.quantize_blockwise(torch.from_numpy(x), code=qmap, blocksize=BLOCK)
    theirs = bnb.functional.dequantize_blockwise(codes, absmax=rest.absmax, code=qmap, blocksize=BLOCK).numpy()
    np.testing.assert_array_equal(dequantize(codes, rest.absmax, qmap), theirs)
    own, absmax = quantize(x, qmap)
    np.testing.assert_array_equal(absmax, rest.absmax)
    ours = dequantize(own, absmax, qmap)
    # Theirs on CPUs are not quite the nearest, ours never further off.
    assert (np.abs(ours - x) <= np.abs(theirs - x) * (1 + 2**-20)).all()
    assert (np.abs(ours - theirs) <= np.diff(qmap).max().item() * scales(x)).all()


def their_training(bnb, grads):
    import torch

    sizes = [(50, 100), (300,)]
    params = [torch.nn.Parameter(torch.from_numpy(values(int(np.prod(s)), 1, 1).reshape(s).copy())) for s in sizes]
    opt = bnb.optim.AdamW8bit(params, **HYPER)
    for k in range(grads):
        their_step(opt, params, k)
    return params, opt


def their_step(opt, params, k):
    import torch

    for p in params:
        p.grad = torch.from_numpy(values(p.numel(), 10 + k, 1).reshape(p.shape))
    opt.step()


def test_a_run_of_the_librarys_goes_on_here_and_there_again(bnb):
    import torch

    params, theirs = their_training(bnb, 3)
    ours = fastlr.AdamW([p.detach().numpy().copy() for p in params], **HYPER)
    load_states(ours, theirs.state_dict()["state"])
    assert ours._plan.steps_made == [3, 3]
    for key, number in (("m", 1), ("v", 2)):
        state = theirs.state[params[0]]
        decoded = bnb.functional.dequantize_blockwise(
            state[f"state{number}"], absmax=state[f"absmax{number}"], code=state[f"qmap{number}"], blocksize=BLOCK
        )
        np.testing.assert_array_equal(ours.state[key][0], decoded.numpy())
        np.testing.assert_array_equal(ours.state[key][1], theirs.state[params[1]][f"state{number}"].numpy())
    back = {
        k: {name: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in state.items()}
        for k, state in enumerate(states_of(ours))
    }
    _, again = their_training(bnb, 1)
    again.load_state_dict({"state": back, "param_groups": theirs.state_dict()["param_groups"]})
    for p, q in zip(params, again.param_groups[0]["params"], strict=True):
        assert again.state[q].keys() == theirs.state[p].keys()
        assert again.state[q]["step"] == 3
    load_states(once := fastlr.AdamW([np.zeros_like(x) for x in ours.state["m"]], **HYPER), states_of(ours))
    load_states(
        twice := fastlr.AdamW([np.zeros_like(x) for x in ours.state["m"]], **HYPER), again.state_dict()["state"]
    )
    np.testing.assert_equal(once.state_dict(), twice.state_dict())  # what it took over is what it was given
    their_step(theirs, params, 3)
    ours.step([p.grad.numpy() for p in params])
    # The step is from the same moments, before they are coded again.
    for p, x in zip(params, ours._structure.arrays, strict=True):
        np.testing.assert_allclose(x, p.detach().numpy(), rtol=1e-6, atol=1e-3 * HYPER["lr"])
