# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True, auto_pickle=False, autotestdict=False
"""All the Cython there is: Python objects in, checked pointers out, one call without the GIL.

1. A `Plan` binds parameters and state once: checked, pinned (a bound array cannot be resized) and cut into pieces.
2. `Plan.step` takes the gradients, checks everything, and only then writes: what follows the last check cannot fail.
3. No arithmetic on elements happens here; that is C, in kernels/.
"""
cimport cython
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_FORMAT,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.float cimport DBL_MAX, FLT_MAX
from libc.math cimport fabs
from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport qsort
from libc.string cimport memcpy, memset

from fastlr.buffers import as_array, refuse


cdef extern from "fastlr.h" nogil:
    const int FASTLR_STATES, FASTLR_HYPERS, FASTLR_MAX_THREADS, FASTLR_BLOCK

    ctypedef enum fastlr_dtype:
        FASTLR_F32
        FASTLR_F64

    ctypedef struct fastlr_hyper:
        double lr, scale, l2, decay
        double rule[4]

    ctypedef struct fastlr_step:
        pass

    ctypedef struct fastlr_span:
        size_t n
        void *p
        void *g
        void *s[3]
        const fastlr_step *step
        size_t start

    ctypedef struct fastlr_rule:
        const char *name
        size_t size
        int states
        int hypers
        bint prepare(const fastlr_hyper *, int64_t t, fastlr_step *)

    ctypedef struct fastlr_partial:
        pass

    ctypedef struct fastlr_stats:
        double norm, largest
        bint finite

    const char *fastlr_isa_name(int n)
    bint fastlr_isa_runs(int n)
    int fastlr_isa()
    void fastlr_use_isa(int n)
    const fastlr_rule *fastlr_find(const char *name, fastlr_dtype)
    void fastlr_lay(fastlr_span *, size_t spans)
    void fastlr_run(const fastlr_rule *, const fastlr_span *, size_t spans, bint zero, int threads)
    size_t fastlr_blocks(const fastlr_span *, size_t spans)
    fastlr_stats fastlr_measure(fastlr_dtype, const fastlr_span *, size_t spans, fastlr_partial *, int threads)
    int fastlr_processors()


MAX_THREADS = FASTLR_MAX_THREADS
BLOCK = FASTLR_BLOCK


# ---- the machine ----------------------------------------------------------------------------------------------------

cdef int threads = 1


def set_threads(int n):
    global threads
    threads = n


def get_threads():
    return threads


def processors():
    """Processors this process may use: affinity, cut by the container's quota."""
    return fastlr_processors()


def isas():
    """{name: whether this machine runs it}, for every instruction set of this build, narrowest first."""
    cdef int n = 0
    found = {}
    while fastlr_isa_name(n) != NULL:
        found[fastlr_isa_name(n).decode()] = fastlr_isa_runs(n)
        n += 1
    return found


def isa():
    return fastlr_isa_name(fastlr_isa()).decode()


def use_isa(str name):
    """Switches the whole process; the name is one that `isas()` says runs."""
    for n, (known, runs) in enumerate(isas().items()):
        if known == name and runs:
            fastlr_use_isa(n)
            return
    raise ValueError(f"unknown or unsupported instruction set {name!r}; see isas()")


# ---- buffers --------------------------------------------------------------------------------------------------------

cdef struct extent:
    uintptr_t first, last  # [first, last): never empty
    size_t owner           # an index that says whose it is


cdef int before(const void *a, const void *b) noexcept nogil:
    cdef uintptr_t x = (<const extent *>a).first, y = (<const extent *>b).first
    return (x > y) - (x < y)


cdef size_t add_extent(extent *to, size_t count, const Py_buffer *view, size_t owner) noexcept:
    """Appends the view's memory if it has any; returns the new count."""
    if view.len == 0:
        return count
    to[count] = extent(<uintptr_t>view.buf, <uintptr_t>view.buf + <size_t>view.len, owner)
    return count + 1


cdef size_t sort_extents(extent *x, size_t count) noexcept:
    """Sorts by address; returns the index of one that overlaps the one after it, or count."""
    qsort(x, count, sizeof(extent), before)
    for k in range(1, count):
        if x[k].first < x[k - 1].last:
            return k - 1
    return count


cdef size_t find_extent(const extent *x, size_t count, const Py_buffer *view) noexcept:
    """The index of one, among sorted disjoint ones, that shares memory with the view, or count."""
    cdef uintptr_t first = <uintptr_t>view.buf, last = first + <size_t>view.len
    cdef size_t low = 0, high = count, middle
    while low < high:
        middle = low + (high - low) // 2
        if x[middle].last <= first:
            low = middle + 1
        else:
            high = middle
    return low if first < last and low < count and x[low].first < last else count


cdef bint has_format(const Py_buffer *view, char kind) noexcept:
    cdef const char *f = view.format
    if f[0] == b"<" or f[0] == b"=" or f[0] == b"@":
        f += 1
    return f[0] == kind and f[1] == 0


cdef bint has_shape(const Py_buffer *view, const Py_buffer *model) noexcept:
    if view.ndim != model.ndim:
        return False
    for k in range(view.ndim):
        if view.shape[k] != model.shape[k]:
            return False
    return True


cdef bint pin(object x, Py_buffer *view, char kind, bint writable) except -1:
    """Takes a buffer of `kind` ("f" or "d"), C-contiguous and aligned; False, holding nothing, if x is not one."""
    try:
        PyObject_GetBuffer(x, view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS | (PyBUF_WRITABLE if writable else 0))
    except (BufferError, ValueError, TypeError):
        return False
    if has_format(view, kind) and <uintptr_t>view.buf % <size_t>view.itemsize == 0:
        return True
    PyBuffer_Release(view)
    return False


# ---- one optimizer's step -------------------------------------------------------------------------------------------

@cython.final
cdef class Report:
    """What one call of `Optimizer.step` did.

    Attributes
    ----------
    step : int
        Updates made so far, this one included; unchanged by a skipped one.
    lr : float
        The learning rate used, of the first group; `lrs` has every group's.
    grad_norm : float or None
        Euclidean norm of all gradients, unscaled and before clipping. None if nothing asked for it (``clip_norm`` or
        ``nonfinite="skip"`` or ``"raise"``): it costs a read of the gradients.
    skipped : bool
        Whether the step was left out for a gradient that is not finite.
    """
    cdef readonly int64_t step
    cdef readonly tuple lrs
    cdef readonly object grad_norm
    cdef readonly bint skipped

    @property
    def lr(self):
        return self.lrs[0]

    def __repr__(self):
        return f"Report(step={self.step}, lr={self.lr!r}, grad_norm={self.grad_norm!r}, skipped={self.skipped})"


PROPAGATE, SKIP, RAISE = range(3)
cdef enum:
    _PROPAGATE, _SKIP, _RAISE


cdef struct piece:
    size_t entry, offset, n, group


@cython.final
cdef class Plan:
    """Parameters and state, bound to a rule.

    Parameters
    ----------
    rule : str
        A rule of the kernels' table.
    kind : str
        "f" for float32, "d" for float64: the type of every buffer.
    params : list of arrays
        The entries. `names` has what errors call them, without the leading "params".
    state : dict of str to list of arrays
        For each state of the rule, in its order, one array an entry, of that entry's size.
    pieces : list of (entry, offset, n, group)
        How the entries are cut into groups; in order, without gaps.
    """
    cdef str rule
    cdef char kind
    cdef fastlr_dtype dtype
    cdef int states
    cdef size_t entries, count, groups
    cdef list names, keys
    cdef Py_buffer *views         # entries x (1 + states): parameters, then each state
    cdef size_t pinned
    cdef Py_buffer *grads         # of the step under way
    cdef bint *given              # whether there is one
    cdef void **seen              # where the last step's gradients were: checked for overlap once, not every step
    cdef bint seen_zero
    cdef piece *pieces
    cdef fastlr_hyper *hypers     # a group each
    cdef fastlr_step *steps       # a piece each
    cdef fastlr_span *spans       # a piece each
    cdef fastlr_partial *scratch
    cdef int64_t *t               # updates made, an entry each
    cdef readonly int64_t step_count
    cdef extent *owned            # parameters and state, sorted; then room for gradients
    cdef size_t owned_count

    def __cinit__(self, str rule, str kind, list params, list names, dict state, pieces, size_t groups):
        cdef size_t k, entry, offset, n, group, total = 0
        cdef const fastlr_rule *found
        self.rule = rule
        self.kind = <char>ord(kind)
        self.dtype = FASTLR_F32 if kind == "f" else FASTLR_F64
        self.names, self.keys = names, list(state)
        found = fastlr_find(rule.encode(), self.dtype)
        if found == NULL or found.states != len(state):
            raise ValueError(f"no rule {rule!r} with {len(state)} states")
        self.states = found.states
        self.entries, self.count, self.groups = len(params), len(pieces), groups
        self.views = <Py_buffer *>new_array(self.entries * <size_t>(1 + self.states), sizeof(Py_buffer))
        self.grads = <Py_buffer *>new_array(self.entries, sizeof(Py_buffer))
        self.given = <bint *>new_array(self.entries, sizeof(bint))
        self.seen = <void **>new_array(self.entries, sizeof(void *))
        self.t = <int64_t *>new_array(self.entries, sizeof(int64_t))
        self.pieces = <piece *>new_array(self.count, sizeof(piece))
        self.steps = <fastlr_step *>new_array(self.count, sizeof(fastlr_step))
        self.spans = <fastlr_span *>new_array(self.count, sizeof(fastlr_span))
        self.hypers = <fastlr_hyper *>new_array(groups, sizeof(fastlr_hyper))

        self.owned = <extent *>new_array(self.entries * <size_t>(2 + self.states), sizeof(extent))
        self.bind(params)
        for arrays in state.values():
            self.bind(arrays)
        k = sort_extents(self.owned, self.owned_count)
        if k < self.owned_count:
            raise_overlap(self.label(self.owned[k].owner), self.label(self.owned[k + 1].owner))
        for k, (entry, offset, n, group) in enumerate(pieces):
            self.pieces[k] = piece(entry, offset, n, group)
            total += n
        self.scratch = <fastlr_partial *>new_array(total // FASTLR_BLOCK + 1, sizeof(fastlr_partial))

    def __dealloc__(self):
        for k in range(self.pinned):
            PyBuffer_Release(&self.views[k])
        for block in (<uintptr_t>self.views, <uintptr_t>self.grads, <uintptr_t>self.given, <uintptr_t>self.seen,
                      <uintptr_t>self.t, <uintptr_t>self.pieces, <uintptr_t>self.steps, <uintptr_t>self.spans,
                      <uintptr_t>self.hypers, <uintptr_t>self.scratch, <uintptr_t>self.owned):
            PyMem_Free(<void *><uintptr_t>block)

    cdef int bind(self, arrays) except -1:
        """Pins the arrays of the parameters, or of the next state."""
        cdef size_t k
        cdef Py_buffer *view
        for k, x in enumerate(arrays):
            view = &self.views[self.pinned]
            if not pin(x, view, self.kind, True):
                refuse(self.label(self.pinned), x, chr(self.kind), None, True)
            self.owned_count = add_extent(self.owned, self.owned_count, view, self.pinned)
            self.pinned += 1
            if view.len != self.views[k].len:
                raise ValueError(f"{self.label(self.pinned - 1)} must have the size of params{self.names[k]}")
        return 0

    cdef str label(self, size_t owner):
        """What errors call a bound buffer, by its place in `views`."""
        key = owner // self.entries
        return (f"state[{self.keys[key - 1]!r}]" if key else "params") + self.names[owner % self.entries]

    @property
    def steps_made(self):
        """Updates made, an entry each: an entry whose gradient was None has made fewer."""
        return [self.t[k] for k in range(self.entries)]

    cpdef set_steps(self, int64_t step_count, list made):
        self.step_count = step_count
        for k in range(self.entries):
            self.t[k] = made[k]

    def load(self, dict state, int64_t step_count, list made, list updates):
        """Takes over state (arrays like those bound), step numbers and (dict, new items): all, or with an error none.

        In C from the first write on, so that not even Ctrl-C can come between.
        """
        cdef size_t k, pinned = 0, count = self.entries * <size_t>self.states
        cdef Py_buffer *source = <Py_buffer *>new_array(count, sizeof(Py_buffer))
        try:
            for arrays in state.values():
                for x in arrays:
                    if not pin(x, &source[pinned], self.kind, False):
                        raise TypeError("state must be arrays of the parameters' dtype")
                    pinned += 1
                    if source[pinned - 1].len != self.views[self.entries + pinned - 1].len:
                        raise ValueError("state must have the parameters' sizes")
            if pinned != count or len(made) != <Py_ssize_t>self.entries:
                raise ValueError("state must have one array for each state and parameter")
            PyErr_CheckSignals()
            for k in range(count):
                memcpy(self.views[self.entries + k].buf, source[k].buf, <size_t>source[k].len)
            self.set_steps(step_count, made)
            for target, items in updates:
                (<dict>target).update(items)
        finally:
            for k in range(pinned):
                PyBuffer_Release(&source[k])
            PyMem_Free(source)

    def set_group(self, size_t group, double lr, double l2, double decay, tuple rule):
        """Hyper-parameters of a group, already checked; `rule` in the order of the kernel's <rule>_hyper."""
        cdef fastlr_hyper *h = &self.hypers[group]
        if len(rule) != fastlr_find(self.rule.encode(), self.dtype).hypers:
            raise ValueError(f"rule {self.rule!r} does not have {len(rule)} hyper-parameters")
        h.lr, h.l2, h.decay = lr, l2, decay
        for k in range(len(rule)):
            h.rule[k] = rule[k]

    def set_lr(self, size_t group, double lr):
        self.hypers[group].lr = lr

    def step(self, grads, double grad_scale, bint maximize, double clip_norm, bint zero, int nonfinite):
        """One update. `grads` has an array, or None, for each entry; `clip_norm` < 0 does not clip."""
        cdef size_t k, taken = 0, live
        cdef const fastlr_rule *rule = fastlr_find(self.rule.encode(), self.dtype)
        cdef fastlr_stats stats
        cdef double scale = grad_scale, norm = -1
        cdef bint skip = False
        try:
            for k in range(self.entries):
                self.take(k, grads[k], zero)
                taken = k + 1
            self.check_overlap(zero)
            live = self.lay()
            if clip_norm >= 0 or nonfinite != _PROPAGATE:
                with nogil:
                    stats = fastlr_measure(self.dtype, self.spans, live, self.scratch, threads)
                norm = fabs(grad_scale) * stats.norm
                if clip_norm >= 0 and not norm + 1e-6 <= clip_norm:
                    scale *= clip_norm / (norm + 1e-6)
                if nonfinite != _PROPAGATE and not (
                    stats.finite and fabs(scale) * stats.largest <= (<double>FLT_MAX if self.kind == c"f" else DBL_MAX)
                ):
                    if nonfinite == _RAISE:
                        raise FloatingPointError(
                            f"grads must be finite for nonfinite='raise', but the largest is {stats.largest} "
                            "(times grad_scale); nothing was changed"
                        )
                    skip = True
            if not skip:
                self.prepare(rule, live, -scale if maximize else scale)
            PyErr_CheckSignals()
            # Nothing below can fail: the step happens wholly.
            if skip:
                if zero:
                    for k in range(self.entries):
                        if self.given[k]:
                            memset(self.grads[k].buf, 0, <size_t>self.grads[k].len)
            else:
                with nogil:
                    fastlr_run(rule, self.spans, live, zero, threads)
                for k in range(self.entries):
                    if self.given[k]:
                        self.t[k] += 1
                self.step_count += 1
        finally:
            for k in range(taken):
                if self.given[k]:
                    PyBuffer_Release(&self.grads[k])
        report = <Report>Report.__new__(Report)
        report.step = self.step_count
        report.lrs = tuple([self.hypers[k].lr for k in range(self.groups)])
        report.grad_norm = None if norm == -1 else norm
        report.skipped = skip
        return report

    cdef int take(self, size_t k, object x, bint zero) except -1:
        """Pins the gradient of entry k, if it is not None."""
        cdef Py_buffer *view = &self.grads[k]
        self.given[k] = x is not None
        if x is None:
            return 0
        if not PyObject_CheckBuffer(x):
            x = as_array("grads" + self.names[k], x)
        if not pin(x, view, self.kind, zero):
            refuse("grads" + self.names[k], x, chr(self.kind), tuple_of(&self.views[k]), zero)
        if not has_shape(view, &self.views[k]):
            PyBuffer_Release(view)
            refuse("grads" + self.names[k], x, chr(self.kind), tuple_of(&self.views[k]), zero)
        return 0

    cdef int check_overlap(self, bint zero) except -1:
        """Gradients against parameters and state; against each other too if they will be written."""
        cdef size_t k, other, count = 0
        cdef extent *grads = self.owned + self.owned_count
        cdef bint same = zero <= self.seen_zero
        for k in range(self.entries):
            same = same and self.seen[k] == self.grads[k].buf
        if same:
            return 0
        for k in range(self.entries):
            if not self.given[k]:
                continue
            other = find_extent(self.owned, self.owned_count, &self.grads[k])
            if other < self.owned_count:
                raise_overlap("grads" + self.names[k], self.label(self.owned[other].owner))
            if zero:
                count = add_extent(grads, count, &self.grads[k], k)
        k = sort_extents(grads, count)
        if k < count:
            raise_overlap("grads" + self.names[grads[k].owner], "grads" + self.names[grads[k + 1].owner])
        for k in range(self.entries):
            self.seen[k] = self.grads[k].buf
        self.seen_zero = zero
        return 0

    cdef size_t lay(self) noexcept:
        """The spans of the pieces that have a gradient; returns how many."""
        cdef size_t k, j, size, live = 0
        cdef piece *c
        cdef fastlr_span *s
        for k in range(self.count):
            c = &self.pieces[k]
            if not self.given[c.entry]:
                continue
            s = &self.spans[live]
            size = <size_t>self.views[c.entry].itemsize
            s.n = c.n
            s.g = <char *>self.grads[c.entry].buf + c.offset * size
            s.p = <char *>self.views[c.entry].buf + c.offset * size
            for j in range(<size_t>self.states):
                s.s[j] = <char *>self.views[(j + 1) * self.entries + c.entry].buf + c.offset * size
            s.step = <const fastlr_step *>c
            live += 1
        fastlr_lay(self.spans, live)
        return live

    cdef int prepare(self, const fastlr_rule *rule, size_t live, double scale) except -1:
        """Scalars of this step: one set for each run of spans that share a group and a step number."""
        cdef size_t k, used = 0
        cdef size_t group = self.groups
        cdef int64_t t = -1
        cdef const piece *c
        for k in range(live):
            c = <const piece *>self.spans[k].step
            if c.group != group or self.t[c.entry] + 1 != t:
                group, t = c.group, self.t[c.entry] + 1
                self.hypers[group].scale = scale
                if not rule.prepare(&self.hypers[group], t, &self.steps[used]):
                    dtype = "float32" if self.kind == c"f" else "float64"
                    raise ValueError(
                        f"lr, weight_decay and grad_scale must stay finite in {dtype}, got lr {self.hypers[group].lr} "
                        f"and a gradient scale of {scale}; use smaller ones"
                    )
                used += 1
            self.spans[k].step = &self.steps[used - 1]
        return 0


cdef raise_overlap(str one, str other):
    raise ValueError(
        f"{one} and {other} must not overlap, but they share memory; "
        "pass each buffer once, and views that do not overlap"
    )


cdef void *new_array(size_t count, size_t size) except NULL:
    cdef void *block = PyMem_Calloc(count + 1, size)
    if block == NULL:
        raise MemoryError()
    return block


cdef tuple tuple_of(const Py_buffer *view):
    return tuple([view.shape[k] for k in range(view.ndim)])
