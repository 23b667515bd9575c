"""The compiler of custom.py: Numba makes a user's function a kernel that fastlr's own threads run.

Never with ``parallel`` or ``fastmath``: nothing is reordered or contracted, so that results do not depend on the
machine.
"""

from __future__ import annotations

import ctypes
import inspect
import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlr import _core, custom
from fastlr.extras import need

if TYPE_CHECKING:
    from fastlr.custom import Custom

numba = need("numba", "jit", "fastlr.rule")
ir = need("numba.core.ir", "jit", "fastlr.rule")
errors = need("numba.core.errors", "jit", "fastlr.rule")
extending = need("numba.extending", "jit", "fastlr.rule")
_builder = need("numba.core.compiler", "jit", "fastlr.rule").DefaultPassBuilder
CompilerBase: Any = need("numba.core.compiler", "jit", "fastlr.rule").CompilerBase
FunctionPass: Any = need("numba.core.compiler_machinery", "jit", "fastlr.rule").FunctionPass
_register = need("numba.core.compiler_machinery", "jit", "fastlr.rule").register_pass
_passes = need("numba.core.untyped_passes", "jit", "fastlr.rule")
_t = numba.types

HEAD = 4  # scale, l2, decay, rate: kernels/made.c


# ---- what formulas may call -----------------------------------------------------------------------------------------


def _largest(x: Any) -> Any:
    real = np.float32 if x == _t.float32 else np.float64
    return real(np.finfo(real).max / 4)


@extending.overload(custom.average, strict=False)  # type: ignore[untyped-decorator]
def _(old: Any, new: Any, a: Any) -> Any:
    return lambda old, new, a: (old - a * old) + a * new


@extending.overload(custom.square, strict=False)  # type: ignore[untyped-decorator]
def _(x: Any) -> Any:
    most = _largest(x)

    def square(x: Any) -> Any:
        y = x * x
        return most if y > most else y

    return square


@extending.overload(custom.root, strict=False)  # type: ignore[untyped-decorator]
def _(x: Any) -> Any:
    return lambda x: math.sqrt(x)


@extending.overload(custom.sign, strict=False)  # type: ignore[untyped-decorator]
def _(x: Any) -> Any:
    real = np.float32 if x == _t.float32 else np.float64
    one, minus = real(1), real(-1)
    return lambda x: one if x > 0 else minus if x < 0 else x


@extending.overload(custom.larger, strict=False)  # type: ignore[untyped-decorator]
def _(a: Any, b: Any) -> Any:
    return lambda a, b: a if a > b or a != a else b


@extending.overload(custom.complement, strict=False)  # type: ignore[untyped-decorator]
def _(b: Any, t: Any) -> Any:
    return custom.complement


# ---- numbers of the arrays' type ------------------------------------------------------------------------------------

_ARITHMETIC = (operator.add, operator.sub, operator.mul, operator.truediv)
_COMPARING = (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne)


def _narrowing(real: Any) -> Any:
    """A compiler whose literals are of type `real`, as NumPy's are beside its scalars; and which refuses `raise`."""

    @_register(mutates_CFG=False, analysis_only=False)
    class Literals(FunctionPass):  # type: ignore[misc]
        _name = f"literals_{real.__name__}"

        def __init__(self) -> None:
            super().__init__()

        def run_pass(self, state: Any) -> bool:
            code = state.func_ir
            beside = set()  # integers beside an operator
            for block in code.blocks.values():
                for found in block.find_exprs("binop"):
                    if found.fn in (*_ARITHMETIC, *_COMPARING):
                        beside |= {found.lhs.name, found.rhs.name}
            for block in code.blocks.values():
                for line in block.body:
                    if isinstance(line, ir.Raise | ir.StaticRaise):
                        raise errors.UnsupportedError("a rule must not raise", loc=line.loc)
                    if not isinstance(line, ir.Assign) or not isinstance(line.value, ir.Const | ir.Global | ir.FreeVar):
                        continue
                    x = line.value.value
                    if type(x) is float or (type(x) is int and line.target.name in beside):
                        line.value = ir.Const(real(x), line.value.loc)
            return True

    class Compiler(CompilerBase):  # type: ignore[misc]
        def define_pipelines(self) -> list[Any]:
            pipeline = _builder.define_nopython_pipeline(self.state)
            pipeline.add_pass_after(Literals, _passes.IRProcessing)
            pipeline.finalize()
            return [pipeline]

    return Compiler


def _scalar(function: Callable[..., Any], real: Any, *arguments: Any) -> Any:
    """The user's function, compiled for these types; an error names its line."""
    inner = numba.njit(error_model="numpy", pipeline_class=_narrowing(real))(function)
    try:
        inner.compile(arguments)
    except Exception as error:  # Numba's own, and what comes out of it where it has a bug
        code, loc = function.__code__, getattr(error, "loc", None)
        line = code.co_firstlineno
        if loc is not None and loc.filename.endswith(code.co_filename.rpartition("/")[2]):
            line = loc.line
        reason = str(getattr(error, "msg", error)).strip().partition("\n\n")[0]
        raise TypeError(f'file "{code.co_filename}", line {line}, in {function.__qualname__}: {reason}') from error
    return inner


# ---- memory to tuples and back --------------------------------------------------------------------------------------


def _load(item: Any, layout: tuple[int, ...], start: int = 0) -> Any:
    """A function of a pointer to `item`, that returns as many as `layout` says: 0 for a number, n for a tuple of n."""
    shape = _t.Tuple(tuple(_t.UniTuple(item, n) if n else item for n in layout))

    @extending.intrinsic  # type: ignore[untyped-decorator]
    def load(typing: Any, pointer: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            place, values = start, []

            def take() -> Any:
                nonlocal place
                place += 1
                at = builder.gep(arguments[0], [context.get_constant(_t.intp, place - 1)])
                return context.unpack_value(builder, item, at)

            for n, kind in zip(layout, shape.types, strict=True):
                values.append(context.make_tuple(builder, kind, [take() for _ in range(n)]) if n else take())
            return context.make_tuple(builder, shape, values)

        return shape(pointer), generate

    return load


def _load_element(item: Any, count: int) -> Any:
    """A function of a tuple of pointers and an index, that returns the elements there."""
    shape = _t.UniTuple(item, count)

    @extending.intrinsic  # type: ignore[untyped-decorator]
    def load(typing: Any, pointers: Any, i: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            values = [
                builder.load(builder.gep(builder.extract_value(arguments[0], k), [arguments[1]])) for k in range(count)
            ]
            return context.make_tuple(builder, shape, values)

        return shape(pointers, i), generate

    return load


def _store(item: Any, first: int) -> Any:
    """A function of a tuple of pointers, an index and a tuple of numbers, that stores the latter from `first` on."""

    @extending.intrinsic  # type: ignore[untyped-decorator]
    def store(typing: Any, pointers: Any, i: Any, numbers: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            for k in range(len(pointers)):
                x = builder.extract_value(arguments[2], first + k)
                x = context.cast(builder, x, numbers.types[first + k], item)
                builder.store(x, builder.gep(builder.extract_value(arguments[0], k), [arguments[1]]))
            return context.get_dummy_value()

        return _t.void(pointers, i, numbers), generate

    return store


# ---- the kernel -----------------------------------------------------------------------------------------------------


def build(cls: type[Custom], made: _core.Made, kind: str) -> tuple[Any, ...]:
    """Compiles both functions for a type, checks them on a few elements, hands them to `made`; returns what to keep."""
    expected = _by_hand(cls, kind)  # first: its errors are plain Python
    at, chunk = _compile_scalars(cls), _compile_chunk(cls, kind)
    _compare(cls, kind, at.ctypes, chunk.address, expected)
    made.use(kind, at.address, chunk.address)
    return at, chunk


def _compile_scalars(cls: type[Custom]) -> Any:
    sizes = custom._sizes(cls)
    layout = tuple(0 if not isinstance(cls.defaults[name], tuple | list) else n for name, n in sizes.items())
    layout += (0,) * len(cls.carried)
    load, order, names = _load(_t.float64, layout), [*cls.hypers, *cls.carried], _wanted(cls)
    places = tuple(order.index(name) for name in names)
    pick = _picker(places)
    double = _t.float64
    kinds = [_t.UniTuple(double, layout[k]) if layout[k] else double for k in places]
    signature = _t.void(_t.int64, double, _t.CPointer(double), _t.CPointer(double))
    if cls.scalars is None:
        flat = _flatten(1)

        def plain(t: Any, lr: Any, hyper: Any, out: Any) -> None:
            out[0] = lr
            flat(out, pick(load(hyper)))

        return numba.cfunc(signature, error_model="numpy")(plain)
    arguments = (_t.int64, double, *kinds)
    inner = _scalar(cls.scalars, np.float64, *arguments)
    result = inner.overloads[arguments].signature.return_type
    write = _flatten(0)
    single = not _is_tuple(result)

    def at(t: Any, lr: Any, hyper: Any, out: Any) -> None:
        write(out, inner(*((t, lr) + pick(load(hyper)))))  # noqa: RUF005 - Numba takes one starred tuple

    def at_single(t: Any, lr: Any, hyper: Any, out: Any) -> None:
        write(out, (inner(*((t, lr) + pick(load(hyper)))),))  # noqa: RUF005

    return numba.cfunc(signature, error_model="numpy")(at_single if single else at)


def _wanted(cls: type[Custom]) -> list[str]:
    """The hyper-parameters and carried numbers that the function of a step takes, or without one the formula."""
    return [*inspect.signature(cls.scalars).parameters][2:] if cls.scalars else cls.names()


def _picker(places: tuple[int, ...]) -> Any:
    """A function of a tuple that returns its members at these places."""

    @extending.intrinsic  # type: ignore[untyped-decorator]
    def pick(typing: Any, values: Any) -> Any:
        shape = _t.Tuple(tuple(values.types[k] for k in places))

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return context.make_tuple(builder, shape, [builder.extract_value(arguments[0], k) for k in places])

        return shape(values), generate

    return pick


def _flatten(start: int) -> Any:
    """A function of a pointer and a tuple, that stores its numbers, those of tuples in it too, from `start` on."""

    @extending.intrinsic  # type: ignore[untyped-decorator]
    def flatten(typing: Any, out: Any, values: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            place = start
            for k, kind in enumerate(values.types):
                x = builder.extract_value(arguments[1], k)
                count = len(kind) if _is_tuple(kind) else 0
                parts = [(builder.extract_value(x, j), kind.dtype) for j in range(count)]
                for part, own in parts or [(x, kind)]:
                    at = builder.gep(arguments[0], [context.get_constant(_t.intp, place)])
                    builder.store(context.cast(builder, part, own, _t.float64), at)
                    place += 1
            return context.get_dummy_value()

        return _t.void(out, values), generate

    return flatten


def _is_tuple(kind: Any) -> bool:
    return isinstance(kind, _t.BaseTuple)


def _compile_chunk(cls: type[Custom], kind: str) -> Any:
    real, item = (np.float64, _t.float64) if kind == "d" else (np.float32, _t.float32)
    states, sees_p = len(cls.states), cls.sees_p
    sizes = custom._sizes(cls)
    tuples = {name: n for name, n in sizes.items() if isinstance(cls.defaults[name], tuple | list)}
    layout = tuple(0 if cls.scalars else tuples.get(name, 0) for name in cls.names())
    kinds = [_t.UniTuple(item, n) if n else item for n in layout]
    arguments = (item, *[item] * (sees_p + states), *kinds)
    inner = _scalar(cls.formula, real, *arguments)
    result = inner.overloads[arguments].signature.return_type
    single = not _is_tuple(result)
    pointer = _t.CPointer(item)
    load_scalars, load_states = _load(item, layout, HEAD), _load_element(item, states)
    load_pointers, store = _load(pointer, (0,) * states), _store(item, 1)

    @numba.njit(error_model="numpy", inline="always")  # type: ignore[untyped-decorator]
    def direction(x: Any, d: Any, s: Any, i: Any, scalars: Any) -> Any:
        before = (d, x) if sees_p else (d,)
        found = inner(*(before + load_states(s, i) + scalars))
        if single:
            return item(found)
        store(s, i, found)
        return item(found[0])

    @numba.njit(error_model="numpy")  # type: ignore[untyped-decorator]
    def loop(n: Any, p: Any, g: Any, s: Any, scale: Any, l2: Any, decay: Any, rate: Any, scalars: Any) -> None:
        for i in range(n):
            x = p[i]
            d = scale * g[i]
            if l2 != 0:
                d += l2 * x
            move = rate * direction(x, d, s, i, scalars)
            if decay != 0:
                move += decay * x
            p[i] = x - move

    @numba.cfunc(  # type: ignore[untyped-decorator]
        _t.void(_t.int64, pointer, pointer, _t.CPointer(pointer), pointer, _t.int64), error_model="numpy"
    )
    def chunk(n: Any, p: Any, g: Any, s: Any, numbers: Any, zero: Any) -> None:
        scalars = load_scalars(numbers)
        loop(n, p, g, load_pointers(s), numbers[0], numbers[1], numbers[2], numbers[3], scalars)
        if zero:
            for i in range(n):
                g[i] = item(0)

    return chunk


# ---- the check ------------------------------------------------------------------------------------------------------

SAMPLE = np.array([-3.0, -0.5, -1e-3, 0.0, 1e-6, 0.25, 1.0, 40.0])
TRIALS = 3
_FAR = {"f": 1e-4, "d": 1e-9}  # relative: a wrong kernel is farther off, functions of libm are not


def _by_hand(cls: type[Custom], kind: str) -> list[np.ndarray[Any, Any]]:
    """P and the states after a few steps by the user's own functions."""
    real = np.float64 if kind == "d" else np.float32
    p, states = SAMPLE.astype(real), [np.zeros(len(SAMPLE), real) for _ in cls.states]
    given = {**{name: cls.defaults[name] for name in cls.hypers}, **cls.carried}
    with np.errstate(all="ignore"):
        for t in range(1, TRIALS + 1):
            rate, scalars = _scalars_by_hand(cls, t, given)
            numbers = [tuple(map(real, x)) if isinstance(x, tuple | list) else real(x) for x in scalars]
            for i, g in enumerate(_gradients(t).astype(real)):
                own = [x[i] for x in states]
                found = cls.formula(g, *([p[i]] if cls.sees_p else []), *own, *numbers)
                found = found if isinstance(found, tuple) else (found,)
                if len(found) != 1 + len(states):
                    wanted = ", ".join(("u", *cls.states))
                    raise TypeError(f"{custom._where(cls.formula)} must return {wanted}, got {len(found)} values")
                for x, new in zip(states, found[1:], strict=True):
                    x[i] = new
                p[i] = p[i] - real(rate) * real(found[0])
    return [p, *states]


def _scalars_by_hand(cls: type[Custom], t: int, given: dict[str, Any]) -> tuple[float, list[Any]]:
    """The rate and what the formula takes; what is carried is replaced."""
    lr = 0.125
    if cls.scalars is None:
        return lr, [given[name] for name in cls.names()]
    found = cls.scalars(t, lr, *(given[name] for name in _wanted(cls)))
    found = found if isinstance(found, tuple) else (found,)
    names = ["the rate", *cls.names(), *cls.carried]
    if len(found) != len(names):
        raise TypeError(f"{custom._where(cls.scalars)} must return {', '.join(names)}, got {len(found)} values")
    numbers = [float(x) for x in found]
    given.update(zip(cls.carried, numbers[len(names) - len(cls.carried) :], strict=True))
    return numbers[0], numbers[1 : 1 + len(cls.names())]


def _gradients(t: int) -> np.ndarray[Any, Any]:
    return np.roll(SAMPLE, t) / t


def _compare(cls: type[Custom], kind: str, at: Any, chunk: int, expected: list[np.ndarray[Any, Any]]) -> None:
    real = np.float64 if kind == "d" else np.float32
    p, states = SAMPLE.astype(real), [np.zeros(len(SAMPLE), real) for _ in cls.states]
    hyper = np.array([*custom._flat(cls.defaults[name] for name in cls.hypers), *cls.carried.values()], np.float64)
    first, count = len(hyper) - len(cls.carried), len(cls.carried)
    out, pointer = np.zeros(1 + _core.SCALARS + _core.CARRY), ctypes.c_void_p
    double = ctypes.POINTER(ctypes.c_double)
    step = ctypes.CFUNCTYPE(None, ctypes.c_int64, pointer, pointer, pointer, pointer, ctypes.c_int64)(chunk)
    pointers = (pointer * max(1, len(states)))(*(x.ctypes.data for x in states))
    for t in range(1, TRIALS + 1):
        at(t, 0.125, hyper.ctypes.data_as(double), out.ctypes.data_as(double))
        numbers, g = np.concatenate([[1, 0, 0], out]).astype(real), _gradients(t).astype(real)
        if count:
            hyper[first:] = out[1 + len(cls.names()) :][:count]
        step(len(p), p.ctypes.data, g.ctypes.data, ctypes.addressof(pointers), numbers.ctypes.data, 0)
    for name, x, wanted in zip(("p", *cls.states), (p, *states), expected, strict=True):
        if not np.allclose(x, wanted, rtol=_FAR[kind], atol=_FAR[kind] * 1e-3, equal_nan=True):
            raise RuntimeError(
                f"{custom._where(cls.formula)}: compiled for {np.dtype(real)} it gives {name} {x}, in Python {wanted}, "
                "after three steps; it may depend on Python's integers, or on a global that has changed"
            )
