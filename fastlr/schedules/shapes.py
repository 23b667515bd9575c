"""The shapes that lead from one value to another: how much of the way is done when a part u of the time is over.

name               done                             for
linear             u
cosine             sin²(πu/2)                       half a cosine
cosine(k)          sin²(πuᵏ/2)                      k-decay; cosine(k, e): 1 − cos²(πuᵏ/2)ᵉ
polynomial(p)      1 − (1 − u)ᵖ                     polynomial(p, k): 1 − (1 − uᵏ)ᵖ
power(p)           uᵖ
1-sqrt             √u                               a decay by 1 − √u
sqrt               1 − √(1 − u)                     a decay by √(1 − u)
exponential(k)     (1 − e⁻ᵏᵘ) / (1 − e⁻ᵏ)           k = 5 if it is left out
geometric          value = start (end / start)ᵘ     both of one sign
rex(d)             1 − w / (1 − d + dw), w = 1 − u   d = 0.5: the paper's; 0.9: what trainers of diffusion models use
tanh(a, b)         (1 + tanh(a w + b u)) / 2    a = −7, b = 3: timm's; almost 0 and almost 1 at its ends
"""

from __future__ import annotations

import re
from typing import Any

from fastlr.hyper import real

# name: (name in the kernel, default parameters, how many must be given, how many may be)
_FORMS: dict[str, tuple[str, tuple[float, ...], int, int]] = {
    "linear": ("linear", (), 0, 0),
    "cosine": ("cosine", (1.0, 1.0), 0, 2),
    "polynomial": ("polynomial", (1.0, 1.0), 1, 2),
    "power": ("power", (), 1, 1),
    "1-sqrt": ("root", (), 0, 0),
    "sqrt": ("root_left", (), 0, 0),
    "exponential": ("exponential", (5.0,), 0, 1),
    "geometric": ("geometric", (), 0, 0),
    "rex": ("rex", (0.5,), 0, 1),
    "tanh": ("tanh", (-7.0, 3.0), 0, 2),
}


def shape(name: str, x: Any) -> str:
    """A check: the shape in its shortest spelling."""
    if not isinstance(x, str):
        raise TypeError(f"{name} must be the name of a shape, {', '.join(_FORMS)}, got {x!r}")
    match = re.fullmatch(r"\s*([\w-]+)\s*(?:\(([^()]*)\))?\s*", x)
    form = _FORMS.get(match[1]) if match else None
    if match is None or form is None:
        raise ValueError(f"{name} must be the name of a shape, {', '.join(_FORMS)}, got {x!r}")
    try:
        given = tuple(float(part) for part in match[2].split(",")) if match[2] and match[2].strip() else ()
    except ValueError:
        raise ValueError(f"{name}: the parameters of a shape must be numbers, got {x!r}") from None
    _, default, least, most = form
    if not least <= len(given) <= most:
        raise ValueError(f"{name}: {match[1]} takes {least} to {most} parameters, got {x!r}")
    for value in given:
        real(name, value)
    full = (*given, *default[len(given) :])
    if match[1] in ("cosine", "polynomial", "power", "exponential") and not all(value > 0 for value in full):
        raise ValueError(f"{name}: the parameters of {match[1]} must be > 0, got {x!r}")
    if match[1] == "rex" and not 0 <= full[0] < 1:
        raise ValueError(f"{name}: the parameter of rex must be in [0, 1), got {x!r}")
    shown = given if given != default[: len(given)] or len(given) < least else given[:least]
    return f"{match[1]}({', '.join(f'{value:.17g}' for value in shown)})" if shown else match[1]


def parsed(text: str) -> tuple[str, tuple[float, ...]]:
    """The kernel's name and parameters of a checked shape."""
    name, _, rest = text.partition("(")
    kernel, default, _, _ = _FORMS[name]
    given = tuple(float(part) for part in rest.rstrip(")").split(",") if part.strip())
    p = (*given, *default[len(given) :])
    if kernel in ("cosine", "polynomial") and p == (1.0, 1.0):
        return ("linear" if kernel == "polynomial" else kernel), ()
    if kernel == "cosine":
        return "cosine_power", p
    if kernel == "polynomial" and p[1] != 1:
        return "polynomial_power", p
    return kernel, p[:1] if kernel == "polynomial" else p
