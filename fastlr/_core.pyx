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
from cpython.dict cimport PyDict_Next
from cpython.exc cimport PyErr_CheckSignals, PyErr_Clear
from cpython.float cimport PyFloat_CheckExact
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cpython.ref cimport Py_INCREF
from libc.float cimport DBL_MAX, FLT_MAX
from libc.math cimport fabs, sqrt
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memcpy, memset, strcpy

from threading import Lock

from fastlr.buffers import as_array, refuse, refuse_rows

include "_kernels.pxi"


# ---- the machine ----------------------------------------------------------------------------------------------------

include "_machine.pxi"


# ---- rules ----------------------------------------------------------------------------------------------------------

include "_rules.pxi"


# ---- buffers --------------------------------------------------------------------------------------------------------

include "_buffers.pxi"


# ---- numbers in fewer bits ------------------------------------------------------------------------------------------

include "_bits.pxi"


# ---- schedules ------------------------------------------------------------------------------------------------------

include "_curve.pxi"


# ---- PyTorch's tensors ----------------------------------------------------------------------------------------------

cdef class Plan

include "_tensors.pxi"


# ---- other languages ------------------------------------------------------------------------------------------------

include "_embed.pxi"
include "_xla.pxi"


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
    grad_norms : tuple of float, or None
        The same for each group, where ``clip_norm`` has a limit for each.
    skipped : bool
        Whether the step was left out for a gradient that is not finite.
    """
    cdef readonly int64_t step
    cdef readonly tuple grad_norms
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


cdef struct span_plan:  # what may differ from one step to the next in how spans are stored
    double most  # 0 for none
    bint chance
    bint flush
    uint64_t seed
    double share


cdef struct driven:  # a hyper-parameter that a schedule gives
    double *value
    double factor, least, most


cdef class Plan:
    """Parameters and state, bound to a rule.

    Parameters
    ----------
    rule : str
        A rule of the kernels' table.
    kind : str
        The parameters' type: "f" float32, "d" float64, "e" float16, "H" bfloat16 in uint16.
    params : list of arrays
        The entries. `names` has what errors call them, without the leading "params".
    state : dict of str to list of arrays
        For each state of the rule, in its order, one array an entry, of that entry's size: as the parameters, or where
        the arithmetic is float32 any of "f", "H" and "B", which is bytes as `packed_size` has them.
    pieces : list of (entry, offset, n, group)
        How the entries are cut into groups, and into tensors where the rule treats each by itself; in order.
    informed : str, optional
        The rule of a step that is given an input beside the gradients.
    shapes : list of tuple, optional
        The shape of each piece, where the rule asks for it: see `Factored`.
    beside : dict of str to list of arrays, optional
        What is kept beside parameters and state, an array an entry: "master" (float32 parameters, of which the others
        are copies), "low" or "lost" (the lower half of float32 parameters, or what rounding took), "ema" (of the
        arithmetic's type), and "copy" (of the new parameters: that, or any narrower one), which is the last.
    """
    cdef str rule, informed
    cdef char kind
    cdef bint words               # whether uint16 gradients are bfloat16
    cdef bint whole               # whether all is of the arithmetic's type, and nothing else is to be done
    cdef char kinds[10]           # of each column of `views`
    cdef size_t columns, loaded   # of `views`; those that a checkpoint has, parameters not among them
    cdef size_t master, low, lost, ema, copy  # columns, or 0
    cdef span_plan storing
    cdef size_t *packs            # where each piece starts in packed state: bytes
    cdef size_t *firsts           # where each entry starts in the model: elements, for rounding by chance
    cdef char *grad_kinds         # of `grads`
    cdef fastlr_stored *stored    # of each span
    cdef double *factors          # a group each: on the gradients, beside the scale of all
    cdef fastlr_dtype dtype
    cdef int states
    cdef bint shaped              # whether states have sizes of their own: see `Factored`
    cdef size_t entries, count, groups
    cdef list names, keys
    cdef Py_buffer *views         # entries x (1 + states): parameters, then each state
    cdef size_t pinned
    cdef Py_buffer *grads         # of the step under way: gradients, then the rule's input
    cdef bint *given              # whether there is one
    cdef void **seen              # where the last step's were: checked for overlap once, not every step
    cdef bint seen_zero
    cdef piece *pieces
    cdef fastlr_hyper *hypers     # a group each
    cdef fastlr_step *steps       # a piece each
    cdef fastlr_span *spans       # two a piece, or one an entry
    cdef fastlr_span *some        # those of one group, measured by themselves
    cdef list limits              # of the gradients' norm, a group each, or None
    cdef size_t *laid             # the piece of each span
    cdef fastlr_partial *scratch  # a block each
    cdef fastlr_sums *tally       # a block each, if the rule takes sums
    cdef fastlr_sums *found       # a unit each
    cdef int64_t *t               # updates made, an entry each
    cdef double *carry            # FASTLR_CARRY numbers a piece, or whatever the rule's scope is
    cdef double *carried          # the same after the step under way
    cdef readonly int64_t step_count
    cdef driven *driven           # those of `schedules`
    cdef list schedules           # (curve, check, label) of each
    cdef extent *owned            # parameters and state, sorted; then room for gradients
    cdef size_t owned_count
    cdef fastlr_extent extents[5]  # what each state has
    cdef bint rows_only           # whether the rule is one for step_rows() alone
    cdef RowStep row_step         # None before the first step_rows()
    cdef Plan tuner               # a `Tuner` that scales the steps, or None
    cdef Tensors tensors          # None where gradients come as arrays

    def __cinit__(
        self, str rule, str kind, list params, list names, dict state, pieces, size_t groups, str informed=None,
        shapes=None, beside=None,
    ):
        cdef size_t k, entry, offset, n, group, most_spans, total = 0, column = 1
        cdef const fastlr_rule *found
        self.rule, self.informed, self.shaped = rule, informed, shapes is not None
        self.kind = <char>ord(kind)
        self.dtype = FASTLR_F64 if kind == "d" else FASTLR_F32
        self.words = kind == "H"
        beside = beside or {}
        self.names, self.keys, self.schedules = names, [*state, *beside], []
        found = fastlr_find_rows(rule.encode(), self.dtype)
        if found == NULL or found.states != len(state):
            raise ValueError(f"no rule {rule!r} with {len(state)} states")
        self.states = found.states
        self.rows_only = fastlr_find(rule.encode(), self.dtype) == NULL
        for k in range(<size_t>found.states):
            self.extents[k] = found.extent[k]
        self.entries, self.count, self.groups = len(params), len(pieces), groups
        self.columns = 1 + <size_t>self.states + len(beside)
        self.loaded = self.columns - 1 - ("copy" in beside)
        self.kinds[0] = self.kind
        for key, arrays in {**state, **beside}.items():
            self.kinds[column] = self.kind_in(key, arrays, column)
            column += 1
        self.master, self.low, self.lost = self.column("master"), self.column("low"), self.column("lost")
        self.ema, self.copy = self.column("ema"), self.column("copy")
        self.whole = not beside
        for column in range(self.columns):
            self.whole = self.whole and self.kinds[column] in (c"f", c"d", c"q")
        if not self.whole and (self.shaped or self.rows_only):
            raise TypeError(f"{rule} must have float32 or float64 parameters and state, and nothing beside them")
        self.views = <Py_buffer *>new_array(self.entries * self.columns, sizeof(Py_buffer))
        self.packs = <size_t *>new_array(self.count, sizeof(size_t))
        self.firsts = <size_t *>new_array(self.entries, sizeof(size_t))
        self.grad_kinds = <char *>new_array(self.entries * 2, 1)
        most_spans = max(self.entries, 2 * self.count)  # `accumulate` has one an entry, packed state two a piece
        self.stored = <fastlr_stored *>new_array(most_spans, sizeof(fastlr_stored))
        self.factors = <double *>new_array(groups, sizeof(double))
        for k in range(groups):
            self.factors[k] = 1
        self.grads = <Py_buffer *>new_array(self.entries * 2, sizeof(Py_buffer))
        self.given = <bint *>new_array(self.entries * 2, sizeof(bint))
        self.seen = <void **>new_array(self.entries * 2, sizeof(void *))
        self.t = <int64_t *>new_array(self.entries, sizeof(int64_t))
        self.pieces = <piece *>new_array(self.count, sizeof(piece))
        self.steps = <fastlr_step *>new_array(2 * self.count, sizeof(fastlr_step))
        self.spans = <fastlr_span *>new_array(most_spans, sizeof(fastlr_span))
        self.some = <fastlr_span *>new_array(2 * self.count, sizeof(fastlr_span))
        self.laid = <size_t *>new_array(2 * self.count, sizeof(size_t))
        self.found = <fastlr_sums *>new_array(self.count, sizeof(fastlr_sums))
        self.hypers = <fastlr_hyper *>new_array(groups, sizeof(fastlr_hyper))
        self.carry = <double *>new_array(max(self.count, groups) * <size_t>FASTLR_CARRY, sizeof(double))
        self.carried = <double *>new_array(max(self.count, groups) * <size_t>FASTLR_CARRY, sizeof(double))

        self.owned = <extent *>new_array(self.entries * (2 + self.columns), sizeof(extent))
        self.bind(params)
        for k in range(1, self.entries):
            self.firsts[k] = self.firsts[k - 1] + <size_t>(self.views[k - 1].len // self.views[k - 1].itemsize)
        for k, (entry, offset, n, group) in enumerate(sorted(pieces)):
            self.pieces[k] = piece(entry, offset, n, group)
            if k and self.pieces[k - 1].entry == entry:
                self.packs[k] = self.packs[k - 1] + packed_bytes(self.pieces[k - 1].n)
        for arrays in [*state.values(), *beside.values()]:
            self.bind(arrays)
        k = sort_extents(self.owned, self.owned_count)
        if k < self.owned_count:
            raise_overlap(self.label(self.owned[k].owner), self.label(self.owned[k + 1].owner))
        places = {(entry, offset): self.packs[k] for k, (entry, offset, _, _) in enumerate(sorted(pieces))}
        if found.scope == FASTLR_GROUP:
            pieces = sorted(pieces, key=group_of)  # what is summed together lies together
        for k, (entry, offset, n, group) in enumerate(pieces):
            self.pieces[k] = piece(entry, offset, n, group)
            self.packs[k] = places[entry, offset]
            total += n if self.whole else n + 2 * FASTLR_QUANTUM  # gaps before what has scales
        total = total // FASTLR_BLOCK + (self.count if found.scope != FASTLR_ALONE else 0) + 1
        self.scratch = <fastlr_partial *>new_array(total, sizeof(fastlr_partial))
        if found.survey != NULL or found.close != NULL:
            self.tally = <fastlr_sums *>new_array(total, sizeof(fastlr_sums))

    def __dealloc__(self):
        for k in range(self.pinned):
            PyBuffer_Release(&self.views[k])
        for block in (<uintptr_t>self.views, <uintptr_t>self.grads, <uintptr_t>self.given, <uintptr_t>self.seen,
                      <uintptr_t>self.t, <uintptr_t>self.pieces, <uintptr_t>self.steps, <uintptr_t>self.spans,
                      <uintptr_t>self.hypers, <uintptr_t>self.scratch, <uintptr_t>self.owned, <uintptr_t>self.laid,
                      <uintptr_t>self.tally, <uintptr_t>self.found, <uintptr_t>self.carry, <uintptr_t>self.carried,
                      <uintptr_t>self.driven, <uintptr_t>self.some, <uintptr_t>self.packs, <uintptr_t>self.firsts,
                      <uintptr_t>self.grad_kinds, <uintptr_t>self.stored, <uintptr_t>self.factors):
            PyMem_Free(<void *><uintptr_t>block)

    cdef int bind(self, arrays) except -1:
        """Pins the arrays of the parameters, or of the next state."""
        cdef size_t k
        cdef Py_buffer *view
        for k, x in enumerate(arrays):
            view = &self.views[self.pinned]
            if not pin(x, view, self.kind_of(self.pinned), True):
                refuse(self.label(self.pinned), x, chr(self.kind_of(self.pinned)), None, True)
            self.owned_count = add_extent(self.owned, self.owned_count, view, self.pinned)
            self.pinned += 1
            if self.rows_only and self.views[k].ndim != 2:
                raise ValueError(
                    f"params{self.names[k]} must have 2 dimensions for {self.rule}, got {self.views[k].ndim}"
                )
            if self.extent_of(self.pinned - 1) != FASTLR_ELEMENTS:
                if view.ndim != 1 or view.shape[0] != self.views[k].shape[0]:
                    raise ValueError(
                        f"{self.label(self.pinned - 1)} must have one value for each row of params{self.names[k]}"
                    )
            elif self.kind_of(self.pinned - 1) == c"B":
                if <size_t>view.len != self.packed_bytes_of(k):
                    raise ValueError(
                        f"{self.label(self.pinned - 1)} must have {self.packed_bytes_of(k)} bytes for "
                        f"params{self.names[k]}, got {view.len}"
                    )
            elif not self.shaped and view.len // view.itemsize != self.views[k].len // self.views[k].itemsize:
                raise ValueError(f"{self.label(self.pinned - 1)} must have the size of params{self.names[k]}")
        return 0

    cdef size_t packed_bytes_of(self, size_t entry) noexcept:
        """Of packed state for all of an entry."""
        cdef size_t k, total = 0
        for k in range(self.count):
            if self.pieces[k].entry == entry:
                total += packed_bytes(self.pieces[k].n)
        return total

    cdef size_t column(self, str key):
        """Of what is kept beside the state, or 0."""
        return 1 + self.keys.index(key) if key in self.keys[self.states:] else 0

    cdef char kind_in(self, str key, arrays, size_t column) except? 0:
        """The type of a column: what its first array is, if that may be."""
        cdef char usual = self.own()
        if column <= <size_t>self.states and self.extents[column - 1] == FASTLR_COUNT_PER_ROW:
            return c"q"
        wide = self.dtype == FASTLR_F64
        may = {"master": "f", "ema": chr(usual), "low": "H", "lost": "H", "copy": "dfHe" if wide else "fHe"}.get(
            key, "d" if wide else "fHB"
        )
        found = as_array(key, arrays[0]).dtype.char if arrays else ""
        return <char>ord(found) if found and found in may else usual

    cdef char own(self) noexcept:
        """The arithmetic's type."""
        return c"d" if self.dtype == FASTLR_F64 else c"f"

    cdef fastlr_format format_of(self, char kind) noexcept:
        """How what is of this type is stored; 0 stands for the arithmetic's."""
        if kind == c"f":
            return FASTLR_SINGLE if self.dtype == FASTLR_F64 else FASTLR_OWN
        return FASTLR_BF16 if kind == c"H" else FASTLR_F16 if kind == c"e" else FASTLR_OWN

    def set_storing(self, bint words, bint chance, uint64_t seed, double share, bint flush, firsts=None):
        """How the steps to come store numbers.

        `share` is of the newest parameters in "ema", `firsts` where each entry lies in the whole model, of which these
        may be a part: chance depends on it.
        """
        cdef size_t k
        self.words = self.words or words
        for k in range(self.entries if firsts is not None else 0):
            self.firsts[k] = firsts[k]
        self.storing = span_plan(0, chance, flush, seed, share)

    cdef fastlr_extent extent_of(self, size_t owner) noexcept:
        """What a bound buffer has, by its place in `views`."""
        cdef size_t key = owner // self.entries
        return self.extents[key - 1] if 0 < key <= <size_t>self.states else FASTLR_ELEMENTS

    cdef char kind_of(self, size_t owner) noexcept:
        return self.kinds[owner // self.entries]

    cdef str label(self, size_t owner):
        """What errors call a bound buffer, by its place in `views`."""
        key = owner // self.entries
        if key > <size_t>self.states:
            return ("copy_to" if key == self.copy else self.keys[key - 1]) + self.names[owner % self.entries]
        return (f"state[{self.keys[key - 1]!r}]" if key else "params") + self.names[owner % self.entries]

    @property
    def steps_made(self):
        """Updates made, an entry each: an entry whose gradient was None has made fewer."""
        return [self.t[k] for k in range(self.entries)]

    @property
    def numbers(self):
        """What is carried from step to step: a list a tensor, or whatever the rule's scope is; then the tuner's."""
        return self.own_numbers() + ([] if self.tuner is None else self.tuner.numbers)

    cdef list own_numbers(self):
        cdef const fastlr_rule *rule = fastlr_find_rows(self.rule.encode(), self.dtype)
        if rule.carry == 0:
            return []
        cells = 1 if rule.scope == FASTLR_MODEL else self.groups if rule.scope == FASTLR_GROUP else self.count
        return [[self.carry[k * <size_t>FASTLR_CARRY + j] for j in range(<size_t>rule.carry)] for k in range(cells)]

    @property
    def scale(self):
        """What the tuner has found."""
        return 1.0 if self.tuner is None else self.tuner.scale

    def tune(self, Plan tuner):
        """Has the steps scaled by a `Tuner` of the same parameters, whose states and numbers come after these."""
        self.tuner = tuner

    cpdef set_steps(self, int64_t step_count, list made, list numbers):
        cdef size_t k
        self.step_count = step_count
        for k in range(self.entries):
            self.t[k] = made[k]
        if self.tuner is not None:
            own = len(self.own_numbers())
            self.tuner.set_steps(step_count, made, numbers[own:])
            numbers = numbers[:own]
        for k, row in enumerate(numbers):
            for j, x in enumerate(row):
                self.carry[k * <size_t>FASTLR_CARRY + j] = x

    def load(self, dict state, int64_t step_count, list made, list numbers, list updates):
        """Takes over state (arrays like those bound), step numbers, numbers and (dict, new items): all or none.

        In C from the first write on, so that not even Ctrl-C can come between.
        """
        cdef size_t k, pinned = 0, own = self.entries * self.loaded
        cdef size_t count = own + (0 if self.tuner is None else self.entries * self.tuner.loaded)
        cdef Py_buffer *source = <Py_buffer *>new_array(count, sizeof(Py_buffer))
        cdef Py_buffer *place
        try:
            for arrays in state.values():
                for x in arrays:
                    kind = self.kind_of(self.entries + pinned) if pinned < own else self.kind
                    if pinned == count or not pin(x, &source[pinned], kind, False):
                        raise TypeError("state must be arrays of the parameters' dtype")
                    pinned += 1
                    if source[pinned - 1].len != self.state_view(pinned - 1).len:
                        raise ValueError("state must have the parameters' sizes")
            if pinned != count or len(made) != <Py_ssize_t>self.entries:
                raise ValueError("state must have one array for each state and parameter")
            PyErr_CheckSignals()
            for k in range(count):
                place = self.state_view(k)
                memcpy(place.buf, source[k].buf, <size_t>source[k].len)
            self.set_steps(step_count, made, numbers)
            for target, items in updates:
                (<dict>target).update(items)
        finally:
            for k in range(pinned):
                PyBuffer_Release(&source[k])
            PyMem_Free(source)

    cdef Py_buffer *state_view(self, size_t k) noexcept:
        """The k-th array of the states, the tuner's after the own."""
        cdef size_t own = self.entries * self.loaded
        return &self.views[self.entries + k] if k < own else &self.tuner.views[self.entries + k - own]

    def attach(self, Tensors tensors):
        """Gradients come from `tensors` from now on, and numbers are kept there."""
        self.tensors = tensors

    def set_group(self, size_t group, double lr, double l2, double decay, tuple rule):
        """Hyper-parameters of a group, already checked; `rule` in the order of the kernel's <rule>_hyper."""
        cdef fastlr_hyper *h = &self.hypers[group]
        if len(rule) != fastlr_find_rows(self.rule.encode(), self.dtype).hypers:
            raise ValueError(f"rule {self.rule!r} does not have {len(rule)} hyper-parameters")
        h.lr, h.l2, h.decay = lr, l2, decay
        for k in range(len(rule)):
            h.rule[k] = rule[k]

    def set_lr(self, size_t group, double lr):
        self.hypers[group].lr = lr

    def set_schedules(self, list entries):
        """What schedules give from now on: (group, slot, curve, factor, least, most, check, label) of each.

        Slots: lr, l2, decay, then the rule's own. A value within [least, most] is right; of others `check` decides.
        """
        cdef size_t k, group, slot
        cdef fastlr_hyper *h
        cdef driven *made = <driven *>new_array(len(entries), sizeof(driven))
        kept = []
        for k, (group, slot, curve, factor, least, most, check, label) in enumerate(entries):
            h = &self.hypers[group]
            made[k].value = &h.lr if slot == 0 else &h.l2 if slot == 1 else &h.decay if slot == 2 else &h.rule[slot - 3]
            made[k].factor, made[k].least, made[k].most = factor, least, most
            kept.append((curve, check, label))
        PyMem_Free(self.driven)
        self.driven, self.schedules = made, kept

    cdef int follow_schedules(self) except -1:
        """Their values for this step, from their tables."""
        cdef size_t k = 0
        cdef double value
        cdef driven *d
        for curve, check, label in self.schedules:
            d = &self.driven[k]
            value = (<Curve>curve).at(self.step_count)
            if not d.least <= value <= d.most:
                check(f"{label} at step {self.step_count}", value)
            d.value[0] = d.factor * value
            k += 1
        return 0

    def step(
        self, grads, double grad_scale, bint maximize, double clip_norm, bint zero, int nonfinite, inputs=None,
        then=None,
    ):
        """One update. `grads` has an array, or None, for each entry, as has `inputs`; `clip_norm` < 0 does not clip.

        `inputs` may be a function of `grads` and the factor on them, which makes the arrays. `then` is called when all
        is checked, before the first write: where it raises, as another plan's step may, this one is not made.
        """
        cdef size_t k, taken = 0, live
        cdef str name = self.rule if inputs is None else self.informed
        if name is None:
            raise TypeError(f"hessian must be None for the rule {self.rule!r}, which takes none")
        cdef const fastlr_rule *rule = fastlr_find(name.encode(), self.dtype)
        cdef fastlr_stats stats
        cdef double scale = grad_scale, norm = -1
        cdef bint skip = False
        cdef list norms = None
        cdef Report report
        if self.rows_only:
            raise TypeError(
                f"{self.rule} is a rule for rows: use step_rows(rows, grads), for all of them with "
                "numpy.arange(len(params))"
            )
        if rule.inputs and inputs is None:
            raise TypeError(f"hessian must be given at every step of the rule {name!r}; give the last one again")
        try:
            self.follow_schedules()
            for k in range(self.entries):
                self.take(k, "grads", grads[k], zero)
                taken = k + 1
            if inputs is not None and not callable(inputs):
                self.take_inputs(inputs, &taken)
            self.check_overlap(taken, zero)
            if self.tensors is not None:
                self.tensors.read_numbers(self)
            live = self.lay(rule)
            if self.limits is not None:
                norms = []
                stats = self.measure_groups(live, scale, norms)
                skip = self.weigh(&stats, -1, nonfinite, &scale, &norm)
            elif clip_norm >= 0 or nonfinite != _PROPAGATE:
                with nogil:
                    stats = fastlr_measure(self.dtype, self.spans, live, self.scratch, threads)
                skip = self.weigh(&stats, clip_norm, nonfinite, &scale, &norm)
            if not skip:
                if maximize:
                    scale = -scale
                if callable(inputs):  # arrays of its own, which overlap nothing
                    self.take_inputs(inputs(grads, scale), &taken)
                    live = self.lay(rule)
                self.ready(rule, live, scale)
                if self.tuner is not None:
                    self.tuner.attend(self, taken, zero, scale)
            report = self.report(norm, skip)
            report.grad_norms = None if norms is None else tuple(norms)
            PyErr_CheckSignals()
            if then is not None:
                then()
            # Nothing below can fail: the step happens wholly.
            if skip:
                if zero:
                    for k in range(self.entries):
                        if self.given[k]:
                            memset(self.grads[k].buf, 0, <size_t>self.grads[k].len)
            else:
                if self.tuner is not None:
                    self.tuner.begin()
                self.run(rule, live, zero)
                self.close(rule, live)
                if self.tuner is not None:
                    self.tuner.end()
        finally:
            for k in range(taken):
                if self.given[k]:
                    PyBuffer_Release(&self.grads[k])
        return report

    def norm(self, grads):
        """The Euclidean norm of gradients that a step is to be made with, inf or NaN if one of them is not finite."""
        cdef size_t k, taken = 0, live
        cdef fastlr_stats stats
        try:
            for k in range(self.entries):
                self.take(k, "grads", grads[k], False)
                taken = k + 1
            live = self.lay(fastlr_find(self.rule.encode(), self.dtype))
            with nogil:
                stats = fastlr_measure(self.dtype, self.spans, live, self.scratch, threads)
        finally:
            for k in range(taken):
                if self.given[k]:
                    PyBuffer_Release(&self.grads[k])
        return stats.norm if stats.finite else stats.largest

    def set_limits(self, double value, list norms):
        """Of the steps to come: a gradient's magnitude before it is scaled, or 0; the norm of each group's, or None."""
        self.storing.most, self.limits = value, norms
        for k in range(self.groups):
            self.factors[k] = 1

    def accumulate(self, list sums, grads):
        """Adds gradients to sums of the arithmetic's type, an array an entry."""
        cdef size_t k, taken = 0
        cdef unsigned long long mode
        cdef Py_buffer *views = <Py_buffer *>new_array(self.entries, sizeof(Py_buffer))
        cdef size_t pinned = 0
        try:
            for k in range(self.entries):
                self.take(k, "grads", grads[k], False)
                taken = k + 1
            for k in range(self.entries):
                if not pin(sums[k], &views[k], self.own(), True):
                    raise TypeError("sums must be of the arithmetic's type")
                pinned += 1
                self.spans[k].n = <size_t>(views[k].len // views[k].itemsize) if self.given[k] else 0
                self.spans[k].p, self.spans[k].g = views[k].buf, self.grads[k].buf
                memset(&self.stored[k], 0, sizeof(fastlr_stored))
                self.stored[k].g = self.format_of(self.grad_kinds[k])
                self.spans[k].stored, self.spans[k].unit = &self.stored[k], 0
            fastlr_lay(self.spans, self.entries)
            PyErr_CheckSignals()
            mode = self.enter()
            with nogil:
                fastlr_accumulate(self.dtype, self.spans, self.entries, threads)
            self.leave(mode)
        finally:
            for k in range(pinned):
                PyBuffer_Release(&views[k])
            PyMem_Free(views)
            for k in range(taken):
                if self.given[k]:
                    PyBuffer_Release(&self.grads[k])

    cdef fastlr_stats measure_groups(self, size_t live, double scale, list norms) except *:
        """The norm of each group's gradients, to `norms`; sets the factors that clip them. Returns that of all."""
        cdef fastlr_stats one, all
        cdef size_t k, group, count
        cdef double square = 0, limit, norm
        all.largest, all.finite = 0, True
        for group in range(self.groups):
            count = 0
            for k in range(live):
                if self.pieces[self.laid[k]].group == group:
                    self.some[count] = self.spans[k]
                    self.some[count].unit = 0
                    count += 1
            fastlr_lay(self.some, count)
            with nogil:
                one = fastlr_measure(self.dtype, self.some, count, self.scratch, threads)
            norms.append(fabs(scale) * one.norm)
            norm, limit = norms[group], self.limits[group]
            self.factors[group] = limit / (norm + 1e-6) if limit >= 0 and not norm + 1e-6 <= limit else 1
            square += one.norm * one.norm
            all.finite = all.finite and one.finite
            if not one.largest <= all.largest:
                all.largest = one.largest
        all.norm = sqrt(square)
        return all

    cdef bint weigh(
        self, const fastlr_stats *stats, double clip_norm, int nonfinite, double *scale, double *norm
    ) except -1:
        """Clips `scale`, sets `norm`, and says whether to skip what is not finite; or raises."""
        norm[0] = fabs(scale[0]) * stats.norm
        if clip_norm >= 0:
            scale[0] = fastlr_clip(scale[0], norm[0], clip_norm)
        cdef double most = <double>FLT_MAX if self.dtype == FASTLR_F32 else DBL_MAX
        if nonfinite == _PROPAGATE or (stats.finite and fabs(scale[0]) * stats.largest <= most):
            return False
        if nonfinite == _RAISE:
            raise FloatingPointError(
                f"grads must be finite for nonfinite='raise', but the largest is {stats.largest} "
                "(times grad_scale); nothing was changed"
            )
        return True

    cdef Report report(self, double norm, bint skipped):
        """Of a step that is about to be made."""
        report = <Report>Report.__new__(Report)
        report.step = self.step_count + (not skipped)
        report.lrs = tuple([self.hypers[k].lr for k in range(self.groups)])
        report.grad_norm = None if norm == -1 else norm
        report.skipped = skipped
        return report

    cdef int take(self, size_t place, str what, object x, bint zero) except -1:
        """Pins a gradient or input, by its place in `grads`, if it is not None."""
        cdef size_t k = place % self.entries
        cdef Py_buffer *view = &self.grads[place]
        self.given[place] = x is not None
        if x is None:
            return 0
        if self.tensors is not None and place < self.entries:
            self.tensors.take(place, self.kind, view)
            self.grad_kinds[place] = self.kind
            return 0
        if not self.pin_gradient(place, what, x, view, zero):
            refuse(what + self.names[k], x, chr(self.grad_kinds[place]), tuple_of(&self.views[k]), zero)
        if not has_shape(view, &self.views[k]):
            PyBuffer_Release(view)
            refuse(what + self.names[k], x, chr(self.grad_kinds[place]), tuple_of(&self.views[k]), zero)
        return 0

    cdef bint pin_gradient(self, size_t place, str what, object x, Py_buffer *view, bint zero) except -1:
        """Of the parameters' type, or of another that the arithmetic takes."""
        cdef char kind
        cdef bint words = self.words
        if not PyObject_CheckBuffer(x):
            x, words = as_array(what + self.names[place % self.entries], x), True  # a tensor knows that it is bfloat16
        self.grad_kinds[place] = self.kind
        if pin(x, view, self.kind, zero):
            return True
        if self.shaped:
            return False
        bare = as_array(what, x)
        for kind in b"fHe":
            if (kind != c"H" or words or bare is not x) and bare.dtype.char == chr(kind):
                self.grad_kinds[place] = kind
                return pin(bare, view, kind, zero)
        return False

    cdef int take_inputs(self, inputs, size_t *taken) except -1:
        for k in range(self.entries):
            self.take(self.entries + k, "hessian", inputs[k] if self.given[k] else None, False)
            taken[0] += 1
            if self.given[k] and not self.given[self.entries + k]:
                raise TypeError(f"hessian{self.names[k]} must be an array where there is a gradient, got None")
        return 0

    cdef str taken_label(self, size_t place):
        return ("grads" if place < self.entries else "hessian") + self.names[place % self.entries]

    cdef int check_overlap(self, size_t taken, bint zero) except -1:
        """What was taken against parameters and state; against each other too if gradients will be written."""
        cdef size_t k, other, count = 0
        cdef extent *grads = self.owned + self.owned_count
        cdef bint same = zero <= self.seen_zero
        for k in range(taken):
            same = same and self.seen[k] == self.grads[k].buf
        if same:
            return 0
        for k in range(taken):
            if not self.given[k]:
                continue
            other = find_extent(self.owned, self.owned_count, &self.grads[k])
            if other < self.owned_count:
                raise_overlap(self.taken_label(k), self.label(self.owned[other].owner))
            if zero:
                count = add_extent(grads, count, &self.grads[k], k)
        k = sort_extents(grads, count)
        if k < count:
            raise_overlap(self.taken_label(grads[k].owner), self.taken_label(grads[k + 1].owner))
        for k in range(taken):
            self.seen[k] = self.grads[k].buf
        self.seen_zero = zero
        return 0

    cdef size_t lay(self, const fastlr_rule *rule) noexcept:
        """The spans of the pieces that have a gradient; returns how many.

        A piece whose state is packed is two: what is in blocks with scales, and the rest in float32.
        """
        cdef size_t k, quanta, live = 0, unit = 0
        cdef piece *c
        for k in range(self.count):
            c = &self.pieces[k]
            if not self.given[c.entry]:
                continue
            if live and (rule.scope == FASTLR_TENSOR
                         or rule.scope == FASTLR_GROUP and c.group != self.pieces[self.laid[live - 1]].group):
                unit += 1
            quanta = self.in_quanta(c.n)
            if quanta:
                self.lay_span(rule, &live, k, 0, quanta, unit)
            if quanta < c.n or c.n == 0:
                self.lay_span(rule, &live, k, quanta, c.n - quanta, unit)
        fastlr_lay(self.spans, live)
        return live

    cdef size_t in_quanta(self, size_t n) noexcept:
        """How many elements of a piece have packed state."""
        cdef size_t column
        for column in range(1, self.columns):
            if self.kinds[column] == c"B":
                return packed_elements(n)
        return 0

    cdef void lay_span(
        self, const fastlr_rule *rule, size_t *live, size_t at, size_t skip, size_t n, size_t unit
    ) noexcept:
        """Elements `skip` to `skip + n` of a piece as the next span."""
        cdef size_t j, column, first, quanta
        cdef const piece *c = &self.pieces[at]
        cdef fastlr_span *s = &self.spans[live[0]]
        cdef fastlr_stored *x = &self.stored[live[0]]
        cdef char *pack
        cdef char kind = self.grad_kinds[c.entry], wanted = self.own()
        first = c.offset + skip
        s.n, s.unit, s.stored = n, unit, NULL
        s.g = <char *>self.grads[c.entry].buf + first * <size_t>self.grads[c.entry].itemsize
        s.p = self.place(0, c.entry, first)
        for j in range(<size_t>self.states):
            s.s[j] = self.place(j + 1, c.entry, first)
        if rule.inputs:
            j = self.entries + c.entry
            s.s[self.states] = <char *>self.grads[j].buf + first * <size_t>self.grads[j].itemsize
        self.laid[live[0]] = at
        live[0] += 1
        if self.whole and kind == wanted and self.storing.most == 0 and (
            not rule.inputs or self.grad_kinds[self.entries + c.entry] in (0, wanted)  # 0: they are still to be made
        ):
            return
        s.stored = x
        memset(x, 0, sizeof(fastlr_stored))
        x.g, x.p = self.format_of(kind), self.format_of(self.kind)
        if self.low:
            x.p, x.low = FASTLR_SPLIT, self.place(self.low, c.entry, first)
        elif self.lost:
            x.p = FASTLR_BF16_KAHAN if self.kind == c"H" else FASTLR_F16_KAHAN
            x.low = self.place(self.lost, c.entry, first)
        elif self.master:
            x.copy[0], x.copied[0] = x.p, s.p
            x.p, s.p = FASTLR_OWN, self.place(self.master, c.entry, first)
        elif self.storing.chance:
            x.p = by_chance(x.p)
        if self.copy:
            x.copy[1], x.copied[1] = self.format_of(self.kinds[self.copy]), self.place(self.copy, c.entry, first)
        if self.ema:
            x.ema, x.share = self.place(self.ema, c.entry, first), self.storing.share
        quanta = packed_elements(c.n)
        for j in range(<size_t>self.states):
            column = j + 1
            x.s[j] = self.format_of(self.kinds[column])
            if self.kinds[column] == c"B":
                pack = <char *>self.views[column * self.entries + c.entry].buf + self.packs[at]
                if skip < quanta:
                    x.s[j] = FASTLR_UINT8 if rule.squares >> j & 1 else FASTLR_INT8
                    s.s[j] = pack
                    x.scale[j] = pack + quanta
                else:
                    x.s[j] = FASTLR_OWN
                    s.s[j] = pack + quanta + quanta // <size_t>FASTLR_QUANTUM * sizeof(float)
        if rule.inputs:
            x.s[self.states] = self.format_of(self.grad_kinds[self.entries + c.entry])
        x.most = self.storing.most
        x.first = self.firsts[c.entry] + first
        x.key = self.storing.seed + <uint64_t>(self.t[c.entry] + 1) * <uint64_t>0xD1B54A32D192ED03

    cdef void *place(self, size_t column, size_t entry, size_t element) noexcept:
        """Where an element of a bound buffer lies."""
        cdef const Py_buffer *view = &self.views[column * self.entries + entry]
        return <char *>view.buf + element * <size_t>view.itemsize

    cdef int ready(self, const fastlr_rule *rule, size_t live, double scale) except -1:
        """All that may fail: the scalars of this step, and what they are made of."""
        cdef unsigned long long mode
        self.prepare(rule, live, scale, NULL)
        if rule.survey != NULL and self.asks(rule, live):
            mode = self.enter()
            with nogil:
                fastlr_survey(rule, self.spans, live, self.tally, self.found, threads)
            self.leave(mode)
            self.prepare(rule, live, scale, self.found)
        return 0

    cdef void run(self, const fastlr_rule *rule, size_t live, bint zero) noexcept:
        """The step. Cannot fail."""
        cdef unsigned long long mode = self.enter()
        with nogil:
            fastlr_run(rule, self.spans, live, zero, self.tally, self.found, threads)
        self.leave(mode)

    cdef unsigned long long enter(self) noexcept:
        """Denormal numbers count as 0 from here, if asked for, until `leave` is given what this returns."""
        return fastlr_flush_denormals() if self.storing.flush else 0

    cdef void leave(self, unsigned long long mode) noexcept:
        if self.storing.flush:
            fastlr_set_float_mode(mode)

    cdef double *numbers_of(self, double *numbers, const fastlr_rule *rule, size_t k) noexcept:
        """What the k-th piece carries."""
        if rule.scope == FASTLR_MODEL:
            return numbers
        return numbers + (self.pieces[k].group if rule.scope == FASTLR_GROUP else k) * <size_t>FASTLR_CARRY

    cdef bint asks(self, const fastlr_rule *rule, size_t live) noexcept:
        """Whether this step needs the survey."""
        if rule.asks == NULL:
            return True
        for k in range(live):
            if rule.asks(self.numbers_of(self.carried, rule, self.laid[k])):
                return True
        return False

    cdef int prepare(self, const fastlr_rule *rule, size_t live, double scale, const fastlr_sums *found) except -1:
        """Scalars of this step: one set for each run of spans that share all that these depend on."""
        cdef size_t k, used = 0, group = self.groups
        cdef int64_t t = -1
        cdef const piece *c
        cdef const fastlr_sums *sums
        cdef double *numbers
        cdef bint apart = rule.scope == FASTLR_TENSOR or rule.scope == FASTLR_ALONE and rule.carry
        for k in range(live):
            c = &self.pieces[self.laid[k]]
            if apart or c.group != group or self.t[c.entry] + 1 != t:
                group, t = c.group, self.t[c.entry] + 1
                self.hypers[group].scale = scale * self.factors[group]
                numbers = self.numbers_of(self.carried, rule, self.laid[k])
                memcpy(numbers, self.numbers_of(self.carry, rule, self.laid[k]), FASTLR_CARRY * sizeof(double))
                sums = found
                if found != NULL:
                    sums += self.spans[k].unit
                self.scalars(rule, group, t, sums, numbers, &self.steps[used])
                used += 1
            self.spans[k].step = &self.steps[used - 1]
        return 0

    cdef int scalars(
        self, const fastlr_rule *rule, size_t group, int64_t t, const fastlr_sums *sums, double *numbers,
        fastlr_step *step
    ) except -1:
        self.hypers[group].context = rule.context
        if not rule.prepare(&self.hypers[group], t, sums, numbers, step):
            dtype = "float32" if self.dtype == FASTLR_F32 else "float64"
            raise ValueError(
                f"lr, weight_decay and grad_scale must stay finite in {dtype}, got lr {self.hypers[group].lr} "
                f"and a gradient scale of {self.hypers[group].scale}; use smaller ones"
            )
        return 0

    cdef void close(self, const fastlr_rule *rule, size_t live) noexcept:
        """Counts the step; what the rule carries becomes what prepare(), and the sums of the sweep, made of it."""
        cdef size_t k
        cdef const piece *c
        cdef double *numbers
        if rule.carry:
            for k in range(live):
                numbers = self.numbers_of(self.carry, rule, self.laid[k])
                memcpy(numbers, self.numbers_of(self.carried, rule, self.laid[k]), FASTLR_CARRY * sizeof(double))
        if rule.close != NULL:
            for k in range(live):
                if k + 1 == live or self.spans[k + 1].unit != self.spans[k].unit:
                    c = &self.pieces[self.laid[k]]
                    numbers = self.numbers_of(self.carry, rule, self.laid[k])
                    rule.close(&self.hypers[c.group], self.t[c.entry] + 1, &self.found[self.spans[k].unit], numbers)
        for k in range(self.entries):
            if self.given[k]:
                self.t[k] += 1
        self.step_count += 1
        if self.tensors is not None:
            self.tensors.write_numbers(self)

    cdef int attend(self, Plan other, size_t taken, bint zero, double scale) except -1:
        """Of a `Tuner`: all of its part in a step of the other plan that may fail."""
        return 0

    cdef void begin(self) noexcept:
        """Before the other's step."""

    cdef void end(self) noexcept:
        """After it."""

    def step_rows(self, rows, grads, double grad_scale, bint maximize, double clip_norm, int nonfinite, then=None):
        """One update of some rows. `rows` and `grads` have an array, or None, for each entry; `then` as in `step`."""
        return self.for_rows().step(self, rows, grads, grad_scale, maximize, clip_norm, nonfinite, then)

    def norm_rows(self, rows, grads):
        """As `norm`, of gradients for `step_rows`."""
        return self.for_rows().norm(self, rows, grads)

    cdef RowStep for_rows(self):
        cdef const fastlr_rule *rule = fastlr_find_rows(self.rule.encode(), self.dtype)
        if rule.survey != NULL or rule.close != NULL or rule.carry:
            raise TypeError(
                f"{self.rule} has no step_rows: it sums over whole tensors; build the optimizer without cautious, "
                "or use step with the whole gradient"
            )
        if not self.whole:
            raise TypeError(
                "step_rows needs float32 or float64 parameters and state, and neither ema nor copy_to; "
                "use an optimizer of its own for the table"
            )
        if self.row_step is None:
            self.row_step = RowStep(self)
        return self.row_step


# ---- one optimizer's step of some rows ------------------------------------------------------------------------------

include "_rows.pxi"


# ---- plans of other kinds -------------------------------------------------------------------------------------------

include "_plans.pxi"


# ---- the optimizer --------------------------------------------------------------------------------------------------

include "_stepper.pxi"


# ---- what the parts share -------------------------------------------------------------------------------------------

cdef fastlr_format by_chance(fastlr_format format) noexcept:
    return FASTLR_BF16_BY_CHANCE if format == FASTLR_BF16 else FASTLR_F16_BY_CHANCE if format == FASTLR_F16 else format


cdef group_of(piece):
    return piece[3]


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
