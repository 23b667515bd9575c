"""Schedules from text, as on a command line: ``cosine(1e-3, 0, 10000).warmup(500)``.

The text is a Python expression of which only this is understood: calls of the functions of `fastlr.schedules` and of
the methods of schedules that return schedules, with numbers, strings, booleans, None, lists, tuples and dicts as
arguments, and + * >>. Nothing is evaluated by Python.
"""

from __future__ import annotations

import ast
import difflib
from typing import Any

from fastlr.schedules import combine  # noqa: F401 (the methods of schedules are forms)
from fastlr.schedules.schedule import FORMS, Schedule

MOST = 20_000  # characters
METHODS = {name for name, form in FORMS.items() if form.method} | {"bind"}


def parse(text: str) -> Schedule:
    """The schedule that a text describes, such as the `repr` of one.

    Examples
    --------
    >>> parse("cosine(1e-3, 0, 10000).warmup(500)")
    S.cosine(0.001, 0.0, 10000).warmup(500)
    >>> parse("__import__('os').system('ls')")
    Traceback (most recent call last):
    ValueError: there is no schedule or method 'system'; ...
    """
    if len(text) > MOST:
        raise ValueError(f"a schedule's text must have at most {MOST} characters, got {len(text)}")
    try:
        body = ast.parse(text.strip(), mode="eval").body
        result = _value(body)
    except SyntaxError as error:
        raise ValueError(f"not an expression: {text!r}: {error.msg} at column {error.offset}") from None
    except RecursionError:
        raise ValueError("the expression is nested too deeply") from None
    if not isinstance(result, Schedule):
        raise ValueError(f"the text must describe a schedule, got {text!r}")
    return result


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=int() | float() | str() | None):
            return node.value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as x)) if not isinstance(x, bool):
            return -x
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_value(part) for part in parts]
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {_value(key): _value(x) for key, x in zip(keys, values, strict=True) if key is not None}
        case ast.BinOp(left=left, op=op, right=right):
            return _combined(op, _value(left), _value(right), node)
        case ast.Call(func=function, args=args, keywords=keywords):
            return _call(function, args, keywords)
    raise ValueError(f"not understood: {ast.unparse(node)!r}")


def _combined(op: ast.operator, a: Any, b: Any, node: ast.expr) -> Any:
    if isinstance(a, Schedule | int | float) and isinstance(b, Schedule | int | float):
        if isinstance(op, ast.Mult):
            return a * b
        if isinstance(op, ast.Add):
            return a + b
        if isinstance(op, ast.RShift) and isinstance(a, Schedule):
            return a >> b
    raise ValueError(f"not understood: {ast.unparse(node)!r}")


def _call(function: ast.expr, args: list[ast.expr], keywords: list[ast.keyword]) -> Any:
    import fastlr.schedules as schedules

    if any(k.arg is None for k in keywords) or any(isinstance(a, ast.Starred) for a in args):
        raise ValueError("arguments must be written out, without * and **")
    match function:
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="S"), attr=name):
            if name not in FORMS or FORMS[name].method or name == "custom":
                raise _unknown(name)
            target = getattr(schedules, name)
        case ast.Attribute(value=inner, attr=name):
            if name not in METHODS or name in ("times", "plus"):
                raise _unknown(name)
            schedule = _value(inner)
            if not isinstance(schedule, Schedule):
                raise ValueError(f"{name}() is a method of schedules, not of {ast.unparse(inner)!r}")
            target = getattr(schedule, name)
        case _:
            raise ValueError(f"not understood: {ast.unparse(function)!r}")
    return target(*map(_value, args), **{k.arg: _value(k.value) for k in keywords if k.arg})


def _unknown(name: str) -> ValueError:
    known = sorted(set(FORMS) - {"times", "plus", "custom"})
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    return ValueError(f"there is no schedule or method {name!r}; {hint}")
