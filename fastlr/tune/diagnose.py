"""What is wrong with a run, from its history: the evidence in numbers, and what to change."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastlr.buffers import Array
from fastlr.hyper import count
from fastlr.training.callbacks import Callback
from fastlr.training.history import History
from fastlr.training.loop import Run

KINDS = ("too high", "overfitting", "too low", "plateau", "healthy")

_BLOCKS = 20  # the curve is read as so many means
_LEAST = 2 * _BLOCKS  # steps
_LOST = 0.5  # share of the descent that, lost again, means a rate too high
_SWINGS = 0.9  # share of steps at which the loss turns; noise turns at 2/3 of them
_LARGE = 0.1  # of the parameters, changed by each step: nothing can be learnt that fast
_SMALL = 1e-3
_TINY = 1e-5
_NOISY = 0.03  # of the loss at the start: the noise of large steps
_SHOCK = 0.5  # of the descent, by which the loss first rose
_SURE = 4.0  # standard errors
_FLAT = 0.02  # of the loss at the start, gained in the whole second half
_STUCK = 0.35  # of the loss at the start: a run that has fallen by less, is flat, and whose gradient ...
_PULL = 0.1  # is still more than this of what it was, has not converged; nor has one
_NOTHING = 0.1  # that has fallen by less than this
_STEADY = 0.4  # of the first half's descent made in the second: the run does not slow down
_WORSE = 0.1  # of its descent that the validation loss has risen again
_VALIDATIONS = 5


@dataclass(frozen=True)
class Finding:
    """One thing about a run.

    Attributes
    ----------
    kind : {"too high", "overfitting", "too low", "plateau", "healthy"}
        The rate is too high or too low; the loss is stuck on a plateau or at a saddle; the validation loss rises while
        the training loss falls; nothing of these.
    what : str
        What was seen, with its numbers.
    advice : str
        What to change.
    evidence : dict of str to float
        The numbers.
    """

    kind: str
    what: str
    advice: str
    evidence: dict[str, float]


@dataclass(frozen=True)
class Diagnosis:
    """All findings, the gravest first; `verdict` is its kind."""

    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> str:
        return self.findings[0].kind

    def __str__(self) -> str:
        return "\n".join(f"{f.kind}: {f.what}. {f.advice}." for f in self.findings)


def diagnose(history: History) -> Diagnosis:
    """Reads a history for the ways in which training goes wrong.

    Parameters
    ----------
    history : History
        Of `train`; at least 40 steps unless it diverged. Overfitting shows only with a validation loss.

    Returns
    -------
    Diagnosis

    Notes
    -----
    A history cannot tell a saddle from a plateau, nor either from data that has nothing to teach. "healthy" says that
    none of the others was seen, not that the rate is the best. ``python -m bench.diagnose`` prints the confusion table
    over real runs that were made to fail each way, and the false alarms over 100 healthy ones.

    Examples
    --------
    >>> import fastlr, numpy as np
    >>> w = np.array([5.0])
    >>> run = fastlr.train(lambda w, step: (w[0] ** 2, 2 * w), w, fastlr.SGD(w, lr=1.01), steps=60)
    >>> print(fastlr.tune.diagnose(run))  # doctest: +ELLIPSIS
    too high: the loss ended at 235, from 25 at the start and 26 at its lowest: ...
    """
    if not isinstance(history, History):
        raise TypeError(f"history must be a fastlr.History, got {type(history).__name__}")
    losses = np.array(history.loss)
    if (found := _not_finite(history, losses)) is not None:
        return Diagnosis((found,))
    if len(losses) < _LEAST:
        raise ValueError(f"history must have at least {_LEAST} steps, got {len(losses)}")
    with np.errstate(all="ignore"):  # losses near the largest number
        return _read(history, _Curve(losses))


def _read(history: History, curve: _Curve) -> Diagnosis:
    high = (_rises(curve) or _shock(curve), _swings(curve), _large_steps(history, curve))
    findings = [f for f in (*high, _overfits(history)) if f is not None]
    if not any(high) and (found := _low_or_stuck(history, curve)) is not None:
        findings.append(found)
    return Diagnosis(tuple(findings) or (_healthy(history, curve),))


class Diagnose(Callback):
    """`diagnose` while it trains: a line on stderr whenever the verdict changes, and the run's end where asked for.

    Parameters
    ----------
    every : int, default 100
        Steps between two looks.
    stop : sequence of str, optional
        Verdicts that end the run, as ``("too high", "overfitting")``.
    quiet : bool, default False
        Whether nothing is printed; ``verdicts`` has what was seen all the same, as (step, Diagnosis).
    """

    def __init__(self, every: int = 100, stop: Sequence[str] = (), quiet: bool = False) -> None:
        self.every, self.quiet = count("every", every), quiet
        for kind in stop:
            if kind not in KINDS:
                raise ValueError(f"stop must name verdicts ({', '.join(map(repr, KINDS))}), got {kind!r}")
        self.stop = tuple(stop)
        self.verdicts: list[tuple[int, Diagnosis]] = []

    def step(self, run: Run) -> None:
        ended = run.step == run.steps or bool(run.history.stopped)
        if run.step % self.every and not ended:
            return
        if run.step < _LEAST and math.isfinite(run.history.loss[-1]):
            return
        found = diagnose(run.history)
        if not self.verdicts or self.verdicts[-1][1].verdict != found.verdict:
            self.verdicts.append((run.step, found))
            if not self.quiet:
                print(f"step {run.step}: {found}", file=sys.stderr, flush=True)
        if found.verdict in self.stop:
            run.stop(f"diagnosis: {found.findings[0].kind}: {found.findings[0].what}")


class _Curve:
    """A loss curve as block means, each with the noise of its steps."""

    def __init__(self, losses: Array) -> None:
        self.losses = losses
        blocks = np.array_split(losses, _BLOCKS)
        self.means = np.array([b.mean() for b in blocks])
        # Differences of neighbours see the noise and not the trend.
        self.noise = np.array([np.std(np.diff(b)) / math.sqrt(2) if len(b) > 1 else 0.0 for b in blocks])
        self.errors = self.noise / math.sqrt(len(blocks[0]))
        self.start = float(losses[0])
        middle = np.sort(np.stack([losses[:-2], losses[1:-1], losses[2:]]), axis=0)[1]  # one bad batch is no peak
        self.peak = float(middle.max())
        self.scale = abs(self.start) or float(np.ptp(losses)) or 1.0
        self.low = int(np.argmin(self.means))
        self.drop = self.start - float(self.means[self.low])
        self.end = float(self.means[-2:].mean())
        self.error = float(np.hypot(self.errors[self.low], self.errors[-1]))
        half = _BLOCKS // 2
        self.gained = float(self.means[half - 1] - self.means[-1])
        self.gained_before = float(self.start - self.means[half - 1])

    def falls(self) -> bool:
        """Whether the second half goes down beyond its noise."""
        y = self.means[_BLOCKS // 2 :]
        x = np.arange(len(y)) - (len(y) - 1) / 2
        slope = x @ y / (x @ x)
        residual = y - y.mean() - slope * x
        error = math.sqrt(residual @ residual / max(len(y) - 2, 1) / (x @ x))
        return bool(slope < -_SURE * error)


def _not_finite(history: History, losses: Array) -> Finding | None:
    bad = np.flatnonzero(~np.isfinite(losses))
    skipped = float(np.mean(history.skipped)) if history.skipped else 0.0
    if not len(bad) and skipped <= 0.5:
        return None
    if not len(bad):
        what = f"{skipped:.0%} of the steps were skipped, their gradients not finite"
        return Finding("too high", what, "Lower the rate 10 times, or clip the gradients", {"skipped": skipped})
    step = int(bad[0])
    rate = history.lr[max(step - 1, 0)]
    return Finding(
        "too high",
        f"the loss was {losses[step]} at step {step}, at the rate {rate:.3g}",
        "Lower the rate 10 times, warm it up, or clip the gradients; at step 0 look at the data",
        {"step": float(step), "lr": rate},
    )


def _rises(c: _Curve) -> Finding | None:
    lost = (c.end - float(c.means[c.low])) / max(c.drop, 1e-12 * c.scale)
    above = (c.end - c.start) / c.scale
    sure = c.end - float(c.means[c.low]) > _SURE * c.error + 0.01 * c.scale
    if not sure or (lost < _LOST and above <= 0):
        return None
    return Finding(
        "too high",
        f"the loss ended at {c.end:.3g}, from {c.start:.3g} at the start and {c.means[c.low]:.3g} at its lowest: "
        f"{min(lost, 99):.0%} of its descent is lost again",
        "Lower the rate 3 to 10 times, or lower it as the run goes on",
        {"lost": lost, "above_start": above},
    )


def _shock(c: _Curve) -> Finding | None:
    """A run that was thrown far up, and had to learn from there."""
    up = c.peak - c.start
    if up < _SHOCK * max(c.drop, 0.25 * c.scale) or up < 2 * _SURE * float(np.median(c.noise)):
        return None
    return Finding(
        "too high",
        f"the loss rose from {c.start:.3g} to {c.peak:.3g} and ended at {c.end:.3g}",
        "Lower the rate 3 to 10 times, or warm it up",
        {"peak": c.peak, "start": c.start},
    )


def _swings(c: _Curve) -> Finding | None:
    """Up and down at every step, and no less at the end: the sign of a rate beyond 2/L."""
    tail = c.losses[len(c.losses) // 2 :]
    moves = np.diff(tail)
    turns = float(np.mean(moves[1:] * moves[:-1] < 0))
    middle = len(moves) // 2
    before, after = float(np.abs(moves[:middle]).mean()), float(np.abs(moves[middle:]).mean())
    if turns < _SWINGS or after < 0.7 * before or after < 1e-3 * c.scale:
        return None
    return Finding(
        "too high",
        f"the loss turns at {turns:.0%} of the steps (noise: 67%), by {after:.3g} each time, and that does not decay",
        "Lower the rate by half: it is beyond 2/L along some direction; see tune.curvature",
        {"turns": turns, "swing": after, "decay": after / before},
    )


def _large_steps(history: History, c: _Curve) -> Finding | None:
    ratios = np.array(history.update_ratio)
    late = ratios[len(ratios) // 2 :]
    if not np.isfinite(late).any():
        return None
    ratio = float(np.nanmedian(late))
    noise = float(np.median(c.noise[_BLOCKS // 2 :])) / c.scale
    if ratio < _LARGE or noise < _NOISY:
        return None
    return Finding(
        "too high",
        f"each step changes the parameters by {ratio:.0%} of their size (usual: 0.1%), and the loss "
        f"wanders by {noise:.0%} of its start",
        "Lower the rate 10 times",
        {"update_ratio": ratio, "noise": noise},
    )


def _overfits(history: History) -> Finding | None:
    curve = [(k, x) for k, x in history.validation if math.isfinite(x)]
    if len(curve) < _VALIDATIONS:
        return None
    steps, values = (np.array(column, float) for column in zip(*curve, strict=True))
    low = int(np.argmin(values))
    tail = values[-max(1, len(values) // 5) :]
    drop = float(values[0] - values[low])
    rise = float(tail.mean() - values[low])
    noise = float(np.std(np.diff(values[low:])) / math.sqrt(2)) if len(values) - low > 2 else math.inf
    losses = np.array(history.loss)
    window = max(1, len(losses) // _BLOCKS)
    at = int(steps[low])
    then = losses[max(0, at - window) : at].mean()
    now = losses[-window:].mean()
    if rise < max(_WORSE * drop, 2 * noise, 1e-3 * abs(values[0])) or now >= then or low >= len(values) - 2:
        return None
    return Finding(
        "overfitting",
        f"the validation loss was lowest, {values[low]:.3g}, after {at} steps, and has risen to {tail.mean():.3g}, "
        f"while the training loss fell from {then:.3g} to {now:.3g}",
        f"Stop after {at} steps (EarlyStopping), or raise weight_decay 3 to 10 times, or get more data",
        {"best_step": float(at), "best": float(values[low]), "now": float(tail.mean()), "training": float(now)},
    )


def _low_or_stuck(history: History, c: _Curve) -> Finding | None:
    ratios = np.array(history.update_ratio)
    ratio = float(np.nanmedian(ratios)) if np.isfinite(ratios).any() else math.nan
    fallen = c.drop / c.scale
    steady = c.falls() and c.gained > _STEADY * c.gained_before
    early, late = (np.median(x) for x in (history.grad_norm[:5], history.grad_norm[-max(5, len(history) // 10) :]))
    pull = float(late / early) if early > 0 else 0.0
    numbers = {"fallen": fallen, "update_ratio": ratio, "gradient": pull}
    if fallen < _STUCK and pull > 0.3 and (ratio < _TINY or (ratio < _SMALL and steady)):
        how = "still falling as fast as at the start" if steady else "not yet moving"
        return Finding(
            "too low",
            f"the loss has fallen by {fallen:.1%}, {how}; a step changes the parameters by {ratio:.1g} of their size "
            f"(usual: 1e-3), and the gradient is still {pull:.0%} of what it was",
            "Raise the rate 10 times; tune.range_test suggests one",
            numbers,
        )
    if c.gained < _FLAT * c.scale and (fallen < _NOTHING or (fallen < _STUCK and pull > _PULL)):
        return Finding(
            "plateau",
            f"the loss has fallen by {fallen:.1%} in all and by {c.gained / c.scale:.1%} in the second half, though a "
            f"step changes the parameters by {ratio:.1g} of their size",
            "It is a plateau or a saddle: start elsewhere (larger or other initial weights), use momentum or Adam, or "
            "raise the rate for a while; if nothing helps, look at the data",
            numbers,
        )
    return None


def _healthy(history: History, c: _Curve) -> Finding:
    still = "and is still falling" if c.falls() else "and has settled"
    return Finding(
        "healthy",
        f"the loss has fallen from {c.start:.3g} to {c.end:.3g} {still}",
        "Nothing has to change; a schedule that ends low usually gains a little",
        {"fallen": c.drop / c.scale},
    )
