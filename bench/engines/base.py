"""What an engine is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from bench.cases import Array, Case
from fastlr.buffers import allocate

Step = Callable[[], object]


class Engine(ABC):
    """One way of one library to make a step. An instance runs one case.

    An engine that can work on foreign memory takes parameters and gradients from `place`: fastlr's own allocation, on
    huge pages, so that none is slower for where these lie. State is wherever the library puts it.
    """

    name: str

    norm: ClassVar[Callable[[Array], float] | None] = None
    """The library's own norm of a whole tensor, where its steps are as far off as that is; see `bench.check`."""

    p: Array
    g: Array

    @staticmethod
    @abstractmethod
    def supports(case: Case) -> bool:
        """Whether the library has this rule, with these semantics, in this dtype."""

    @abstractmethod
    def setup(self, case: Case, p: Array, g: Array) -> Step:
        """Copies the data, builds the optimizer with `case.threads` and returns what makes one step."""

    def place(self, p: Array, g: Array) -> None:
        self.p, self.g = allocate(p.size, p.dtype), allocate(g.size, g.dtype)
        self.p[:], self.g[:] = p, g

    def gradient(self, g: Array) -> None:
        """Replaces the gradients. Not timed."""
        np.copyto(self.g, g)

    def params(self) -> Array:
        """The parameters as they are now."""
        return self.p

    def checked_as(self, case: Case) -> Case:
        """The case whose reference this engine must match."""
        return case
