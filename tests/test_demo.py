"""`fastlr demo`: its network, its plain NumPy rules, and the program as its users run it."""

import dataclasses
import errno
import os
import pty
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import fastlr
from fastlr.demo import plain, run, timing
from fastlr.demo.network import Network, cross_entropy
from fastlr.demo.rules import RULES, warmup_cosine
from fastlr.demo.training import SIZES, train

EPS = np.finfo(np.float64).eps
PIP = "fastlr demo needs scikit-learn, matplotlib and rich: pip install 'fastlr-kernels[demo]'"


@pytest.fixture
def batches():
    """Random pictures and labels in the place of the digits; scikit-learn is not needed for these tests."""
    random = np.random.default_rng(7)
    x = random.random((720, SIZES[0]), np.float32)
    labels = random.integers(0, SIZES[-1], 720)
    return SimpleNamespace(train_x=x[:640], train_labels=labels[:640], test_x=x[640:], test_labels=labels[640:])


# ---- the network ----------------------------------------------------------------------------------------------------


def test_gradients_are_the_slopes_of_the_loss():
    random = np.random.default_rng(3)
    net = Network((6, 5, 4, 3), seed=2, dtype=np.float64)
    net.params.data[:] += 0.1 * random.normal(size=net.params.data.size)  # biases start at zero
    x, labels = random.normal(size=(9, 6)), random.integers(0, 3, 9)
    net.gradients(x, labels)
    h = EPS ** (1 / 3)  # where rounding, EPS / h, and curvature, h², of a central difference are alike
    p, slopes = net.params.data, np.empty_like(net.params.data)
    for k in range(p.size):
        here = p[k]
        p[k] = here + h
        above = net.evaluate(x, labels)[0]
        p[k] = here - h
        slopes[k] = (above - net.evaluate(x, labels)[0]) / (2 * h)
        p[k] = here
    np.testing.assert_allclose(net.grads.data, slopes, rtol=0, atol=10 * h**2)
    assert np.abs(slopes).max() > 1e-2


def test_gradients_of_all_layers_are_in_one_buffer():
    net = Network(SIZES, seed=0)
    assert net.grads.names == net.params.names == ("w1", "b1", "w2", "b2", "w3", "b3")
    assert net.grads.dtype == np.float32
    net.gradients(np.ones((4, SIZES[0]), np.float32), np.array([0, 1, 2, 3]))
    assert all(np.shares_memory(net.grads[name], net.grads.data) and net.grads[name].any() for name in net.grads)


def test_cross_entropy_of_huge_logits_is_finite():
    loss, gradient = cross_entropy(np.float32([[1e30, 0], [0, -1e30]]), np.array([0, 0]))
    assert loss == 0
    assert np.array_equal(gradient, np.zeros((2, 2)))


def test_accuracy_counts_hits():
    net = Network((2, 2), seed=0)
    net.params["w1"][:] = np.eye(2)
    assert net.evaluate(np.float32([[1, 0], [0, 1], [1, 0], [0, 1]]), np.array([0, 1, 0, 0]))[1] == 0.75


# ---- the rules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("scale", [1, 1e-8])  # the second is where ε matters
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, timing.TOLERANCE)])
def test_plain_numpy_makes_the_same_update(name, scale, dtype, tolerance):
    rule, random = RULES[name], np.random.default_rng(5)
    start = random.normal(size=1000).astype(dtype) * (1 if dtype == np.float64 else 1e-3)
    ours, theirs = start.copy(), start.copy()
    optimizer, step = rule.build(ours, rule.lr), rule.build_plain(theirs, rule.lr)
    for _ in range(8):
        g = (scale * random.normal(size=1000)).astype(dtype)
        optimizer.step(g)
        step(g)
    moved = np.abs(ours - start).max()
    assert moved > 0
    rounding = 8 * np.spacing(np.abs(ours).max())
    assert np.abs(ours - theirs).max() <= tolerance * moved + rounding


@pytest.mark.parametrize("name", RULES)
def test_demo_accepts_its_plain_steps(name, batches):
    timing.compare(name, RULES[name], batches)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("SGD", lambda p, g, state, t, lr, **hyper: plain.sgd(p, g, state, t, lr)),
        ("Adagrad", plain.rmsprop),
        ("RMSprop", plain.adagrad),
        ("Adam", lambda p, g, state, t, lr: plain.adam(p, g, state, t + 1, lr)),
        ("AdamW", lambda p, g, state, t, lr, weight_decay: plain.adam(p, g, state, t, lr)),
        ("AMSGrad", plain.adam),
    ],
)
def test_demo_refuses_to_time_another_step(name, wrong, batches):
    with pytest.raises(timing.Disagreement, match=f"^{name}: plain NumPy and fastlr differ by "):
        timing.compare(name, dataclasses.replace(RULES[name], step=wrong), batches)


def test_times_are_positive(batches, monkeypatch):
    monkeypatch.setattr(timing, "CALLS", 3)
    times = timing.measure(RULES["Adam"], batches)
    assert times.fastlr > 0
    assert times.ratio == times.numpy / times.fastlr


# ---- training -------------------------------------------------------------------------------------------------------


def test_schedule_rises_then_falls():
    values = warmup_cosine(0.5, 100)(np.arange(100))
    assert values[0] == pytest.approx(0.5 / 6)
    assert values[5] == 0.5
    assert values[99] == 0.005
    assert np.all(np.diff(values[:6]) > 0)
    assert np.all(np.diff(values[5:]) < 0)


def test_training_records_what_the_optimizer_reports(batches):
    seen = []
    history = train(RULES["Adam"], batches, epochs=3, watch=lambda h: seen.append(len(h.accuracy)))
    lr = warmup_cosine(RULES["Adam"].lr, 30)
    assert history.lr == [lr(t) for t in range(30)]
    assert seen == [1, 2, 3]
    assert history.train_loss[2] < history.train_loss[0]
    assert history.steps_per_second > 0


def test_training_is_repeatable(batches):
    one, two = (train(RULES["AdamW"], batches, epochs=2) for _ in range(2))
    assert one.train_loss == two.train_loss


# ---- the program ----------------------------------------------------------------------------------------------------


def command(png):
    return [sys.executable, "-m", "fastlr", "demo", "--png", str(png)]


def environment(**more):
    """No display, and no variable by which the caller's terminal could show through."""
    kept = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND", "COLUMNS")}
    return {**kept, **more}


def check_rows(text):
    """Each rule has a row with six numbers, and the ratio is that of the two times."""
    table = text.partition("ratio")[2]
    for name in RULES:
        (cells,) = re.findall(rf"^\W*{name}\W.*$", table, re.MULTILINE)
        accuracy, loss, steps, ours, theirs, ratio = (float(x.replace(",", "")) for x in re.findall(r"[\d.,]+", cells))
        assert accuracy >= (97 if name in ("Adam", "AdamW") else 90)
        assert 0 < loss < 1
        assert steps > 0
        assert ratio == pytest.approx(theirs / ours, rel=0.1)  # all three are rounded


def check_png(path):
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert path.stat().st_size > 20_000


def test_demo_prints_plain_lines_to_a_pipe(tmp_path):
    png = tmp_path / "curves.png"
    # FORCE_COLOR makes rich take a pipe for a terminal, unless it is told otherwise.
    done = subprocess.run(
        command(png), env=environment(FORCE_COLOR="1"), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert f"\nCurves: {png}\n" in done.stdout
    lines = done.stdout.splitlines()
    for name in RULES:
        started, finished = (k for k, line in enumerate(lines) if line.startswith(f"{name}:"))
        assert finished == started + 1
    check_rows(done.stdout)
    check_png(png)


def test_demo_shows_progress_on_a_terminal(tmp_path):
    png = tmp_path / "curves.png"
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command(png), env=environment(TERM="xterm-256color", COLUMNS="100"), stdin=theirs, stdout=theirs, stderr=theirs
    ) as demo:
        os.close(theirs)
        chunks = []
        while chunk := read(ours):
            chunks.append(chunk)
    os.close(ours)
    text = b"".join(chunks).decode()
    assert demo.returncode == 0
    assert "\x1b[" in text
    assert len(re.findall(r"\b\d+/60\b", text)) > 60  # drawn again and again
    assert str(png) in text
    check_rows(re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text).replace("\r", ""))
    check_png(png)


def read(terminal):
    try:
        return os.read(terminal, 1 << 16)
    except OSError as error:  # how Linux says that the other side has closed
        if error.errno != errno.EIO:
            raise
        return b""


def test_interrupt_stops_the_demo(tmp_path):
    with subprocess.Popen(
        command(tmp_path / "x.png"), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        while not demo.stdout.readline().startswith("SGD"):
            assert demo.poll() is None
        demo.send_signal(signal.SIGINT)
        _, errors = demo.communicate(timeout=30)
    assert demo.returncode == 130
    assert errors.endswith("\nfastlr demo: interrupted\n")
    assert "Traceback" not in errors


@pytest.mark.parametrize("extra", ["sklearn", "matplotlib", "rich"])
def test_missing_extra_gives_the_pip_line(extra, tmp_path):
    code = f"import sys; sys.modules[{extra!r}] = None; from fastlr.demo import run; sys.exit(run('x.png'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(f"{PIP}\n")  # matplotlib may have said before that it builds its font cache
    assert "Traceback" not in done.stderr


def test_import_needs_no_extra():
    code = "import sys, fastlr.demo; print(*{'sklearn', 'matplotlib', 'rich'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"\n"


@pytest.mark.parametrize("where", ["", "nowhere/curves.png"])
def test_path_that_cannot_be_written_is_refused_before_training(where, tmp_path, capsys):
    pytest.importorskip("sklearn")
    assert run(str(tmp_path / where)) == 1
    out, errors = capsys.readouterr()
    assert out == ""
    assert errors.startswith("fastlr demo: --png must name a file in a directory that exists, got ")


def test_demo_fails_if_adam_does_not_learn(tmp_path, capsys, monkeypatch):
    session = pytest.importorskip("fastlr.demo.session")
    monkeypatch.setattr(session, "EPOCHS", 1)
    monkeypatch.setattr(timing, "CALLS", 3)
    threads = fastlr.get_num_threads()
    assert run(str(tmp_path / "x.png")) == 1
    assert re.fullmatch(
        r"fastlr demo: test accuracy must reach 97%, got Adam [\d.]+%, AdamW [\d.]+%\n", capsys.readouterr().err
    )
    assert fastlr.get_num_threads() == threads


def test_demo_fails_if_a_plain_step_is_wrong(tmp_path, capsys, monkeypatch):
    session = pytest.importorskip("fastlr.demo.session")
    monkeypatch.setattr(session, "EPOCHS", 1)
    monkeypatch.setattr(timing, "CALLS", 3)
    monkeypatch.setitem(session.RULES, "AMSGrad", dataclasses.replace(RULES["AMSGrad"], step=plain.adam))
    assert run(str(tmp_path / "x.png")) == 1
    assert capsys.readouterr().err.startswith("fastlr demo: AMSGrad: plain NumPy and fastlr differ by ")
