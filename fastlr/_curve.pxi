# Included by _core.pyx: schedules as compiled tables, evaluated in C.

cdef extern from "fastlr.h" nogil:
    const int FASTLR_NEGATIVE, FASTLR_ENDED, FASTLR_FAILED

    ctypedef struct fastlr_segment:
        pass

    int fastlr_schedule(const fastlr_segment *, size_t n, const double *t, double *out)
    int fastlr_schedule_ints(const fastlr_segment *, size_t n, const int64_t *t, double *out)
    int fastlr_schedule_wide(const fastlr_segment *, double hi, double lo, double *out)

    double fastlr_stirling(double z)

    ctypedef struct fastlr_plateau:
        double factor, patience, threshold, cooldown, least, smoothing
        bint maximize, relative, skip_nan

    ctypedef struct fastlr_plateau_state:
        double scale, best, bad, cooling, average, seen

    fastlr_plateau_state fastlr_plateau_next(const fastlr_plateau *, fastlr_plateau_state, double metric)


cdef extern from "elementary.h" nogil:
    ctypedef struct twofold:
        double hi, lo

    twofold c_logarithm_of "logarithm_of" (double)


def logarithm_of(double x):
    """ln x, x > 0, as two doubles: kernels/elementary.h."""
    cdef twofold y = c_logarithm_of(x)
    return y.hi, y.lo


def stirling(double z):
    """ln Γ(z) − ½ ln 2π as `time_based` has it: kernels/curves.h."""
    return fastlr_stirling(z)


@cython.final
cdef class Custom:
    """A Python function of one number, for a table; keeps the error of a call that failed."""
    cdef readonly object function
    cdef object error

    def __init__(self, function):
        self.function = function

    @property
    def address(self):
        """(function, context) as numbers. The table that has them must keep this object."""
        return <uintptr_t><void *>call_python, <uintptr_t><void *>self


cdef bint call_python(void *context, size_t n, const double *t, double *out) noexcept with gil:
    cdef Custom custom = <Custom>context
    try:
        for i in range(n):
            out[i] = custom.function(t[i])
    except BaseException as error:
        custom.error = error
        for i in range(n):
            out[i] = float("nan")
        return False
    return True


cdef class Curve:
    """A compiled schedule: the part of `Schedule` that is called at every step."""
    cdef fastlr_segment *table
    cdef tuple kept

    def _compile(self, bytes table, tuple kept):
        """Takes the table's bytes, and what its pointers refer to. Once."""
        if self.table != NULL or len(table) % sizeof(fastlr_segment):
            raise ValueError("a table of whole segments, once")
        self.table = <fastlr_segment *>new_array(len(table), 1)
        memcpy(self.table, <const char *>table, len(table))
        self.kept = kept

    def __dealloc__(self):
        PyMem_Free(self.table)

    def __call__(self, t, out=None):
        cdef double x, y
        cdef int64_t n
        cdef int status, overflow
        if self.table != NULL and out is None:
            if PyLong_CheckExact(t):
                n = PyLong_AsLongLongAndOverflow(t, &overflow)
                if overflow:
                    return self.at_wide(t)
                status = fastlr_schedule_ints(self.table, 1, &n, &y)
                if status:
                    self.refuse(status, t)
                return y
            if PyFloat_CheckExact(t):
                x = t
                status = fastlr_schedule(self.table, 1, &x, &y)
                if status:
                    self.refuse(status, t)
                return y
        return self._many(t, out)

    cdef object at_wide(self, t):
        """At an integer that needs more than 64 bits."""
        cdef double y, hi
        cdef int status
        if t < 0:
            self.refuse(FASTLR_NEGATIVE, t)
        hi = float(t)
        status = fastlr_schedule_wide(self.table, hi, float(t - int(hi)), &y)
        if status:
            self.refuse(status, t)
        return y

    cdef double at(self, int64_t n) except? -1:
        """For optimizers: the value used by update n."""
        cdef double y
        cdef int status = fastlr_schedule_ints(self.table, 1, &n, &y)
        if status:
            self.refuse(status, n)
        return y

    def _fill(self, t, out):
        """out[...] = values at t: contiguous float64 or int64, and float64 of the same size apart from it."""
        cdef Py_buffer x, y
        cdef int status
        cdef size_t n
        cdef bint floats = pin(t, &x, c"d", False)
        if not floats and not pin(t, &x, c"l", False):
            raise TypeError("steps must be a contiguous array of int64 or float64")
        if not pin(out, &y, c"d", True):
            PyBuffer_Release(&x)
            raise TypeError("out must be a contiguous, writable array of float64")
        n = <size_t>(y.len // y.itemsize)
        with nogil:
            if floats:
                status = fastlr_schedule(self.table, n, <const double *>x.buf, <double *>y.buf)
            else:
                status = fastlr_schedule_ints(self.table, n, <const int64_t *>x.buf, <double *>y.buf)
        PyBuffer_Release(&x)
        PyBuffer_Release(&y)
        if status:
            self.refuse(status, t)

    cdef int refuse(self, int status, t) except -1:
        if status & FASTLR_FAILED:
            for custom in self.kept:
                if type(custom) is Custom and (<Custom>custom).error is not None:
                    error, (<Custom>custom).error = (<Custom>custom).error, None
                    raise error
        if status & FASTLR_NEGATIVE:
            raise ValueError(f"steps must be >= 0, got {t if isinstance(t, int | float) else min(t.flat)}")
        last = t if isinstance(t, int | float) else max(t.flat)
        raise ValueError(f"{self!r} has ended at step {last}; after() says what follows")


def plateau_run(tuple options, tuple state, metrics, out):
    """The state after all metrics; out[k] is the scale after metric k. Contiguous float64 of one size."""
    cdef fastlr_plateau o
    cdef fastlr_plateau_state s
    cdef Py_buffer x, y
    o.factor, o.patience, o.threshold, o.cooldown, o.least, o.smoothing, o.maximize, o.relative, o.skip_nan = options
    s.scale, s.best, s.bad, s.cooling, s.average, s.seen = state
    if not pin(metrics, &x, c"d", False):
        raise TypeError("metrics must be a contiguous array of float64")
    if not pin(out, &y, c"d", True):
        PyBuffer_Release(&x)
        raise TypeError("out must be a contiguous, writable array of float64")
    with nogil:
        for k in range(y.len // y.itemsize):
            s = fastlr_plateau_next(&o, s, (<const double *>x.buf)[k])
            (<double *>y.buf)[k] = s.scale
    PyBuffer_Release(&x)
    PyBuffer_Release(&y)
    return s.scale, s.best, s.bad, s.cooling, s.average, s.seen
