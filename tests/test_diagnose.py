"""The diagnosis, on real runs made to fail each way; the whole table is python -m bench.diagnose."""

import math

import numpy as np
import pytest

import fastlr
from bench import diagnose as bench
from fastlr import tune


@pytest.mark.parametrize("kind", bench.MAKERS)
@pytest.mark.parametrize("seed", [2000, 2001, 2002])
def test_real_runs_that_were_made_to_fail(kind, seed):
    found = tune.diagnose(bench.MAKERS[kind](seed))
    assert found.verdict == kind
    finding = found.findings[0]
    assert finding.advice
    assert finding.evidence
    assert all(isinstance(x, float | int) for x in finding.evidence.values())


def history(losses, validation=(), ratio=1e-3, norms=None):
    n = len(losses)
    return fastlr.History(
        loss=list(losses),
        lr=[0.1] * n,
        grad_norm=list(norms) if norms is not None else [1.0] * n,
        update_ratio=[ratio] * n,
        skipped=[False] * n,
        seconds=[0.0] * n,
        validation=list(validation),
    )


def test_evidence_is_what_happened():
    found = tune.diagnose(history([2.0, 3.0, math.nan])).findings[0]
    assert (found.kind, found.evidence) == ("too high", {"step": 2.0, "lr": 0.1})
    assert "the loss was nan at step 2, at the rate 0.1" in found.what

    n = np.arange(200)
    found = tune.diagnose(history(1 + 0.3 * (-1.0) ** n)).findings[0]
    assert found.kind == "too high"
    assert found.evidence["turns"] == 1
    assert found.evidence["swing"] == pytest.approx(0.6)

    validation = [(k, 1 - k / 100 if k <= 60 else 0.4 + (k - 60) / 200) for k in range(10, 201, 10)]
    found = tune.diagnose(history(np.exp(-n / 40), validation)).findings[0]
    assert found.kind == "overfitting"
    assert found.evidence["best_step"] == 60
    assert "Stop after 60 steps" in found.advice

    skipped = history(np.exp(-n / 40))
    skipped.skipped = [True] * 150 + [False] * 50
    assert tune.diagnose(skipped).findings[0].evidence == {"skipped": 0.75}


def test_several_findings_come_in_order_of_gravity():
    n = np.arange(200)
    validation = [(k, 0.4 + abs(k - 60) / 100) for k in range(10, 201, 10)]
    found = tune.diagnose(history(np.exp(-n / 100) + 0.3 * (-1.0) ** n, validation))
    assert [f.kind for f in found.findings] == ["too high", "overfitting"]
    assert str(found).splitlines()[1].startswith("overfitting: the validation loss was lowest, 0.4, after 60 steps")


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_unit_of_the_loss_does_not_matter(scale):
    for kind, make in bench.MAKERS.items():
        run = make(2003)
        run.loss = [x * scale for x in run.loss]
        run.validation = [(k, x * scale) for k, x in run.validation]
        assert tune.diagnose(run).verdict == kind


def test_live_it_says_each_change_and_can_stop_the_run(capsys):
    w = np.array([1.0, 1.0])
    h = np.array([1.0, 30.0])
    callback = tune.Diagnose(every=50, stop=("too high",))
    history = fastlr.train(
        lambda w, step: (float(0.5 * w @ (h * w)), h * w),
        w,
        fastlr.SGD(w, lr=lambda step: 0.05 if step < 120 else 0.2),
        600,
        [callback],
        progress=False,
    )
    assert [d.verdict for _, d in callback.verdicts] == ["healthy", "too high"]
    assert history.stopped.startswith("diagnosis: too high: ")
    assert len(history) < 600
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("step 50: healthy: ")
    assert len(lines) == 2


def test_live_it_may_be_quiet_and_survives_short_runs(capsys):
    w = np.ones(1)
    callback = tune.Diagnose(every=1, quiet=True)
    fastlr.train(lambda w, step: (float(w[0] ** 2), 2 * w), w, fastlr.SGD(w, lr=0.1), 5, [callback], progress=False)
    assert callback.verdicts == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tune.diagnose([1.0]), TypeError, "history must be a fastlr.History, got list"),
        (lambda: tune.diagnose(history([1.0] * 39)), ValueError, "at least 40 steps, got 39"),
        (lambda: tune.Diagnose(every=0), ValueError, "every must be >= 1"),
        (lambda: tune.Diagnose(stop=("nan",)), ValueError, "stop must name verdicts"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
