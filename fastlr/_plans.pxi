# Included by _core.pyx: plans of rules that are no sweep over elements, or that scale the steps of another.

@cython.final
cdef class Factored(Plan):
    """The plan of a rule that keeps means of rows and columns: Adafactor.

    `pieces` has one for each tensor that is not empty, `shapes` its shape. The states are three: means of rows and of
    columns, of tensors of two dimensions or more, and what is kept for each element of the others. An array of each has
    those of its entry's tensors one after the other.
    """
    cdef fastlr_planes *planes     # a piece each
    cdef fastlr_planes *live       # of the spans of the step under way
    cdef size_t *starts            # a piece each: where its part of each state starts
    cdef void *work
    cdef size_t room

    def __init__(self, *args, shapes, **kwargs):
        cdef size_t k, j, entry
        cdef fastlr_planes *s
        self.planes = <fastlr_planes *>new_array(self.count, sizeof(fastlr_planes))
        self.live = <fastlr_planes *>new_array(self.count, sizeof(fastlr_planes))
        self.starts = <size_t *>new_array(3 * self.count, sizeof(size_t))
        sizes = [[0, 0, 0] for _ in range(self.entries)]
        for k, shape in enumerate(shapes):
            s, entry = &self.planes[k], self.pieces[k].entry
            s.planes, s.rows, s.cols = 1, 0, self.pieces[k].n
            if len(shape) > 1 and s.cols:
                s.rows, s.cols = shape[len(shape) - 2], shape[len(shape) - 1]
                s.planes = self.pieces[k].n // (s.rows * s.cols)
            for j, size in enumerate((s.planes * s.rows, s.planes * s.cols if s.rows else 0, 0 if s.rows else s.cols)):
                self.starts[3 * k + j] = sizes[entry][j]
                sizes[entry][j] += size
        for entry in range(self.entries):
            for j in range(3):
                k = (1 + j) * self.entries + entry
                if self.views[k].len != sizes[entry][j] * self.views[k].itemsize:
                    raise ValueError(
                        f"{self.label(k)} must have {sizes[entry][j]} elements for params{self.names[entry]}, "
                        f"got {self.views[k].len // self.views[k].itemsize}"
                    )

    def __dealloc__(self):
        PyMem_Free(self.planes)
        PyMem_Free(self.live)
        PyMem_Free(self.starts)
        PyMem_Free(self.work)

    cdef int ready(self, const fastlr_rule *rule, size_t live, double scale) except -1:
        cdef size_t k, j, need
        cdef fastlr_span *s
        cdef piece *c
        self.prepare(rule, live, scale, NULL)
        for k in range(live):
            s, c = &self.spans[k], &self.pieces[self.laid[k]]
            self.live[k] = self.planes[self.laid[k]]
            for j in range(3):
                s.s[j] = <char *>self.views[(1 + j) * self.entries + c.entry].buf + (
                    self.starts[3 * self.laid[k] + j] * <size_t>self.views[c.entry].itemsize
                )
        need = fastlr_factored_scratch(self.spans, self.live, live)
        if need > self.room:
            PyMem_Free(self.work)
            self.work, self.room = NULL, 0
            self.work = new_array(need, 1)
            self.room = need
        return 0

    cdef void run(self, const fastlr_rule *rule, size_t live, bint zero) noexcept:
        cdef unsigned long long mode = self.enter()
        with nogil:
            fastlr_factored_run(rule, self.spans, self.live, live, zero, self.work, threads)
        self.leave(mode)


@cython.final
cdef class Tuner(Plan):
    """The plan of the rule "mechanic", which scales the steps of another plan of the same parameters: `Plan.tune`.

    It has no steps of its own.
    """
    cdef fastlr_mechanic hyper
    cdef fastlr_mechanic_state now, following
    cdef size_t live

    def set_tuning(self, tuple betas, double s_init, double s_decay, double eps):
        """The factors and numbers of `fastlr.mechanize`, before the first step."""
        if not 0 < len(betas) <= FASTLR_MECHANIC_BETAS:
            raise ValueError(f"betas must be 1 to {FASTLR_MECHANIC_BETAS} numbers, got {len(betas)}")
        self.hyper.count, self.hyper.s_init, self.hyper.decay, self.hyper.eps = len(betas), s_init, s_decay, eps
        for k, b in enumerate(betas):
            self.hyper.beta[k] = b

    @property
    def numbers(self):
        """Those of the rule, then s, r, m and v of every factor."""
        cdef fastlr_mechanic_state *x = &self.now
        n = range(self.hyper.count)
        return self.own_numbers() + [[x.s[k] for k in n], [x.r[k] for k in n], [x.m[k] for k in n], [x.v[k] for k in n]]

    @property
    def scale(self):
        return fastlr_mechanic_scale(&self.hyper, &self.now)

    cpdef set_steps(self, int64_t step_count, list made, list numbers):
        own = len(numbers) - 4
        Plan.set_steps(self, step_count, made, numbers[:own])
        for k in range(self.hyper.count):
            self.now.s[k], self.now.r[k], self.now.m[k], self.now.v[k] = [row[k] for row in numbers[own:]]

    cdef int attend(self, Plan other, size_t taken, bint zero, double scale) except -1:
        cdef const fastlr_rule *rule = fastlr_find(self.rule.encode(), self.dtype)
        cdef size_t k
        memcpy(self.grads, other.grads, 2 * self.entries * sizeof(Py_buffer))  # the other's to release
        memcpy(self.given, other.given, 2 * self.entries * sizeof(bint))
        memcpy(self.grad_kinds, other.grad_kinds, 2 * self.entries)
        memcpy(self.factors, other.factors, self.groups * sizeof(double))
        self.storing.flush = other.storing.flush
        self.check_overlap(taken, zero)
        self.live = self.lay(rule)
        self.following = self.now
        if self.live:
            Plan.ready(self, rule, self.live, scale)
            self.following = fastlr_mechanic_next(&self.hyper, self.now, self.found)
        for k in range(self.groups):
            self.hypers[k].rule[0] = fastlr_mechanic_scale(&self.hyper, &self.following)
        return self.prepare(rule, self.live, scale, self.found)

    cdef void begin(self) noexcept:
        """Where a parameter was before its first step."""
        cdef const fastlr_span *s
        for k in range(self.live):
            s = &self.spans[k]
            if self.t[self.pieces[self.laid[k]].entry] == 0:
                memcpy(s.s[1], s.p, s.n * (sizeof(float) if self.kind == c"f" else sizeof(double)))

    cdef void end(self) noexcept:
        cdef const fastlr_rule *rule = fastlr_find(self.rule.encode(), self.dtype)
        self.now = self.following
        self.run(rule, self.live, False)
        self.close(rule, self.live)
