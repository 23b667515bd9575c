"""fastlr's rules in JAX, on CPUs: under ``jax.jit``, as a call of XLA's to the kernels, without Python or copies.

XLA's buffers are updated where they lie if they are donated: parameters and state by `in_place`, state by `transform`.
JAX gives each donated buffer to the first result of its shape that has none yet, so a function returns what it was
given in the order in which it was given: ``(params, state)``. Where a hyper-parameter is a schedule or a function,
Python is asked for its value at each step.
"""

from __future__ import annotations

import functools
import uuid
from typing import Any, NamedTuple

import numpy as np

from fastlr import _core
from fastlr.extras import need
from fastlr.optimizer import Optimizer
from fastlr.plain import plain

__all__ = ["InPlace", "State", "in_place", "transform"]

TARGET = "fastlr_step"


class State(NamedTuple):
    """Updates made, and a tree like the parameters for each state of the rule."""

    step: Any
    states: dict[str, Any]


class InPlace(NamedTuple):
    """``init(params)`` gives the state, ``step(params, grads, state)`` both after one step."""

    init: Any
    step: Any


def transform(rule: type[Optimizer], **hyper: Any) -> Any:
    """An ``optax.GradientTransformation`` that makes the steps of a fastlr class.

    Its updates are the new parameters less the old, so that ``optax.apply_updates`` is within a rounding of what the
    class itself gives. The rate is in it: chain nothing after it that scales. `in_place` spares both passes.

    State is updated where it lies in a function that is given parameters and state, both donated, and returns both, in
    that order, as in the example. Of ``opt.update`` alone donate gradients and state: without the gradients' buffers
    the updates would have those of the first state.

    Parameters
    ----------
    rule : type
        `fastlr.AdamW`, say. Rules that carry numbers for the whole model, or need a Hessian, are refused.
    **hyper
        Its hyper-parameters; each that is a number may be a schedule of fastlr's.

    Examples
    --------
    >>> import fastlr, fastlr.jax, functools, jax, jax.numpy as jnp, optax
    >>> opt = fastlr.jax.transform(fastlr.Adam, lr=0.1)
    >>> params = {"w": jnp.ones(3)}
    >>> state = opt.init(params)
    >>> @functools.partial(jax.jit, donate_argnums=(0, 1))
    ... def step(params, state):
    ...     updates, state = opt.update({"w": jnp.array([1.0, -2.0, 0.0])}, state, params)
    ...     return optax.apply_updates(params, updates), state
    >>> [round(float(x), 3) for x in step(params, state)[0]["w"]]
    [0.9, 1.1, 1.0]
    """
    optax = need("optax", "jax", "fastlr.jax.transform")
    init, step = _functions(rule, hyper, updates=True)

    def move(grads: Any, state: State, params: Any = None, **_: Any) -> Any:
        if params is None:
            raise ValueError("params must be given to update(grads, state, params): the rule works on them")
        return step(params, grads, state)

    return optax.GradientTransformation(init, move)


def in_place(rule: type[Optimizer], **hyper: Any) -> InPlace:
    """The steps of a fastlr class, bit for bit, on JAX's own buffers: donate parameters and state.

    What is not donated XLA copies first, so that nothing else ever changes.

    Parameters
    ----------
    rule, **hyper
        As in `transform`.

    Examples
    --------
    >>> import fastlr, fastlr.jax, functools, jax, jax.numpy as jnp
    >>> opt = fastlr.jax.in_place(fastlr.Adam, lr=0.1)
    >>> params = {"w": jnp.ones(3)}
    >>> state = opt.init(params)
    >>> @functools.partial(jax.jit, donate_argnums=(0, 1))
    ... def step(params, state):
    ...     return opt.step(params, {"w": jnp.array([1.0, -2.0, 0.0])}, state)
    >>> [round(float(x), 3) for x in step(params, state)[0]["w"]]
    [0.9, 1.1, 1.0]
    """
    return InPlace(*_functions(rule, hyper, updates=False))


@functools.cache
def _ffi() -> Any:
    """`jax.ffi`, once it knows the handler."""
    ffi = need("jax.ffi", "jax", "fastlr.jax")
    ffi.register_ffi_target(TARGET, _core._XLA_STEP, platform="cpu")
    return ffi


def _functions(rule: type[Optimizer], hyper: dict[str, Any], updates: bool) -> tuple[Any, Any]:
    jax, ffi = need("jax", "jax", "fastlr.jax"), _ffi()
    jnp = jax.numpy
    _, _, first, kernel, numbers, constant = plain(rule, hyper)
    keys, program = tuple(first), ""
    if not constant:  # a name that no other process has: what was compiled for another may be in JAX's cache on disk
        program = uuid.uuid4().hex
        _core.add_program(program, numbers)
    given = {"key": program, "numbers": np.array(numbers(0)), "rule": kernel, "updates": np.int64(updates)}

    def init(params: Any) -> State:
        fill = {key: jax.tree.map(lambda p, x=x: jnp.full_like(p, x), params) for key, x in first.items()}
        return State(jnp.zeros((), jnp.int32), fill)

    def step(params: Any, grads: Any, state: State) -> Any:
        """The new parameters, or what is to be added to them, and the new state."""
        leaves, tree = jax.tree.flatten(params)
        columns = [leaves, tree.flatten_up_to(grads), *(tree.flatten_up_to(state.states[key]) for key in keys)]
        for k, (p, g) in enumerate(zip(leaves, columns[1], strict=True)):
            if p.dtype != g.dtype or p.shape != g.shape or p.dtype not in (np.float32, np.float64):
                raise TypeError(
                    f"leaf {k}: parameter and gradient must be float32 or float64 of one shape, "
                    f"got {p.dtype}{list(p.shape)} and {g.dtype}{list(g.shape)}"
                )
        count = state.step + 1
        made: list[list[Any]] = [list(column) for column in (columns[0], *columns[2:])]
        for dtype in {p.dtype for p in leaves}:
            places = [k for k, p in enumerate(leaves) if p.dtype == dtype]
            n = len(places)
            taken = [column[k] for column in columns for k in places]
            shapes = [jax.ShapeDtypeStruct(leaves[k].shape, dtype) for _ in made for k in places]
            # Argument 0 is the count, n gradients come after the parameters.
            aliases = {} if updates else {1 + k: k for k in range(n)}
            aliases |= {1 + n + k: k for k in range(n, len(shapes))}
            call = ffi.ffi_call(TARGET, shapes, input_output_aliases=aliases, vmap_method="sequential")
            for j, x in enumerate(call(count, *taken, **given)):
                made[j // n][places[j % n]] = x
        unflatten = tree.unflatten
        states = {key: unflatten(column) for key, column in zip(keys, made[1:], strict=True)}
        return unflatten(made[0]), State(count, states)

    return init, step
