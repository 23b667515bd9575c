"""Trials one after the other, or side by side in processes. The storage has one writer: the process that asks."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastlr import config
from fastlr.tune.study import Study
from fastlr.tune.trial import Factory, Outcome, evaluate

if TYPE_CHECKING:
    from concurrent.futures import Future


def check_importable(factory: Factory) -> None:
    try:
        pickle.dumps(factory)
    except Exception as error:
        raise TypeError(
            f"objective_factory must be a function of a module that other processes can import, for jobs > 1: {error}"
        ) from None


def in_turn(factory: Factory, study: Study, steps: int, todo: int, told: Callable[[], None]) -> None:
    """Asks for values `todo` times, trains with them, and tells; `told` is called after each."""
    for _ in range(todo):
        trial = study.ask()
        try:
            outcome = evaluate(factory, trial.params, steps)
        except BaseException:
            study.fail(trial)
            raise
        study.tell(trial, outcome)
        told()


def side_by_side(factory: Factory, study: Study, steps: int, todo: int, told: Callable[[], None], jobs: int) -> None:
    """The same in so many processes."""
    from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
    from multiprocessing import get_context

    threads = max(1, config.info()["processors"] // jobs)
    running: dict[Future[Outcome], Any] = {}
    with (
        _share_of_threads(threads),
        ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (threads,)) as pool,
    ):
        try:
            while todo or running:
                while todo and len(running) < jobs:
                    trial = study.ask()
                    running[pool.submit(evaluate, factory, trial.params, steps)] = trial
                    todo -= 1
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    outcome = future.result()
                    study.tell(running.pop(future), outcome)
                    told()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for trial in running.values():
                study.fail(trial)
            raise


def _begin(threads: int) -> None:
    """What a worker process does first."""
    config.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool whose parent is killed would wait for work for ever: the other workers hold the queue open."""
    from multiprocessing import parent_process

    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _share_of_threads(threads: int) -> Iterator[None]:
    """BLAS in the workers takes its share of the processors, unless the user has said otherwise."""
    names = [n for n in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS") if n not in os.environ]
    os.environ.update(dict.fromkeys(names, str(threads)))
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]
