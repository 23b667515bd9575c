"""Threads, forks and interrupts: a step happens wholly or not at all, whoever else is about."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import fastlr
from tests.processes import in_a_fresh_process

N = 300_000  # enough for the pool to take part


def data(seed=0, n=N):
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


def trained(steps, n=N):
    p = data(n=n)
    opt = fastlr.AdamW(p)
    for k in range(steps):
        opt.step(data(k, n))
    return p


def test_two_threads_on_one_optimizer_take_turns():
    p, g = data(), data(1)
    opt = fastlr.SGD(p, lr=0.5, momentum=0.5)
    seen = []

    def run():
        for _ in range(100):
            seen.append(opt.step(g).step)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(seen) == list(range(1, 401))
    q = data()
    other = fastlr.SGD(q, lr=0.5, momentum=0.5)
    for _ in range(400):
        other.step(g)
    np.testing.assert_array_equal(p, q)


def test_optimizers_in_threads_of_their_own_run_side_by_side():
    """While one thread is in a long step, another finishes many short ones: neither the GIL nor the pool is held."""
    big = np.zeros(40_000_000, np.float32)
    slow = fastlr.SGD(big)
    zeros = np.zeros_like(big)
    slow.step(zeros)
    small, g = data(n=100), data(1, 100)
    quick = fastlr.SGD(small)
    done = threading.Event()

    def run():
        for _ in range(3):
            slow.step(zeros)
        done.set()

    thread = threading.Thread(target=run)
    thread.start()
    steps = 0
    while not done.is_set():
        quick.step(g)
        steps += 1
    thread.join()
    assert steps > 100


def test_many_optimizers_in_many_threads_give_the_right_bits():
    expected = trained(20)
    results = {}

    def run(k):
        results[k] = trained(20)

    with fastlr.num_threads(3):
        threads = [threading.Thread(target=run, args=(k,)) for k in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    for result in results.values():
        np.testing.assert_array_equal(result, expected)


def test_more_threads_than_processors():
    expected = trained(5)
    for n in (1, 2, 7, 64):
        with fastlr.num_threads(n):
            np.testing.assert_array_equal(trained(5), expected)


@in_a_fresh_process
def test_a_forked_child_can_step():
    with fastlr.num_threads(2):
        p = data()
        opt = fastlr.AdamW(p)
        opt.step(data(0))  # the pool is running now
        expected = trained(3)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                opt.step(data(1))
                opt.step(data(2))
                code = 0 if np.array_equal(p, expected) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        opt.step(data(1))
        opt.step(data(2))
        np.testing.assert_array_equal(p, expected)


@in_a_fresh_process
def test_fork_while_another_thread_steps():
    with fastlr.num_threads(2):
        opt = fastlr.SGD(data())
        g, stop = data(1), threading.Event()

        def run():
            while not stop.is_set():
                opt.step(g)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            for _ in range(10):
                pid = os.fork()
                if pid == 0:
                    code = 1
                    try:
                        code = 0 if np.array_equal(trained(2, 50_000), trained(2, 50_000)) else 2
                    finally:
                        os._exit(code)
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_spawned_child_gives_the_same_bits(method):
    with multiprocessing.get_context(method).Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(trained, (3,)), trained(3))


def test_ctrl_c_before_the_writing_leaves_all_as_it_was():
    """A signal that comes while the norm is measured, milliseconds before anything is written, is raised instead."""
    p, g = np.ones(40_000_000, np.float32), np.ones(40_000_000, np.float32)
    opt = fastlr.SGD(p, lr=1, momentum=0.9)
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), fastlr.num_threads(1):  # noqa: PT012, the alarm must not come before
            signal.setitimer(signal.ITIMER_REAL, 1e-3)
            opt.step(g, clip_norm=1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert opt.step_count == 0
    assert (p == 1).all()
    assert not opt.state["b"].any()


def test_ctrl_c_in_a_schedule_leaves_all_as_it_was():
    p, g = data(), data(1)

    def lr(step):
        if step == 1:
            signal.raise_signal(signal.SIGINT)
        return 0.5

    opt = fastlr.SGD(p, lr=lr, momentum=0.9)
    opt.step(g)
    before = p.copy(), opt.state["b"].copy()
    with pytest.raises(KeyboardInterrupt):
        opt.step(g)
    np.testing.assert_array_equal(p, before[0])
    np.testing.assert_array_equal(opt.state["b"], before[1])
    assert opt.step_count == 1


def test_ctrl_c_at_any_moment_leaves_whole_steps():
    """Interrupts at random times: parameters, state and step number always agree, and where one comes out of `step`
    nothing was done: one that comes too late for that is raised in the caller.
    """
    n, g = 30_000, data(1, 30_000)
    trajectory = []
    p = data(n=n)
    reference = fastlr.SGD(p, lr=0.01, momentum=0.9)
    for _ in range(400):
        trajectory.append((p.copy(), reference.state["b"].copy()))
        reference.step(g)

    q = data(n=n)
    opt = fastlr.SGD(q, lr=0.01, momentum=0.9)
    inside = outside = 0
    rng = np.random.default_rng(0)
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for _ in range(300):
            before = opt.step_count
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 60e-6))
                opt.step(g)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt as error:
                if error.__traceback__.tb_next:  # the frames below this one
                    inside += 1
                    assert opt.step_count == before
                else:
                    outside += 1
            if opt.step_count >= len(trajectory):
                break
            np.testing.assert_array_equal(q, trajectory[opt.step_count][0])
            np.testing.assert_array_equal(opt.state["b"], trajectory[opt.step_count][1])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert inside > 5
    assert outside > 5


def test_ctrl_c_reaches_the_program_not_the_pool():
    """SIGINT to the process while its threads work: the main thread ends with KeyboardInterrupt."""
    code = (
        "import numpy as np, fastlr\n"
        "fastlr.set_num_threads(2)\n"
        "p = np.zeros(1_000_000, np.float32); g = p.copy(); opt = fastlr.Adam(p)\n"
        "opt.step(g); print('ready', flush=True)\n"
        "try:\n"
        "    while True: opt.step(g)\n"
        "except KeyboardInterrupt: print('stopped', opt.step_count > 0, flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline().strip() == "ready"
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=30)[0].strip() == "stopped True"
    assert child.returncode == 0


def test_the_pool_sleeps_when_there_is_nothing_to_do():
    with fastlr.num_threads(2):
        trained(2)
        time.sleep(0.05)
        before = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before < 0.05


def test_torchs_threads_do_all_passes_of_a_step():
    """Ours would be woken beside them, while they spin on the processors."""
    torch = pytest.importorskip("torch")
    if not os.path.isdir("/proc/self/task") or not torch.backends.openmp.is_available():
        pytest.skip("counts the threads in /proc, and torch's are OpenMP's")
    step_after_torch()


@in_a_fresh_process
def step_after_torch():
    import torch

    torch.set_num_threads(2)
    with fastlr.num_threads(2):
        x, p = torch.ones(1 << 20), data(n=1 << 22)
        opt = fastlr.AdamW(p)
        x.add_(1)  # torch's threads are there now
        before = len(os.listdir("/proc/self/task"))
        for step in range(5):
            x.add_(1)
            time.sleep(0.001)
            opt.step(data(step, p.size), clip_norm=1.0)
        assert len(os.listdir("/proc/self/task")) == before


def test_results_do_not_depend_on_the_denormal_mode_of_a_worker():
    """torch.set_flush_denormal is for the calling thread: the pool's threads take the mode over for the call."""
    torch = pytest.importorskip("torch")
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    try:
        results = []
        for n in (1, 2, 3):
            with fastlr.num_threads(n):
                p = np.zeros(N, np.float32)
                fastlr.SGD(p, lr=1).step(np.full(N, 1e-41, np.float32))
                results.append(p)
    finally:
        torch.set_flush_denormal(False)
    assert not results[0].any()
    for result in results[1:]:
        np.testing.assert_array_equal(result.view(np.uint32), results[0].view(np.uint32))
