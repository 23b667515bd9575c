"""The search: methods, divergence, storage that survives kill -9, processes, and Bayes against chance."""

import functools
import math
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import fastlr
from fastlr import tune
from fastlr.tune import gaussian


def bowl(lr, power=1.0):
    w = np.array([3.0, 4.0])
    h = np.array([1.0, 10.0])
    return lambda w, step: (float(0.5 * w @ (h * w)), h * w), w, fastlr.SGD(w, lr=lr * power)


def validated(lr):
    objective, w, opt = bowl(lr)
    return objective, w, opt, lambda w: abs(float(w[0]) - 1.5)


class Breaks(Exception):
    pass


def breaks(lr):
    raise Breaks("no such model")


def quiet(factory=bowl, space=None, *arguments, **more):
    more = {"steps": 30, "storage": None, "progress": False, **more}
    return tune.search(factory, space or {"lr": (1e-4, 10.0)}, *arguments, **more)


# ---- methods ---------------------------------------------------------------------------------------------------------


def test_grid_is_even_in_the_logarithm_and_in_order():
    found = quiet(method="grid", budget=6)
    np.testing.assert_allclose([t.values["lr"] for t in found.trials], np.geomspace(1e-4, 10, 6))
    assert found.best == {"lr": pytest.approx(0.1)}
    assert found.loss == min(t.loss for t in found.trials)


def test_grid_over_two_ranges_and_choices():
    found = quiet(space={"lr": (1e-3, 1e-1), "power": [1.0, 0.5]}, method="grid", budget=7)
    assert [tuple(t.values.values()) for t in found.trials] == [
        (pytest.approx(lr), p) for lr in (1e-3, 1e-2, 1e-1) for p in (1.0, 0.5)
    ]
    with pytest.raises(ValueError, match="budget must be at least 2"):
        quiet(space={"power": [1.0, 0.5]}, method="grid", budget=1)


def test_a_grid_of_another_fineness_is_another_search(tmp_path):
    """Its values would be others: the finished ones would fill the budget, and the new grid have holes."""
    path = tmp_path / "s.db"
    quiet(method="grid", budget=4, storage=path)
    with pytest.raises(ValueError, match="was made with budget 4, got 6; give another name or storage"):
        quiet(method="grid", budget=6, storage=path)
    assert quiet(method="grid", budget=4, storage=path).resumed == 4


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_draws_depend_on_the_seed_alone_and_do_not_repeat(method):
    one, two, other = (quiet(method=method, budget=9, seed=seed) for seed in (1, 1, 2))
    assert one.trials == two.trials
    lrs = [t.values["lr"] for t in one.trials]
    assert len(set(lrs)) == 9
    assert all(1e-4 <= lr <= 10 for lr in lrs)
    assert lrs != [t.values["lr"] for t in other.trials]


def test_random_is_even_in_the_logarithm():
    found = quiet(method="random", budget=200, steps=2)
    logs = np.log10([t.values["lr"] for t in found.trials])
    assert np.histogram(logs, bins=5, range=(-4, 1))[0].min() > 20


def test_bayes_starts_spread_and_ends_near_the_best():
    found = quiet(budget=12)
    logs = [math.log10(t.values["lr"]) for t in found.trials]
    assert sorted(int((x + 4) / 1.25) for x in logs[:4]) == [0, 1, 2, 3]
    assert 0.1 < found.best["lr"] < 0.2  # 2 / L is 0.2
    assert sum(abs(x - math.log10(found.best["lr"])) < 0.7 for x in logs[4:]) >= 4


def test_bayes_with_choices_and_two_ranges():
    found = quiet(space={"lr": (1e-3, 1.0), "power": [0.01, 1.0]}, budget=14)
    assert found.best["power"] == 1.0
    assert 0.08 < found.best["lr"] < 0.2


def test_validation_is_the_loss_where_there_is_one():
    found = quiet(validated, budget=4, method="grid", space={"lr": (1e-3, 1e-1)})
    for t in found.trials:
        w = 3 * (1 - t.values["lr"]) ** 30
        assert t.loss == pytest.approx(abs(w - 1.5))


def test_bayes_beats_chance_on_a_curve_with_a_narrow_valley():
    """The benchmark on real cases is python -m bench.search."""

    def loss(u):
        return 5.0 if u > 0.8 else 1 - 0.9 * math.exp(-(((u - 0.7) / 0.12) ** 2)) + 0.1 * (u - 0.7) ** 2

    def bayes(seed):
        random = np.random.default_rng(seed)
        x = ((np.arange(4) + random.random(4)) / 4)[:, None]
        while len(x) < 12:
            x = np.vstack([x, gaussian.propose(x, np.array([loss(u) for (u,) in x]), random)])
        return min(loss(u) for (u,) in x)

    chance = [min(map(loss, np.random.default_rng(seed).random(12))) for seed in range(20)]
    assert np.median([bayes(seed) for seed in range(20)]) < np.median(chance)


def test_scores_are_ranks_with_ties():
    s = gaussian.scores(np.array([3.0, 1e300, 3.0, -1.0]))
    assert s[0] == s[2]
    assert s[3] < s[0] < s[1] < 3


# ---- divergence ------------------------------------------------------------------------------------------------------


def test_divergence_is_bad_data_and_stopped():
    found = quiet(method="grid", budget=8, space={"lr": (1e-2, 1e5)}, steps=200)
    start = 0.5 * (9 + 160)
    diverged = [t for t in found.trials if t.diverged]
    assert [t.values["lr"] > 0.2 for t in found.trials] == [t.diverged for t in found.trials]
    assert all(2 * start < t.loss <= 3 * start for t in diverged)
    assert [t.loss for t in diverged] == sorted(t.loss for t in diverged)  # the sooner the worse
    assert all(t.loss < start for t in found.trials if not t.diverged)


def quartic(lr, rule):
    w = np.full(2, 2.0, np.float32)
    return lambda w, step: (float((w**4).sum()), 4 * w**3), w, rule(w, lr=lr)


@pytest.mark.parametrize("rule", [functools.partial(fastlr.SGD, nonfinite="raise"), fastlr.BarzilaiBorwein])
def test_an_optimizer_that_raises_at_gradients_that_are_not_finite_has_diverged(rule):
    found = quiet(lambda lr: quartic(lr, rule), {"lr": (1e-3, 1e12)}, "grid", 6)
    diverged = [t.diverged for t in found.trials]
    assert (diverged[0], diverged[-2:]) == (False, [True, True])
    assert found.loss < 32 < min(t.loss for t in found.trials if t.diverged)  # 32 is where they start


def test_gradients_that_are_not_finite_at_the_start_are_the_users():
    def factory(lr):
        w = np.ones(2)
        return lambda w, step: (1.0, np.full(2, math.nan)), w, fastlr.SGD(w, lr=lr, nonfinite="raise")

    with pytest.raises(FloatingPointError):
        quiet(factory)


def test_a_search_where_all_diverge_still_returns():
    found = quiet(space={"lr": (1e3, 1e9)}, budget=6)
    assert all(t.diverged for t in found.trials)
    assert math.isfinite(found.loss)


# ---- storage ---------------------------------------------------------------------------------------------------------


def test_a_larger_budget_goes_on(tmp_path):
    path = tmp_path / "s.db"
    first = quiet(budget=5, storage=path)
    more = quiet(budget=8, storage=path)
    assert (first.resumed, more.resumed) == (0, 5)
    assert more.trials[:5] == first.trials
    again = quiet(budget=8, storage=path)
    assert (again.resumed, again.trials) == (8, more.trials)
    straight = quiet(budget=8)
    assert [t.values for t in straight.trials] == [t.values for t in more.trials]


def test_another_space_under_the_same_name_is_refused(tmp_path):
    path = tmp_path / "s.db"
    quiet(budget=2, storage=path)
    with pytest.raises(ValueError, match="was made with space"):
        quiet(space={"lr": (1e-3, 1.0)}, budget=2, storage=path)
    with pytest.raises(ValueError, match="was made with method 'bayes', got 'grid'"):
        quiet(method="grid", budget=2, storage=path)
    assert quiet(space={"lr": (1e-3, 1.0)}, budget=2, storage=path, name="other").resumed == 0


def test_storage_that_cannot_be_opened(tmp_path):
    (tmp_path / "text").write_text("not a database, but long enough to be taken for one at first" * 20)
    for where, reason in (
        (tmp_path / "none" / "s.db", "directory that exists"),
        (tmp_path / "text", "cannot be opened"),
    ):
        with pytest.raises(ValueError, match=reason):
            quiet(storage=where)
    with pytest.raises(ValueError, match="cannot be opened"):
        quiet(storage="nonsense://host/db")


def test_an_error_in_the_factory_is_the_users_and_loses_nothing(tmp_path):
    path = tmp_path / "s.db"
    calls = []

    def factory(lr):
        calls.append(lr)
        if len(calls) == 3:
            raise Breaks("no such model")
        return bowl(lr)

    with pytest.raises(Breaks):
        quiet(factory, budget=5, storage=path)
    found = quiet(factory, budget=5, storage=path)
    assert found.resumed == 2
    assert len(found.trials) == 5


PROGRAM = """
    import sys, time
    import numpy as np, fastlr
    from fastlr import tune

    method, jobs, hang = sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["hang"]

    def factory(lr):
        w = np.array([3.0])
        def objective(w, step):
            if step == 0:
                print("start", lr, flush=True)
            if hang:
                time.sleep(0.02)
            return float(w[0] ** 2), 2 * w
        return objective, w, fastlr.SGD(w, lr=lr)

    if __name__ == "__main__":
        found = tune.search(
            factory, {"lr": (1e-4, 1.0)}, method, 8, "s.db", jobs, steps=20, name="x", progress=False
        )
        print("resumed", found.resumed)
        for t in found.trials:
            print("trial", t.values["lr"])
"""


@pytest.mark.parametrize(("method", "jobs"), [("grid", 1), ("bayes", 1), ("bayes", 2)])
def test_killed_midway_it_goes_on_and_repeats_no_finished_trial(method, jobs, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, "program.py", method, str(jobs)]
    starts = []
    with subprocess.Popen(
        [*command, "hang"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as program:
        # A worker starts one only after what it had before was told: with 3 + jobs started, 3 have finished at least.
        while len(starts) < 3 + jobs:
            starts.append(program.stdout.readline().split()[1])
        time.sleep(0.04)  # in the middle of the last
        program.send_signal(signal.SIGKILL)
        program.communicate(timeout=60)  # until nobody can print any more: no worker is left behind

    done = subprocess.run([*command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    resumed = int(next(x for kind, x in lines if kind == "resumed"))
    again = [x for kind, x in lines if kind == "start"]
    trials = [x for kind, x in lines if kind == "trial"]
    assert 3 <= resumed < len(starts)
    assert len(again) == 8 - resumed
    assert starts[-1] in again  # it had not finished
    assert len(set(trials)) == len(trials) == 8
    assert len(set(trials) - set(again)) == resumed  # no finished one is repeated


# ---- processes -------------------------------------------------------------------------------------------------------


def test_trials_in_processes_are_the_same_trials(tmp_path):
    one = quiet(method="random", budget=5)
    two = quiet(method="random", budget=5, jobs=2, storage=tmp_path / "s.db")
    assert one.trials == two.trials


def test_errors_come_back_from_processes():
    with pytest.raises(Breaks, match="no such model"):
        quiet(breaks, budget=3, jobs=2)
    with pytest.raises(TypeError, match="must be a function of a module"):
        quiet(lambda lr: bowl(lr), jobs=2)


# ---- the rest --------------------------------------------------------------------------------------------------------


def test_plot_is_a_picture(tmp_path):
    quiet(method="grid", budget=6).plot(tmp_path / "s.png")
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


def test_optunas_own_logging_is_left_alone():
    import optuna

    before = optuna.logging.get_verbosity()
    quiet(budget=1)
    assert optuna.logging.get_verbosity() == before


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"factory": 3}, TypeError, "objective_factory must be callable"),
        ({"factory": lambda lr: 3}, TypeError, "objective_factory must return"),
        ({"factory": lambda lr: (3, np.ones(1), fastlr.SGD(np.ones(1)))}, TypeError, "objective must be callable"),
        ({"space": {"lr": (1.0, 0.1)}}, ValueError, r"space\['lr'\]: low must be below high"),
        ({"space": {"lr": (0.0, 0.1)}}, ValueError, r"space\['lr'\]\[0\] must be finite and > 0"),
        ({"space": {"lr": 0.1}}, TypeError, r"space\['lr'\] must be \(low, high\)"),
        ({"space": {"lr": [object()]}}, TypeError, "choices must be"),
        ({"space": 3}, TypeError, "space must be a dict"),
        ({"method": "tpe"}, ValueError, "method must be one of 'bayes', 'grid', 'random', got 'tpe'"),
        ({"budget": 0}, ValueError, "budget must be >= 1"),
        ({"jobs": 0}, ValueError, "jobs must be >= 1"),
        ({"steps": 1}, ValueError, "steps must be >= 2"),
    ],
)
def test_bad_arguments_are_refused(more, error, message):
    with pytest.raises(error, match=message):
        quiet(**more)


def test_missing_optuna_gives_the_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'fastlr-kernels\[tune\]'"):
        quiet()
