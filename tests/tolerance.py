"""The one tolerance: how far a correct kernel may be from the reference, derived operation by operation.

The reference runs on `Bounded` numbers instead of arrays. Each holds a value, computed to more digits than float64,
and a bound on the error that arithmetic of the compute type (unit roundoff u = 2^-24 or 2^-53) may have made on the
way to it: a running error analysis (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.3). No
constant here was chosen so that a test passes. What is charged:

    x ± y        ex + ey                                  + u |result|      one rounding
    x y          |x| ey + |y| ex + ex ey                  + u |result| + η  one rounding, η for underflow
    x / y        (ex + |x / y| ey) / (|y| − ey)           + u |result| + η
    √x           √x − √(x − ex) or √(x + ex) − √x         + u |result|      x − ex not below 0 where x cannot be
    ∛x           ∛x − ∛(x − ex)                           + 1.71 u |result| kernels.h's
    max(x, y)    what max(x ± ex, y ± ey) may be; min too
    Σx           Σ ex + k 2^-53 Σ (|x| + ex)                    in double, k additions of a term: see `sum`
    c ? x : y    the error of the one chosen; infinite where the comparison c could go the other way
    |x|          ex
    sign(x)      2 where |x| <= ex: it may be another; else 0
    x > 0        as a number (heaviside): 1 where |x| <= ex; else 0
    exp, ln, xʸ  of scalars in double: what the derivative makes of ex and ey, + 2 2^-53 |result|, elementary.h's ulp
    scalar       computed in double (u = 2^-53), narrowed to the compute type where it meets an array: + u |scalar|
    bᵗ           (t − 1) 2^-53 bᵗ: repeated squaring makes as many roundings, weighted, for any t. 1 − bᵗ amplifies it
    b x          u (2 (1 − b) + b) |x| for the factor b of a running average: see `Factor`. x b is an ordinary product

So for one step of AdamW, of the update U = η m̂ / (√v̂ + ε): m̂ 2 roundings (narrowing c1, dividing), √v̂ 2 (half of
v's two, one for the root), + ε 1 and ε's narrowing, ÷ 1, η 2: 8 u |U|, where the kernel folds η √c2 / c1 and makes 5
of them; decay 2 u ηλ|p|; the sum and the difference 2; and through m and v what earlier steps left. Errors of p add
up over k steps, those of running averages fade: that is the growth, and it is not a formula but the computation
itself.

It covers the kernels, which calculate in another order, since each rounding of theirs is one of these or smaller: the
paper narrows lr, c1, c2 and ε where the kernel narrows two scalars, and divides three times where it does once. The
exceptions are the running average, old − (1 − b) old + (1 − b) new, whose own order `Factor` charges, and underflow:
where the paper divides by c1 first, the kernel does so last, and what had underflowed until then grows with it. So η
counts `late` times, 1 / c1 here.

Cancellation needs no care: in v − a² the absolute errors of v and a² stay while the difference shrinks, so the
quotient's bound grows by the condition factor (v + a²) / (v − a²) and the root's by half of it. Where the error of a
radicand exceeds it, its root may be NaN in a correct kernel and the bound is infinite; `check` says how often, so
that no test is empty.
"""

from __future__ import annotations

import numpy as np

WIDE = np.longdouble
BLOCK, LANES = 4096, 32


class Unclear(ArithmeticError):
    """A comparison of scalars that rounding errors may decide: what a correct kernel does then is not known."""


class Bounded(np.lib.mixins.NDArrayOperatorsMixin):
    """A value, a bound on its error, the type in which it is computed, and whether no rounding can make it negative.

    0-dimensional ones are the scalars of a step, in double.
    """

    late = 1.0

    def __init__(self, value, dtype, error=0.0, nonnegative=None):
        self.value = np.asarray(value, WIDE)
        self.error = np.broadcast_to(np.asarray(error, WIDE), self.value.shape)
        self.dtype = np.dtype(dtype)
        self.nonnegative = (
            self.value.ndim == 0 and bool(self.value >= self.error) if nonnegative is None else nonnegative
        )

    def __repr__(self):
        return f"Bounded({self.value}, {self.dtype}, {self.error})"

    def __pow__(self, t):
        if isinstance(t, Bounded):
            return np.power(self, t)
        value = self.value ** int(t)
        return Bounded(value, np.float64, (t - 1) * roundoff(np.float64) * value)

    @property
    def size(self):
        return self.value.size

    def astype(self, dtype):
        """The same numbers, to be calculated with in a wider type."""
        return Bounded(self.value, dtype, self.error, self.nonnegative)

    def sum(self, axis=None, dtype=None, out=None):
        """Of all, in double; `np.sum` calls it. The terms are charged where they are computed.

        Whatever the order, the error is at most k u / (1 − k u) Σ|x|, k the additions on the longest way from a term to
        the sum (Higham, section 4.2): 4096 / 32 in its lane, 32 of lanes, one a block; of n terms, n. The first of each
        three is to 0, and exact; one of these is kept here, for what is of second order.
        """
        n = self.size
        additions = min(n, min(-(-n // LANES), BLOCK // LANES) + LANES + -(-n // BLOCK) - 2)
        size = np.sum(abs(self.value) + self.error)
        error = np.sum(self.error) + additions * roundoff(np.float64) * size
        return Bounded(np.sum(self.value), np.float64, error, self.nonnegative or None)

    def __array_ufunc__(self, ufunc, method, *operands):
        if ufunc is np.greater and self.value.ndim == 0:
            x, y = (operand(o, np.dtype(np.float64)) for o in operands)
            if abs(x.value - y.value) < x.error + y.error:
                raise Unclear(f"{x.value} > {y.value} within {x.error + y.error}")
        if ufunc in (np.equal, np.not_equal, np.greater, np.less):
            result = ufunc(*(getattr(x, "value", x) for x in operands))
            if not np.ndim(result):
                return result
            x, y = (x if isinstance(x, Bounded) else Bounded(x, self.dtype) for x in operands)
            return Condition(result, (abs(x.value - y.value) <= x.error + y.error) & (x.error + y.error > 0))
        with np.errstate(all="ignore"):
            return operate(ufunc.__name__, *operands)

    def as_factor(self):
        return Factor(self.value, self.dtype, self.error, self.nonnegative)


class Condition:
    """A comparison of arrays, and where rounding could turn it; np.where takes it."""

    def __init__(self, value, unsure):
        self.value, self.unsure = value, unsure

    def __array_function__(self, function, types, arguments, kwargs):
        if function is not np.where:
            return NotImplemented
        condition, *choices = arguments
        dtype = next(x.dtype for x in choices if isinstance(x, Bounded))
        dtype = next((x.dtype for x in choices if isinstance(x, Bounded) and x.value.ndim), dtype)
        x, y = (operand(c, dtype) for c in choices)
        error = np.where(condition.value, x.error, y.error)
        return Bounded(
            np.where(condition.value, x.value, y.value),
            dtype,
            np.where(condition.unsure, np.inf, error),
            x.nonnegative and y.nonnegative,
        )


class Factor(Bounded):
    """β of a running average, of which a kernel holds a = 1 − β, narrowed, and computes β old as old − a old.

    a is off by u a, the product by u a |old| + η, the difference by u β |old|: in all u (2a + β) |old| + η, where β
    old in the paper's order would have 2 u β |old|. For β = 0 the difference is exactly 0. The root of one is one too,
    with 1 − √β = (1 − β) / (1 + √β): three roundings in double, beside the root's own.
    """


def hyper(x, factor=False):
    """A hyper-parameter as the reference takes it: numbers become scalars with errors, the rest stays."""
    if isinstance(x, tuple):
        return tuple(hyper(b, factor) for b in x)
    return x if isinstance(x, bool | str | None) else (Factor if factor else Bounded)(x, np.float64)


def hypers(given):
    return {name: hyper(x, factor=name in ("betas", "alpha", "beta", "beta3", "rho")) for name, x in given.items()}


def roundoff(dtype):
    """u, doubled where the reference's own rounding counts too."""
    own = 2 if np.finfo(dtype).nmant == np.finfo(WIDE).nmant else 1
    return own * WIDE(2) ** -(np.finfo(dtype).nmant + 1)


def operate(name, *operands):
    """One operation of the table above. Plain numbers are exact."""
    if name in ("exp", "log", "power"):
        return elementary(name, *operands)
    dtype = next((x.dtype for x in operands if isinstance(x, Bounded) and x.value.ndim), np.dtype(np.float64))
    u, underflow = roundoff(dtype), WIDE(np.finfo(dtype).smallest_subnormal) / 2
    x, y = (
        [operand(o, dtype) for o in operands]
        if len(operands) == 2
        else (operand(operands[0], dtype), Bounded(0, dtype))
    )
    rounded, nonnegative = True, x.nonnegative and y.nonnegative
    late = max(x.late, y.late)
    if name in ("add", "subtract"):
        value = x.value + y.value if name == "add" else x.value - y.value
        error = x.error + y.error
        nonnegative &= name == "add"
        rounded = not any(is_plain(o, 0) for o in operands)
    elif name == "multiply":
        value = x.value * y.value
        error = abs(x.value) * y.error + abs(y.value) * x.error + x.error * y.error
        nonnegative |= operands[0] is operands[1]
        rounded = not any(is_plain(o, 1) for o in operands)
        if rounded and isinstance(operands[0], Factor) and y.value.ndim:
            b, old = operands[0].value, y
            error = b * old.error + operands[0].error * (abs(old.value) + old.error)
            if b != 0:
                old_zero = (old.value == 0) & (old.error == 0)
                charge = u * (2 * (1 - b) + b) * (abs(old.value) + old.error) + underflow
                error = error + np.where(old_zero, 0, charge)
            rounded = False
    elif name == "divide":
        value = x.value / y.value
        error = (x.error + abs(value) * y.error) / (abs(y.value) - y.error)
        error = np.where(y.error < abs(y.value), error, np.where(x.error + y.error == 0, 0, np.inf))
        late = x.late if y.value.ndim else x.late / min(1.0, float(abs(y.value)) or 1.0)
    elif name == "sqrt":
        value = np.sqrt(x.value)
        least, most = np.sqrt(np.maximum(x.value - x.error, 0)), np.sqrt(x.value + x.error)
        error = np.fmax(np.minimum(x.error, x.value) / (value + least), x.error / (value + most))
        error = np.where(x.error == 0, 0, np.where((x.error <= x.value) | x.nonnegative, error, np.inf))
    elif name == "cbrt":
        value = np.cbrt(x.value)
        error = np.where(x.error == 0, 0, value - np.cbrt(np.maximum(x.value - x.error, 0))) + WIDE("0.71") * u * value
    elif name in ("maximum", "minimum"):
        choose, rounded = getattr(np, name), False
        value = choose(x.value, y.value)
        most, least = choose(x.value + x.error, y.value + y.error), choose(x.value - x.error, y.value - y.error)
        error = np.maximum(most - value, value - least)
    elif name == "absolute":
        value, error, rounded, nonnegative = abs(x.value), x.error, False, True
    elif name == "sign":
        value, error = np.sign(x.value), np.where((abs(x.value) > x.error) | (x.error == 0), 0, 2)
        rounded, nonnegative = False, False
    elif name == "heaviside":
        value, error = np.heaviside(x.value, y.value), np.where((abs(x.value) > x.error) | (x.error == 0), 0, 1)
        rounded, nonnegative = False, True
    elif name == "negative":
        value, error, rounded, nonnegative = -x.value, x.error, False, False
    else:
        raise NotImplementedError(f"the error of {name} is not derived")

    if rounded:
        # What is rounded is the value with its error. An exact 0 stays one: 0 x, 0 / x, √0.
        error = np.where((value == 0) & (error == 0), 0, error + u * (abs(value) + error))
        if name in ("multiply", "divide"):
            exact = ((x.value == 0) & (x.error == 0)) | ((y.value == 0) & (y.error == 0))
            small = abs(value) - error < late * np.finfo(dtype).smallest_normal
            error = error + np.where(small & ~exact, late * underflow, 0)
    # Beyond the largest number is infinity, and near it perhaps: an infinite bound says so, and stays.
    largest = WIDE(np.finfo(dtype).max)
    perhaps = (abs(value) - error <= largest) & (abs(value) + error > largest) & (error > 0)
    value = np.where(abs(value) > largest, np.copysign(WIDE(np.inf), value), value)
    error = np.where(np.isfinite(value), np.where(np.isnan(error), np.inf, error), 0)
    error = np.where(np.isinf(x.error) | np.isinf(y.error) | perhaps, np.inf, error)
    result = Bounded(value, dtype, error, bool(nonnegative) if nonnegative or np.ndim(value) else None)
    if name == "sqrt" and isinstance(operands[0], Factor):
        result = Factor(value, dtype, error + 3 * u * (1 - value))
    result.late = late if np.ndim(value) and name in ("multiply", "divide", "negative") else 1.0
    return result


def elementary(name, x, y=None):
    """A function of elementary.h, of numbers of a step; a plain one is a double that the kernel has too."""
    x, y = (o if isinstance(o, Bounded) else Bounded(o or 0, np.float64) for o in (x, y))
    assert x.value.ndim == y.value.ndim == 0
    with np.errstate(all="ignore"):
        if name == "exp":
            value = np.exp(x.value)
            error = value * np.expm1(x.error)
        elif name == "log":
            value = np.log(x.value)
            error = x.error / (x.value - x.error)
        else:
            value = x.value**y.value
            slopes = abs(y.value / x.value) * x.error + abs(np.log(x.value)) * y.error
            error = value * np.expm1(2 * slopes) if x.value != 0 else WIDE(0)
        error = error + 2 * roundoff(np.float64) * (abs(value) + error)
    return Bounded(value, np.float64, error, name != "log")


def operand(x, dtype):
    """A scalar that meets an array is rounded to its type first."""
    if not isinstance(x, Bounded):
        if x != int(x):
            raise TypeError(
                f"{x!r}: only integers are exact; pass hyper-parameters, the defaults too, through hypers()"
            )
        return Bounded(x, dtype)
    if x.value.ndim or dtype == np.float64:
        return x
    return Bounded(x.value, dtype, x.error + roundoff(dtype) * (abs(x.value) + x.error), x.nonnegative)


def is_plain(x, value):
    return not isinstance(x, Bounded) and x == value


def check(actual, expected, what=""):
    """Asserts that `actual` is within the bound of `expected`, element by element; returns errors in bounds.

    NaN must be NaN and infinity the same infinity, never a large number; zeros are equal whatever their sign; a
    subnormal has the bound that it was given, by η. The result is |error| / bound where the bound is finite and above
    zero, else 0; NaN where the bound is infinite and there is nothing to assert.
    """
    value, bound = expected.value, expected.error
    assert actual.shape == value.shape, f"{what}: shape {actual.shape}, expected {value.shape}"
    assert actual.dtype == expected.dtype, f"{what}: dtype {actual.dtype}, expected {expected.dtype}"
    with np.errstate(invalid="ignore", divide="ignore"):
        error = abs(actual.astype(WIDE) - value)
        same = (actual == value) | (np.isnan(actual) & np.isnan(value))
        good = same | (error <= bound) | np.isinf(bound)
        if not good.all():
            k = int(np.flatnonzero(~good)[np.argmax(np.where(np.isnan(error), np.inf, error / bound)[~good])])
            raise AssertionError(
                f"{what}: {np.count_nonzero(~good)} of {good.size} beyond the bound; worst at {k}: {actual.flat[k]!r}, "
                f"expected {value.flat[k]!r} within {bound.flat[k]:.3g}, off by {error.flat[k]:.3g}"
            )
        return np.where(np.isinf(bound), np.nan, np.where(bound > 0, np.where(same, 0, error / bound), 0)).astype(float)
