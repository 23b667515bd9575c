"""The training loop: what it records, what callbacks do to it, and that it goes on bit for bit."""

import contextlib
import csv
import json
import math
import os
import pty
import re
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import fastlr
from fastlr import storage
from fastlr.demo.network import Network
from fastlr.demo.objectives import Batches, LeastSquares, Logistic
from fastlr.training.callbacks import Callback, Checkpoint, EarlyStopping, MLflow, Plateau, TensorBoard

EPS = np.finfo(np.float64).eps


def bowl(w, step):
    return float(0.5 * w @ w), w.copy()


def noisy():
    """A small network on random labels: batches by the step alone."""
    random = np.random.default_rng(1)
    x, labels = random.normal(size=(96, 6)).astype(np.float32), random.integers(0, 3, 96)
    return Batches(Network((6, 8, 3), seed=2), x, labels, batch=16)


class Drawing:
    """An objective that draws from a generator of its own and from NumPy's global one."""

    def __init__(self):
        self.rng = np.random.default_rng(3)

    def __call__(self, w, step):
        g = w + 0.1 * self.rng.normal(size=w.size) + 0.1 * np.random.normal(size=w.size)
        return float(g @ g), g


def quiet(objective, params, optimizer, steps, *callbacks, **more):
    return fastlr.train(objective, params, optimizer, steps, callbacks, progress=False, **more)


# ---- objectives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [LeastSquares, Logistic])
def test_gradients_of_the_convex_objectives_are_slopes(kind):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(20, 4)), np.sign(random.normal(size=20))
    objective = kind(x, y, decay=0.3)
    w = random.normal(size=4)
    h = EPS ** (1 / 3)
    slopes = [(objective(w + h * e, 0)[0] - objective(w - h * e, 0)[0]) / (2 * h) for e in np.eye(4)]
    np.testing.assert_allclose(objective(w, 0)[1], slopes, atol=10 * h**2)


def test_the_solution_of_least_squares_has_no_gradient():
    random = np.random.default_rng(0)
    objective = LeastSquares(random.normal(size=(20, 4)), random.normal(size=20), decay=0.1)
    assert np.abs(objective(objective.solution(), 0)[1]).max() < 1e-14


def test_batches_depend_on_the_step_alone_and_cover_the_data():
    one, two = noisy(), noisy()
    a = [one(one.params, k)[0] for k in range(12)]
    assert [two(two.params, k)[0] for k in reversed(range(12))][::-1] == a
    assert np.isclose(np.mean(a[:6]), np.mean(a[6:]))
    assert a[:6] != a[6:]


# ---- the history -----------------------------------------------------------------------------------------------------


def test_history_has_what_happened():
    w = np.array([3.0, 4.0])
    history = quiet(bowl, w, fastlr.SGD(w, lr=lambda t: 0.5 / (t + 1)), 3)
    assert history.loss == [12.5, 3.125, 0.5 * 1.875**2]
    assert history.lr == [0.5, 0.25, 0.5 / 3]
    assert history.grad_norm == [5.0, 2.5, 1.875]
    assert history.update_ratio == pytest.approx([0.5, 0.25, 0.5 / 3])
    assert history.skipped == [False] * 3
    assert history.seconds == sorted(history.seconds)
    assert (len(history), history.stopped, history.validation) == (3, "", [])


def test_clipping_skipping_and_validation_are_recorded():
    w = np.array([3.0, 4.0], np.float32)

    def objective(w, step):
        return 1.0, np.float32([math.nan, 0]) if step == 1 else w.copy()

    opt = fastlr.SGD(w, lr=1.0, nonfinite="skip")
    history = quiet(objective, w, opt, 3, clip_norm=1.0, validate=lambda w: float(w[0]), validate_every=2)
    assert history.skipped == [False, True, False]
    assert history.grad_norm[0] == 5
    assert history.update_ratio[:2] == [pytest.approx(0.2, rel=1e-5), 0]
    assert [k for k, _ in history.validation] == [2, 3]
    assert history.validation[-1][1] == w[0]


def test_update_ratio_of_zeros_is_nan_and_norms_do_not_overflow():
    w = np.zeros(2, np.float32)
    history = quiet(lambda w, step: (0.0, np.float32([3e25, 4e25])), w, fastlr.SGD(w, lr=1e-30), 1)
    assert math.isnan(history.update_ratio[0])
    assert history.grad_norm[0] == pytest.approx(5e25, rel=1e-6)


def test_csv_and_json(tmp_path):
    w = np.zeros(1)
    history = quiet(bowl, w, fastlr.SGD(w), 2, validate=lambda w: 0.25, validate_every=2)
    history.loss[1] = -math.inf
    history.to_csv(tmp_path / "h.csv")
    with open(tmp_path / "h.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["0", "1"]
    assert [float(row["loss"]) for row in rows] == [0, -math.inf]
    assert [row["validation"] for row in rows] == ["", "0.25"]
    assert rows[0]["skipped"] == "0"

    history.to_json(tmp_path / "h.json")
    json.loads((tmp_path / "h.json").read_text(), parse_constant=lambda x: pytest.fail(f"{x} is not JSON"))
    again = fastlr.History.from_json(tmp_path / "h.json")
    assert repr(again) == repr(history)


def test_plot_is_a_picture(tmp_path):
    w = np.ones(2)
    history = quiet(bowl, w, fastlr.SGD(w), 30, validate=lambda w: bowl(w, 0)[0])
    figure = history.plot(tmp_path / "h.png")
    assert (tmp_path / "h.png").read_bytes().startswith(b"\x89PNG")
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["loss", "learning rate", "update / parameter"]


# ---- stopping --------------------------------------------------------------------------------------------------------


def losses(*values):
    """An objective with these losses; its gradient moves the parameter by one a step."""
    return lambda w, step: (values[step], np.ones_like(w))


def test_early_stopping_restores_the_parameters_of_the_best_loss():
    w = np.zeros(1)
    watch = EarlyStopping(patience=3, min_delta=0.1)
    history = quiet(losses(5, 3, 2, 1.95, 2.5, 4, 1, 1), w, fastlr.SGD(w, lr=1.0), 8, watch)
    assert len(history) == 6
    assert history.stopped == "early: no improvement on 2 in 3 steps"
    assert w[0] == -2  # where the loss of step 2 was measured


def test_early_stopping_restores_at_the_end_too_unless_told_otherwise():
    for restore, where in ((True, -1), (False, -3)):
        w = np.zeros(1)
        history = quiet(losses(5, 3, 4), w, fastlr.SGD(w, lr=1.0), 3, EarlyStopping(restore=restore))
        assert (len(history), history.stopped, w[0]) == (3, "", where)


def test_early_stopping_watches_the_validation_where_there_is_one():
    w = np.zeros(1)
    history = quiet(
        lambda w, step: (-step, np.ones(1)),
        w,
        fastlr.SGD(w, lr=1.0),
        20,
        EarlyStopping(patience=2),
        validate=lambda w: abs(float(w[0]) + 4),
        validate_every=2,
    )
    assert history.validation[-1] == (8, 4)
    assert history.stopped == "early: no improvement on 0 in 2 validations"
    assert w[0] == -4
    with pytest.raises(ValueError, match="monitor='validation' needs validate="):
        quiet(bowl, w, fastlr.SGD(w), 1, EarlyStopping(monitor="validation"))


def test_nan_is_no_improvement():
    w = np.zeros(1)
    opt = fastlr.SGD(w, lr=1.0, nonfinite="skip")

    def objective(w, step):
        return (math.nan, np.array([math.nan])) if step else (1.0, np.ones(1))

    assert len(quiet(objective, w, opt, 9, EarlyStopping(patience=2))) == 3


def test_a_loss_that_is_no_longer_finite_ends_the_run():
    w = np.ones(1)
    with np.errstate(over="ignore"):
        history = quiet(lambda w, step: (w[0] ** 2, 2 * w), w, fastlr.SGD(w, lr=1e60), 50)
    assert len(history) < 10
    assert history.stopped == f"diverged: the loss was {history.loss[-1]} at step {len(history) - 1}"


def test_plateau_lowers_every_group_beside_a_schedule():
    params = {"a": np.zeros(1), "b": np.zeros(1)}
    opt = fastlr.SGD(params, lr=lambda t: 1.0, groups=[{"match": "a", "lr_scale": 0.5}])
    values = [9, 9, 9, 9, 8, 8, 8, 8, 8, 8, 8]
    callback = Plateau(factor=0.1, patience=1, cooldown=1, min_scale=0.02)
    history = quiet(
        lambda p, step: (values[step], {"a": np.ones(1), "b": np.ones(1)}), params, opt, len(values), callback
    )
    assert history.lr == pytest.approx([0.5, 0.5, 0.5, 0.05, 0.05, 0.05, 0.05, 0.01, 0.01, 0.01, 0.01])
    assert opt.groups[1].lr_scale == pytest.approx(0.02)


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def run(steps, path=None, resume=None):
    objective = noisy()
    opt = fastlr.AdamW(objective.params, lr=lambda t: 0.5 / (1 + 0.1 * t))
    x, labels = objective.x[:20], objective.labels[:20]
    callbacks = [EarlyStopping(patience=7), Plateau(patience=0, factor=0.5), *([Checkpoint(path, 5)] if path else [])]
    if resume:
        callbacks.append(Checkpoint(resume, 1000))
    history = quiet(
        objective,
        objective.params,
        opt,
        steps,
        *callbacks,
        validate=lambda p: objective.network.evaluate(x, labels)[0],
        validate_every=3,
        resume=resume,
    )
    return objective.params.data, opt, history


def test_resumed_training_has_the_same_bits(tmp_path):
    path = tmp_path / "at{step}.safetensors"
    whole, whole_opt, whole_history = run(23, path)
    assert sorted(os.listdir(tmp_path)) == [f"at{k}.safetensors" for k in (10, 15, 20, 23, 5)]
    for step in (5, 10, 20, 23):
        part, part_opt, part_history = run(23, resume=tmp_path / f"at{step}.safetensors")
        assert np.array_equal(part, whole)
        assert np.array_equal(part_opt.state["v"].data, whole_opt.state["v"].data)
        assert part_opt.groups[0].lr_scale == whole_opt.groups[0].lr_scale < 1
        for column in ("loss", "lr", "grad_norm", "update_ratio", "skipped", "validation"):
            assert getattr(part_history, column) == getattr(whole_history, column)


def test_generators_are_resumed(tmp_path):
    def go(steps, resume=None, start=7):
        np.random.seed(start)
        w, objective = np.ones(3), Drawing()
        quiet(objective, w, fastlr.SGD(w, lr=0.1), steps, Checkpoint(tmp_path / "{step}", 4), resume=resume)
        return w

    assert np.array_equal(go(9), go(9, tmp_path / "4", start=8))


def test_a_checkpoint_that_does_not_fit_changes_nothing(tmp_path):
    path = tmp_path / "c"
    w = np.ones(3)
    quiet(bowl, w, fastlr.SGD(w), 2, Checkpoint(path))

    def refused(match, w, steps=5, callbacks=(), rule=fastlr.SGD):
        before = w.copy()
        with pytest.raises(ValueError, match=match):
            quiet(bowl, w, rule(w), steps, *callbacks, resume=path)
        assert np.array_equal(w, before)

    same = [Checkpoint(path)]
    refused("shape", np.ones(4), callbacks=same)
    refused("dtype", np.ones(3, np.float32), callbacks=same)
    refused("rule", np.ones(3), callbacks=same, rule=fastlr.Adam)
    refused("callbacks", np.ones(3))
    refused("at least the 2", np.ones(3), steps=1, callbacks=same)
    with pytest.raises(FileNotFoundError):
        quiet(bowl, w, fastlr.SGD(w), 5, resume=tmp_path / "none")
    with pytest.raises(ValueError, match="directory that exists"):
        Checkpoint(tmp_path / "none" / "x")


PROGRAM = """
    import signal, sys, numpy as np, fastlr
    from fastlr.training.callbacks import Checkpoint

    def objective(w, step):
        if mode == "interrupted" and step == 30:
            print("now", flush=True)
            sys.stdin.readline()  # the signal comes in the middle of a step
        g = w + np.random.default_rng(step).normal(size=w.size)
        return float(g @ g), g

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs tests in the background ignores it
    mode, resume = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    w = np.ones(4)
    opt = fastlr.Adam(w, lr=0.1)
    fastlr.train(objective, w, opt, 60, progress=False, resume=resume)
    print(w.tobytes().hex())
"""


def test_ctrl_c_leaves_a_checkpoint_from_which_it_goes_on_bit_for_bit(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(
        [*command, "interrupted"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout.readline() == "now\n"
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate("go\n", timeout=60)
    assert program.returncode == -signal.SIGINT
    assert "interrupted after step 31; go on with resume='fastlr-interrupted.safetensors'" in errors
    assert storage.read(tmp_path / "fastlr-interrupted.safetensors")["step"] == 31

    def finish(*arguments):
        return subprocess.run(
            [*command, *arguments], cwd=tmp_path, env=environment, capture_output=True, check=True
        ).stdout

    assert finish("resumed", "fastlr-interrupted.safetensors") == finish("whole")


@pytest.mark.parametrize(("terminal", "last"), [("xterm-256color", "60/60"), ("dumb", "training: 60/60  loss")])
def test_progress_on_a_terminal_ends_where_the_run_does(terminal, last, tmp_path):
    """Sixty steps take less time than lies between two drawings of the bar."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "TERM": terminal, "COLUMNS": "100"}
    program = """
        import numpy as np, fastlr
        w = np.ones(2)
        fastlr.train(lambda w, step: (float(w @ w), 2 * w), w, fastlr.SGD(w, lr=0.1), 60)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, env=environment, stderr=theirs
    ) as running:
        os.close(theirs)
        shown = b""
        # Linux says that the other side has closed by an error.
        with contextlib.suppress(OSError):
            while chunk := os.read(ours, 1 << 16):
                shown += chunk
    os.close(ours)
    assert running.returncode == 0
    assert last in re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.decode())


# ---- loggers ---------------------------------------------------------------------------------------------------------


def test_tensorboard_reads_what_was_logged(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    w = np.array([3.0, 4.0])
    quiet(bowl, w, fastlr.SGD(w, lr=0.5), 4, TensorBoard(tmp_path, every=2), validate=lambda w: 0.5)
    events = EventAccumulator(str(tmp_path)).Reload()
    tags = events.Tags()["tensors"]
    read = {tag: [(e.step, e.tensor_proto.float_val[0]) for e in events.Tensors(tag)] for tag in tags}
    assert read["loss"] == [(2, 3.125), (4, 0.1953125)]
    assert read["lr"] == [(2, 0.5), (4, 0.5)]
    assert [k for k, _ in read["validation"]] == [1, 2, 3, 4]
    assert set(read) == {"loss", "lr", "grad_norm", "update_ratio", "skipped", "validation"}


def test_mlflow_gets_the_metrics():
    """A stand-in for MLflow, which is large."""
    calls = []

    class Client:
        active_run = staticmethod(lambda: None)
        start_run = staticmethod(lambda **run: calls.append(("start", run)))
        log_metrics = staticmethod(lambda metrics, step: calls.append((step, metrics)))
        end_run = staticmethod(lambda: calls.append("end"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "mlflow", Client)
        callback = MLflow(every=2, run_name="x")
    w = np.array([3.0, 4.0])
    quiet(bowl, w, fastlr.SGD(w, lr=0.5), 2, callback)
    assert [calls[0], calls[-1]] == [("start", {"run_name": "x"}), "end"]
    ((step, metrics),) = calls[1:-1]
    assert (step, metrics["loss"], metrics["grad_norm"]) == (2, 3.125, 2.5)


def test_mlflow_itself_has_them(tmp_path):
    """In an SQLite file, by MLflow's own client. A process of its own: MLflow warns of much that is not ours."""
    pytest.importorskip("mlflow")
    program = """
        import mlflow, numpy as np, fastlr
        mlflow.set_tracking_uri("sqlite:///runs.db")
        w = np.array([3.0, 4.0])
        objective = lambda w, step: (0.5 * float(w @ w), w.copy())
        callback = fastlr.callbacks.MLflow(every=2, run_name="x")
        fastlr.train(objective, w, fastlr.SGD(w, lr=0.5), 4, [callback], progress=False)
        (run,) = (client := mlflow.MlflowClient()).search_runs(["0"])
        history = client.get_metric_history(run.info.run_id, "loss")
        print(run.info.run_name, run.info.status, [(m.step, m.value) for m in history])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "x FINISHED [(2, 3.125), (4, 0.1953125)]\n"


@pytest.mark.parametrize(
    ("module", "make"), [("tensorboard.summary", lambda: TensorBoard("x")), ("mlflow", lambda: MLflow())]
)
def test_missing_logger_gives_the_pip_line(module, make, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'fastlr-kernels\[loggers\]'"):
        make()


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "error", "message"),
    [
        (3, TypeError, "objective must be callable"),
        (lambda w, step: 1.0, TypeError, r"must return \(loss, grads\), got 1.0"),
        (lambda w, step: ("a", w), TypeError, "the loss of the objective must be a number, got 'a'"),
        (lambda w, step: (np.ones(2), w), TypeError, r"must be a number, got ndarray of shape \(2,\)"),
        (lambda w, step: (None, w), TypeError, "must be a number"),
        (lambda w, step: (True, w), TypeError, "must be a number"),
        (lambda w, step: (math.nan, w), ValueError, "must be finite at the start, got nan"),
        (lambda w, step: (math.inf, w), ValueError, "must be finite at the start"),
        (lambda w, step: (1.0, np.ones(3)), ValueError, r"expected shape \(2,\)"),
        (lambda w, step: (1.0, np.ones(2, np.float32)), TypeError, "expected float64"),
        (lambda w, step: (1.0, "g"), TypeError, "grads must be an array"),
    ],
)
def test_bad_objectives_are_refused_before_any_step(objective, error, message):
    w = np.ones(2)
    opt = fastlr.SGD(w)
    with pytest.raises(error, match=message):
        quiet(objective, w, opt, 3)
    assert np.array_equal(w, np.ones(2))
    assert opt.step_count == 0


def test_losses_may_be_arrays_of_one_element():
    w = np.ones(1)
    assert quiet(lambda w, step: (np.array([2.0]), w.copy()), w, fastlr.SGD(w), 1).loss == [2.0]
    assert quiet(lambda w, step: (np.float32(0.5), w.copy()), w, fastlr.SGD(w), 1).loss == [0.5]


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps must be >= 1, got 0"),
        ({"steps": 2.0}, TypeError, "steps must be an integer"),
        ({"callbacks": [print]}, TypeError, r"callbacks\[0\] must be"),
        ({"validate": 3}, TypeError, "validate must be callable"),
        ({"validate_every": 0}, ValueError, "validate_every must be >= 1"),
        ({"clip_norm": -1}, ValueError, "clip_norm must be"),
        ({"optimizer": None}, TypeError, "optimizer must be"),
        ({"optimizer": fastlr.SGD(np.ones(2))}, ValueError, "optimizer must update params"),
    ],
)
def test_bad_arguments_are_refused_before_any_step(more, error, message):
    w, called = np.ones(2), []
    arguments = {"steps": 1, "optimizer": fastlr.SGD(w), "progress": False, **more}
    with pytest.raises(error, match=message):
        fastlr.train(lambda w, step: called.append(1), w, **arguments)
    assert not called


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EarlyStopping(patience=0), "patience must be >= 1"),
        (lambda: EarlyStopping(min_delta=-1), "min_delta must be"),
        (lambda: EarlyStopping(monitor="val"), "monitor must be one of 'loss', 'validation'"),
        (lambda: Plateau(factor=1.0), r"factor must be in \[0, 1\)"),
        (lambda: Plateau(cooldown=-1), "cooldown must be an integer >= 0"),
        (lambda: Checkpoint("x", every=0), "every must be >= 1"),
    ],
)
def test_bad_callbacks_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_callbacks_are_closed_after_an_error():
    class Watch(Callback):
        closed = False

        def close(self):
            self.closed = True

    w, watch = np.ones(1), Watch()

    def objective(w, step):
        if step:
            raise RuntimeError("out of data")
        return 1.0, w.copy()

    with pytest.raises(RuntimeError, match="out of data"):
        quiet(objective, w, fastlr.SGD(w), 3, watch)
    assert watch.closed
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_torch_parameters_train():
    torch = pytest.importorskip("torch")
    w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))

    def objective(w, step):
        loss = 0.5 * (w @ w)
        (grad,) = torch.autograd.grad(loss, w)
        return loss, grad

    assert quiet(objective, w, fastlr.SGD(w, lr=0.5), 2).loss == [12.5, 3.125]
