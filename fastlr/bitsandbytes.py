"""The 8-bit states of bitsandbytes' Adam: read into an optimizer of fastlr's, and written from one.

A state there is a code for each element, in blocks of 256 of a tensor laid flat, the last one shorter; a scale for each
block, its largest magnitude; and the map, 256 numbers up to 1 of which a code is the index. bitsandbytes itself is not
needed, nor torch: what comes in may be tensors or arrays, what goes out are arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastlr.precision import Packed, to_bfloat16, to_float32
from fastlr.storage import Bfloat16

if TYPE_CHECKING:
    from fastlr.buffers import Array
    from fastlr.optimizer import Optimizer
    from fastlr.structure import Structure

__all__ = ["dequantize", "dynamic_map", "load_states", "quantize", "states_of"]

Floats = npt.NDArray[np.float32]

BLOCK = 256
SMALL = 4096  # tensors of fewer elements have float32 state there, too
_MOMENTS = {"m": ("1", True), "v": ("2", False)}  # what they are called, and whether they have a sign
_WRAPPED = "__bnb_optimizer_quant_state__"  # where a state_dict of bitsandbytes >= 0.46 has all but the step


def dynamic_map(signed: bool) -> Floats:
    """The numbers of bitsandbytes' 256 codes, in order: within two units of float32 of ``create_dynamic_map(signed)``.

    0, 1, and for each power of ten from 1e-6 to 1 the middles of equal parts of [0.1, 1] of it: 1, 2, 4 to 64 of them
    and their negatives, or without a sign twice as many.

    Examples
    --------
    >>> dynamic_map(True)[[0, 127, 255]]
    array([-0.99296874,  0.        ,  1.        ], dtype=float32)
    """
    values = [0.0, 1.0]
    for k in range(7):
        edges = np.linspace(0.1, 1, 2 ** (k if signed else k + 1) + 1)
        middles = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (k - 6)
        values += [*middles, *(-middles if signed else ())]
    return np.sort(np.array(values, np.float32))


def quantize(x: npt.ArrayLike, qmap: npt.ArrayLike) -> tuple[npt.NDArray[np.uint8], Floats]:
    """Codes of the nearest numbers of a map, and the scale of each block.

    An error is at most half the widest gap of the map times its block's scale: of `dynamic_map` 0.71 % with a sign and
    0.36 % without. What is below half the least number of the map becomes 0; and where the largest is negative it is
    0.7 % less, for the map has 1 and no -1.

    Examples
    --------
    >>> codes, absmax = quantize([0.0, 1.0, -4.0], dynamic_map(True))
    >>> codes, absmax
    (array([127, 201,   0], dtype=uint8), array([4.], dtype=float32))
    >>> dequantize(codes, absmax, dynamic_map(True))
    array([ 0.      ,  0.990625, -3.971875], dtype=float32)
    """
    values: Floats = _map("qmap", qmap)
    x = np.asarray(x, np.float32)
    if not np.isfinite(x).all():
        raise ValueError("x must be finite, for a scale is its block's largest magnitude; remove NaN and infinity")
    blocks = np.zeros((-(-x.size // BLOCK), BLOCK), np.float32)
    blocks.reshape(-1)[: x.size] = x.reshape(-1)
    absmax = np.abs(blocks).max(1)
    share = np.divide(blocks, absmax[:, None], out=np.zeros_like(blocks), where=absmax[:, None] > 0)
    codes = np.searchsorted((values[1:] + values[:-1]) / 2, share).astype(np.uint8)
    return codes.reshape(-1)[: x.size].reshape(x.shape), absmax


def dequantize(codes: npt.ArrayLike, absmax: npt.ArrayLike, qmap: npt.ArrayLike) -> Floats:
    """The numbers that codes stand for, each the product of map and scale rounded once: the bits of bitsandbytes."""
    values, index, scales = _map("qmap", qmap), _array("codes", codes, np.uint8), _array("absmax", absmax, np.float32)
    if scales.shape != (-(-index.size // BLOCK),):
        raise ValueError(
            f"absmax must have {-(-index.size // BLOCK)} entries, one for each {BLOCK} of {index.size} codes, "
            f"got shape {scales.shape}; blocks of another size are not read"
        )
    numbers: Floats = values[index] * np.repeat(scales, BLOCK)[: index.size].reshape(index.shape)
    return numbers


def load_states(opt: Optimizer, states: Mapping[Any, Any] | Sequence[Any]) -> None:
    """Goes on from the moments and steps of a bitsandbytes Adam, wholly or, with an error, not at all.

    Parameters
    ----------
    opt : Adam or AdamW
        With the same parameters in the same order. Hyper-parameters stay as they are.
    states : dict or list
        One for each tensor: ``optimizer.state_dict()["state"]``, where a tensor without a step may be missing, or what
        `states_of` returned. Each has ``step``, and ``state1``, ``absmax1``, ``qmap1`` for m and the same with 2 for
        v; or state1 and state2 in float32 where the tensor has fewer than 4,096 elements.

    Notes
    -----
    In float32 state the moments are exactly those of bitsandbytes; in bfloat16 they are rounded, by at most 2**-8 of
    each. ``state_dtype="int8"`` has another code: m is then off by at most 1/254 of its block's largest, v by 2**-5 of
    itself, and v below 1.6e-5 of its block's largest, zeros too unless the block has nothing else, is raised to that.

    Examples
    --------
    >>> import fastlr
    >>> p = np.zeros(5000, np.float32)
    >>> opt = fastlr.AdamW(p, lr=0.1, state_dtype="int8")
    >>> opt.step(np.ones(5000, np.float32)).step
    1
    >>> (saved,) = states_of(opt)
    >>> saved["state1"].dtype, saved["absmax1"].shape, saved["step"]
    (dtype('uint8'), (20,), 1)
    >>> other = fastlr.AdamW(p, lr=0.1)
    >>> load_states(other, {0: saved})
    >>> other.step_count, other.state["m"][:2]
    (1, array([0.1, 0.1], dtype=float32))
    """
    _check(opt)
    structure = opt._structure
    moments = {key: [np.zeros(a.shape, np.float32) for a in structure.arrays] for key in _MOMENTS}
    places = {key: _tensors(structure, arrays) for key, arrays in moments.items()}
    made: list[set[int]] = [set() for _ in structure.arrays]
    for k, state in enumerate(_each(states, len(places["m"]))):
        made[places["m"][k].entry].add(_step(k, state))
        for key, (number, signed) in _MOMENTS.items():
            if state:
                place = places[key][k].array
                place[...] = _decoded(k, state, number, signed, place.size).reshape(place.shape)
    for k, steps in enumerate(made):
        if len(steps) > 1:
            raise ValueError(
                f"states must have one step for all tensors of params{structure.names[k]}, which has one count, "
                f"got {sorted(steps)}; keep the tensors in a dict or list"
            )
    counts = [max(steps, default=0) for steps in made]
    saved = opt.state_dict()
    saved.update(step=max(counts, default=0), steps=counts)
    saved["state"] = {key: _stored(opt, key, arrays) for key, arrays in moments.items()}
    opt.load_state_dict(saved)


def states_of(opt: Optimizer) -> list[dict[str, Any]]:
    """The moments and steps of `opt` as bitsandbytes has them, for each tensor: what `load_states` describes.

    With ``torch.from_numpy`` of each array they are the ``state`` of a state_dict for ``bitsandbytes.optim.AdamW8bit``,
    under 0, 1 and so on. `quantize` says what is lost.
    """
    _check(opt)
    steps = opt._plan.steps_made
    tensors = {key: _tensors(opt._structure, _floats(opt, key)) for key in _MOMENTS}
    found: list[dict[str, Any]] = [{"step": steps[place.entry]} for place in tensors["m"]]
    for key, (number, signed) in _MOMENTS.items():
        for state, (_, x) in zip(found, tensors[key], strict=True):
            if x.size < SMALL:
                state[f"state{number}"] = x.copy()
            else:
                qmap = dynamic_map(signed)
                codes, absmax = quantize(x, qmap)
                state.update({f"state{number}": codes, f"qmap{number}": qmap, f"absmax{number}": absmax})
    return found


class _Place(NamedTuple):
    entry: int
    array: Floats  # a view


def _tensors(structure: Structure, entries: Sequence[Floats]) -> list[_Place]:
    """Each tensor by itself: an entry may have several."""
    found = []
    for k, (tensors, array) in enumerate(zip(structure.tensors(), entries, strict=True)):
        ends = np.cumsum([tensor.size for tensor in tensors])[:-1]
        parts = np.split(array.reshape(-1), ends)
        found += [_Place(k, part.reshape(t.shape)) for part, t in zip(parts, tensors, strict=True)]
    return found


def _check(opt: Optimizer) -> None:
    if opt.rule not in ("adam", "adam_cautious"):
        raise TypeError(f"opt must be an Adam or AdamW, whose states are m and v, got {type(opt).__name__}")


def _each(states: Any, count: int) -> list[Mapping[str, Any]]:
    """A state for each tensor, an empty one where it had no step yet, in one dict."""
    if not isinstance(states, Mapping):
        if len(states) != count:
            raise ValueError(f"states must have {count} entries like the parameters, got {len(states)}")
        states = dict(enumerate(states))
    if unknown := [k for k in states if k not in range(count)]:
        raise ValueError(
            f"states must be numbered from 0 to {count - 1} like the parameters, got {', '.join(map(repr, unknown))}"
        )
    found = [states.get(k) or {} for k in range(count)]
    return [{**state, **state.get(_WRAPPED, {})} for state in found]


def _of(k: int, state: Mapping[str, Any], name: str) -> Any:
    if name not in state:
        raise ValueError(f"states[{k}] must have {name!r}, got {', '.join(map(repr, state))}")
    return state[name]


def _step(k: int, state: Mapping[str, Any]) -> int:
    step = int(_of(k, state, "step")) if state else 0
    if step < 0:
        raise ValueError(f"states[{k}]['step'] must be >= 0, got {step}")
    return step


def _decoded(k: int, state: Mapping[str, Any], number: str, signed: bool, size: int) -> Floats:
    name = f"states[{k}]['state{number}']"
    codes = np.asarray(_of(k, state, f"state{number}"))
    if codes.size != size:
        raise ValueError(f"{name} must have {size} elements like its parameter, got {codes.size}")
    if codes.dtype != np.uint8:
        wide: Floats = _array(name, codes, np.float32)
        return wide
    return dequantize(codes, _of(k, state, f"absmax{number}"), _of(k, state, f"qmap{number}"))


def _array(name: str, x: Any, dtype: Any) -> Any:
    x = np.asarray(x)
    if x.dtype != dtype:
        raise TypeError(f"{name} must be {np.dtype(dtype)}, got {x.dtype}")
    return x


def _map(name: str, qmap: Any) -> Floats:
    values: Floats = _array(name, qmap, np.float32)
    if values.shape != (256,) or not (np.diff(values) >= 0).all():
        raise ValueError(f"{name} must have 256 numbers in ascending order, got shape {values.shape}")
    return values


def _floats(opt: Optimizer, key: str) -> list[Floats]:
    """A state of the optimizer in float32, an array an entry."""
    layout = opt._layouts[key]
    if isinstance(layout, Packed):
        return list(opt._structure.take(layout.unpack(), key))
    return [to_float32(a) for a in opt._entries[key]]


def _stored(opt: Optimizer, key: str, entries: list[Floats]) -> dict[str, Array]:
    """The same in the optimizer's own storage, by name as in a checkpoint."""
    layout = opt._layouts[key]
    if isinstance(layout, Packed):
        layout = layout.like()
        layout.pack(opt._structure.build(entries))
        return layout.named(layout.arrays)
    if opt._formats[key] == "bfloat16":
        return {name: a.view(Bfloat16) for name, a in layout.named([to_bfloat16(a) for a in entries]).items()}
    return layout.named([a.astype(b.dtype) for a, b in zip(entries, opt._entries[key], strict=True)])
