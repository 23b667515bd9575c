# Included by _core.pyx: what an optimizer calls.

ONE = 1.0
SUMMED = "what accumulate was given"


cdef class Stepper:
    """What of an optimizer must not be Python: between the writing and the return of `step` no bytecode runs, so that
    no signal handler can make an error of a step that was made.
    """
    cdef public object _plan, _lock
    cdef public Py_ssize_t _summands  # what `accumulate` was given since the last step

    def __cinit__(self, *_, **__):
        self._lock = Lock()

    def step(self, grads=SUMMED, *, grad_scale=ONE, clip_norm=None, clip_value=None, zero_grads=False):
        """Updates the parameters in place, in one pass over memory.

        Everything is checked before anything is written, so an error leaves parameters, state and step number as they
        were. So does an interrupt (Ctrl-C), up to the moment of writing; one that comes later does not come out of
        `step`: it is raised in the caller when `step` has returned. Two threads that call `step` on one optimizer
        take turns.

        Parameters
        ----------
        grads
            Gradients in the structure of the parameters: same shapes, same dtype, or any of float32, float16 and
            bfloat16, which are widened on the way (not for Adafactor). None skips a parameter wholly: no state, no
            decay, no step count. Only read, unless `zero_grads`. Left out: the mean of what `accumulate` was given.
        grad_scale : float, default 1
            The gradients are multiplied by it, > 0, on the way in: 1 / loss_scale, or 1 / batches summed.
        clip_norm : float, or a list with one or None for each group, optional
            Scale the gradients by min(1, clip_norm / (‖grad_scale · g‖₂ + 1e-6)), the norm over all of them, as
            ``torch.nn.utils.clip_grad_norm_`` does; in a list each group by its own. > 0. Costs one more read of the
            gradients.
        clip_value : float, optional
            Limit each element of grad_scale · g to ±clip_value, > 0. Not with `clip_norm`.
        zero_grads : bool, default False
            Set the gradients to zero in the same pass; also when the step is skipped.

        Returns
        -------
        Report
            ``step``, ``lr``, ``grad_norm`` and ``skipped``.

        Examples
        --------
        >>> import fastlr, numpy as np
        >>> p = np.ones(2, np.float32)
        >>> fastlr.SGD(p, lr=0.5).step(np.float32([3, 4]), clip_norm=1.0)
        Report(step=1, lr=0.5, grad_norm=5.0, skipped=False)
        >>> p
        array([0.70000005, 0.6000001 ], dtype=float32)
        """
        return self._step(grads, None, grad_scale, clip_norm, clip_value, zero_grads)

    def _step(self, grads, inputs, grad_scale, clip_norm, clip_value, zero_grads):
        """`step`, with what the rule takes beside the gradients."""
        with self._lock:
            report = self._plan.step(*self._ready(grads, inputs, grad_scale, clip_norm, clip_value, zero_grads))
            if grads is SUMMED:
                self._summands = 0
            return report

    def step_rows(self, rows, grads, *, grad_scale=ONE, clip_norm=None):
        """Updates some rows of a table in place, such as those of an embedding that a batch looked up.

        The rule runs on the rows that occur in `rows`; all others, their state too, stay as they are and are not read:
        time and memory depend on the rows given, not on the table. All else is as in `step`: checked before anything
        is written, one step more in the count, the same bits for any instruction set and number of threads.

        A row may occur any number of times. Its gradients are added first, in float64 and in the order in which they
        occur, and the sum is rounded to their dtype once: so the order of different rows changes no bit. Each addition
        rounds to float64, which has 29 bits more than float32: of float32 gradients the sum is nearly always the exact
        one rounded, of float64 ones it is off as sums in float64 are. The rule, clipping and `nonfinite` see the sum.

        Weight decay reaches a row when it is given, and only then (torch refuses decay with sparse gradients). The
        same holds for what a rule lets fade at every step: b of `SGD` with momentum (torch moves all rows then), m and
        v of `SparseAdam`. `LazyAdam` makes up for the steps that a row has missed.

        Parameters
        ----------
        rows : int32 or int64 array, shape (n,)
            The row of each gradient, from 0 on; negative numbers do not count from the end. In the structure of the
            parameters, which are tables: arrays with two dimensions. None, with None in `grads`, skips a table wholly.
        grads : array, shape (n, width)
            The gradients, in the parameters' dtype. Only read. `rows_of` takes both from a sparse torch tensor or
            SciPy matrix.
        grad_scale : float, default 1
            As in `step`.
        clip_norm : float, optional
            As in `step`; the norm is that of the summed gradients. Costs one more read of them.

        Returns
        -------
        Report
            ``step``, ``lr``, ``grad_norm`` and ``skipped``.

        Examples
        --------
        >>> import fastlr, numpy as np
        >>> table = np.zeros((1000, 2), np.float32)
        >>> opt = fastlr.SGD(table, lr=0.5)
        >>> opt.step_rows(np.array([7, 3, 7]), np.float32([[1, 2], [8, 8], [1, 0]])).step
        1
        >>> table[[3, 7]]
        array([[-4., -4.],
               [-1., -1.]], dtype=float32)
        """
        with self._lock:
            return self._plan.step_rows(*self._ready_rows(rows, grads, grad_scale, clip_norm))


cdef class InformedStepper(Stepper):
    """The same, of a rule that takes a diagonal of the Hessian beside the gradients."""

    def step(
        self, grads=SUMMED, *, hessian=None, grad_scale=ONE, clip_norm=None, clip_value=None, zero_grads=False
    ):
        """As `Optimizer.step`, with a new estimate of the Hessian's diagonal.

        Parameters
        ----------
        hessian
            In the structure of the parameters, of what is minimised, as `fastlr.hutchinson` returns it. Only read;
            `grad_scale`, clipping and `maximize` do not act on it.
        """
        return self._step(grads, hessian, grad_scale, clip_norm, clip_value, zero_grads)
