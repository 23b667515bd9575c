# Included by _core.pyx: a step of the rows of tables that have a gradient.

@cython.final
cdef class RowStep:
    """What `Plan.step_rows` needs beside the plan: the gradients' buffers, and memory that is kept between steps."""
    cdef Py_buffer *views        # an entry's index, then its gradients
    cdef fastlr_rows *tables     # of the entries that have gradients; `entry` says which
    cdef size_t *entry
    cdef size_t capacity         # gradients
    cdef uint64_t *pairs         # two arrays of `capacity`
    cdef fastlr_partial *partial
    cdef void *sums              # for each thread, `part` bytes
    cdef size_t part, parts

    def __cinit__(self, Plan plan):
        self.views = <Py_buffer *>new_array(2 * plan.entries, sizeof(Py_buffer))
        self.tables = <fastlr_rows *>new_array(plan.entries, sizeof(fastlr_rows))
        self.entry = <size_t *>new_array(plan.entries, sizeof(size_t))

    def __dealloc__(self):
        for block in (<uintptr_t>self.views, <uintptr_t>self.tables, <uintptr_t>self.entry, <uintptr_t>self.pairs,
                      <uintptr_t>self.partial, <uintptr_t>self.sums):
            PyMem_Free(<void *><uintptr_t>block)

    cdef step(self, Plan plan, rows, grads, double grad_scale, bint maximize, double clip_norm, int nonfinite, then):
        cdef size_t k, taken = 0
        cdef const fastlr_rule *rule = fastlr_find_rows(plan.rule.encode(), plan.dtype)
        cdef fastlr_stats stats
        cdef double scale = grad_scale, norm = -1
        cdef bint skip = False, measured = clip_norm >= 0 or nonfinite != _PROPAGATE
        cdef int most = threads  # for which there is scratch: another thread may set the number meanwhile
        cdef unsigned long long mode
        try:
            plan.follow_schedules()
            self.gather(plan, rows, grads, &taken, measured, most)
            if plan.tensors is not None:
                plan.tensors.read_numbers(plan)
            if measured:
                with nogil:
                    stats = fastlr_measure_rows(plan.dtype, self.tables, taken, self.partial, self.sums, most)
                skip = plan.weigh(&stats, clip_norm, nonfinite, &scale, &norm)
            if not skip:
                self.prepare(plan, rule, taken, -scale if maximize else scale)
            report = plan.report(norm, skip)
            PyErr_CheckSignals()
            if then is not None:
                then()
            # Nothing below can fail: the step happens wholly.
            if not skip:
                mode = plan.enter()
                with nogil:
                    fastlr_run_rows(rule, plan.dtype, self.tables, taken, self.sums, most)
                plan.leave(mode)
                memset(plan.given, 0, plan.entries * sizeof(bint))
                for k in range(taken):
                    plan.t[self.entry[k]] += 1
                    plan.given[self.entry[k]] = True
                plan.step_count += 1
                if plan.tensors is not None:
                    plan.tensors.write_numbers(plan)
        finally:
            for k in range(2 * taken):
                PyBuffer_Release(&self.views[k])
        return report

    cdef norm(self, Plan plan, rows, grads):
        cdef size_t taken = 0
        cdef fastlr_stats stats
        cdef int most = threads
        try:
            self.gather(plan, rows, grads, &taken, True, most)
            with nogil:
                stats = fastlr_measure_rows(plan.dtype, self.tables, taken, self.partial, self.sums, most)
        finally:
            for k in range(2 * taken):
                PyBuffer_Release(&self.views[k])
        return stats.norm if stats.finite else stats.largest

    cdef int gather(self, Plan plan, rows, grads, size_t *taken, bint measured, int most) except -1:
        """Takes what is given, and sorts it."""
        cdef size_t k, count = 0
        for k in range(plan.entries):
            if rows[k] is None and grads[k] is None:
                continue
            self.take(plan, k, rows[k], grads[k], taken[0])
            taken[0] += 1
        self.reserve(plan, taken[0], measured, most)
        for k in range(taken[0]):
            self.order(plan, k, count, most)
            count += self.tables[k].count
        return 0

    cdef int take(self, Plan plan, size_t entry, index, grads, size_t at) except -1:
        """Pins what is given for an entry, as the `at`-th table, or with an error nothing."""
        cdef Py_buffer *rows = &self.views[2 * at]
        cdef Py_buffer *g = &self.views[2 * at + 1]
        cdef const Py_buffer *p = &plan.views[entry]
        cdef str name = plan.names[entry]
        cdef size_t j, other
        cdef fastlr_rows *table = &self.tables[at]
        if p.ndim != 2:
            raise ValueError(
                f"params{name} must have 2 dimensions for step_rows, got {p.ndim}; "
                "give the optimizer the table itself: a FlatBuffer's is a view of it, params[name]"
            )
        if index is None or grads is None:
            raise TypeError(f"rows{name} and grads{name} must be given both, or both be None")
        if not PyObject_CheckBuffer(index):
            index = as_array("rows" + name, index)
        if not PyObject_CheckBuffer(grads):
            grads = as_array("grads" + name, grads)
        if not pin(index, rows, c"q", False) and not pin(index, rows, c"i", False):
            refuse_rows("rows" + name, index)
        if rows.ndim != 1:
            PyBuffer_Release(rows)
            refuse_rows("rows" + name, index)
        table.count, table.rows, table.width = <size_t>rows.shape[0], <size_t>p.shape[0], <size_t>p.shape[1]
        shape = (rows.shape[0], p.shape[1])
        try:
            if table.count >> 32 or (table.rows and (table.rows - 1) >> 32):
                raise ValueError(
                    f"params{name} and rows{name} must have fewer than 2**32 rows, got {table.rows} and {table.count}; "
                    "split them"
                )
            if not pin(grads, g, plan.kind, False):
                refuse("grads" + name, grads, chr(plan.kind), shape, False, "to have a row for each of rows")
        except BaseException:
            PyBuffer_Release(rows)
            raise
        try:
            if tuple_of(g) != shape:
                refuse("grads" + name, grads, chr(plan.kind), shape, False, "to have a row for each of rows")
            other = find_extent(plan.owned, plan.owned_count, g)
            if other < plan.owned_count:
                raise_overlap("grads" + name, plan.label(plan.owned[other].owner))
        except BaseException:
            PyBuffer_Release(rows)
            PyBuffer_Release(g)
            raise
        self.entry[at] = entry
        table.p, table.g = p.buf, g.buf
        for j in range(<size_t>plan.states):
            table.s[j] = plan.views[(j + 1) * plan.entries + entry].buf
        return 0

    cdef int reserve(self, Plan plan, size_t tables, bint measured, int most) except -1:
        """Memory for the tables' gradients, sorted, for their norms, and for a sum in each thread."""
        cdef size_t k, count = 0, part = 0
        for k in range(tables):
            count += self.tables[k].count
            part = max(part, fastlr_rows_scratch(self.tables[k].width, plan.dtype))
        if count > self.capacity:
            count += count // 2
            self.capacity = 0
            PyMem_Free(self.pairs)
            PyMem_Free(self.partial)
            self.pairs, self.partial = NULL, NULL
            self.pairs = <uint64_t *>new_array(2 * count, sizeof(uint64_t))
            self.capacity = count
        if measured and self.partial == NULL:
            self.partial = <fastlr_partial *>new_array(self.capacity, sizeof(fastlr_partial))
        if part * <size_t>most > self.parts:
            self.parts = 0
            PyMem_Free(self.sums)
            self.sums = NULL
            self.sums = new_array(part * <size_t>most, 1)
            self.parts = part * <size_t>most
        return 0

    cdef int order(self, Plan plan, size_t k, size_t start, int most) except -1:
        """Sorts the k-th table's gradients by row, in the memory from `start` on, or says which row does not exist."""
        cdef fastlr_rows *table = &self.tables[k]
        cdef const Py_buffer *index = &self.views[2 * k]
        cdef uint64_t *scratch[2]
        cdef size_t bad
        scratch[0], scratch[1] = self.pairs + start, self.pairs + self.capacity + start
        with nogil:
            bad = fastlr_order_rows(
                index.buf, index.itemsize == 8, table.count, table.rows, scratch, &table.pairs, most
            )
        if bad < table.count:
            value = (<const int64_t *>index.buf)[bad] if index.itemsize == 8 else (<const int32_t *>index.buf)[bad]
            name = plan.names[self.entry[k]]
            raise IndexError(
                f"rows{name}[{bad}] must be in [0, {table.rows}), the rows of params{name}, got {value}"
                + ("; negative ones do not count from the end here" if value < 0 else "")
            )
        return 0

    cdef int prepare(self, Plan plan, const fastlr_rule *rule, size_t tables, double scale) except -1:
        """Scalars of this step, a set for each table, which is one piece. The rules for rows carry nothing."""
        cdef size_t k, j, group
        for k in range(tables):
            j = 0
            while plan.pieces[j].entry != self.entry[k]:
                j += 1
            group = plan.pieces[j].group
            plan.hypers[group].scale = scale
            plan.scalars(rule, group, plan.t[self.entry[k]] + 1, NULL, NULL, &plan.steps[j])
            self.tables[k].step = &plan.steps[j]
        return 0
