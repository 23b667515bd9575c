# PyTorch's tensors as the entries of a plan: read where they lie, through DLPack's exchange table, which hands over
# pointer, type and strides of a tensor in some fifty nanoseconds and makes no object. So what a step rests on can be
# looked at again at every step: anything in Python may have replaced it.

cdef struct dl_tensor:
    void *data
    int32_t device, number
    int32_t ndim
    uint8_t code, bits
    uint16_t lanes
    int64_t *shape
    int64_t *strides
    uint64_t offset

ctypedef int (*dl_look)(void *, dl_tensor *) noexcept

cdef struct dl_exchange:
    uint32_t major, minor
    void *previous
    void *allocate
    void *managed
    void *build
    dl_look look
    void *stream

cdef enum:
    DL_CPU = 1
    DL_FLOAT = 2
    DL_COMPLEX = 5

cdef enum:  # what a number beside the tensors is
    COUNTED  # updates made
    CARRIED  # what the rule carries
    SHARE    # ASGD's, of the newest parameter in the average


cdef bint same_layout(const dl_tensor *a, const dl_tensor *b) noexcept:
    """Whether elements of the same index lie at the same offset."""
    cdef int k
    if a.ndim != b.ndim:
        return False
    for k in range(a.ndim):
        if a.shape[k] != b.shape[k] or (a.strides[k] != b.strides[k] and a.shape[k] != 1):
            return False
    return True


@cython.final
cdef class Tensors:
    """Tensors bound to a plan: parameters, their gradients, and the state that lies in dicts beside them.

    Parameters
    ----------
    table : capsule
        `torch.Tensor.__dlpack_c_exchange_api__`.
    params : list of tensors
        The plan's entries; dense, on the CPU.
    slots : list of dict
        The state of each.
    keys : tuple of str
        The tensors of a slot that the plan is bound to.
    numbers : tuple of (str, int)
        The numbers of a slot, float32 or float64, which are kept up to date: `COUNTED`, `CARRIED` or `SHARE`.
    conform : callable
        What is to be done about a gradient that is not as its parameter: `conform(entry, grad)` returns one that is, or
        None if this is none for the plan, or raises.
    """
    cdef const dl_exchange *api
    cdef list params, slots
    cdef list items                # the values of each slot
    cdef list held                 # those that are bound, or None
    cdef tuple keys
    cdef int kinds[3]              # of the numbers
    cdef object conform
    cdef size_t count, width       # entries; keys of a slot, those of numbers last
    cdef size_t tensors            # those that are no numbers
    cdef uintptr_t *places         # of each entry: the parameter, then its keys
    cdef uint8_t *bits             # the same
    cdef dl_tensor *bound          # the parameters as they were; shape and strides are in `layouts`
    cdef dl_tensor *now            # as they are
    cdef dl_tensor *grads
    cdef int64_t *layouts

    def __cinit__(self, table, list params, list slots, tuple keys, tuple numbers, conform):
        cdef size_t k, j, room = 0
        cdef dl_tensor *x
        cdef dl_tensor state
        self.api = <const dl_exchange *>PyCapsule_GetPointer(table, "dlpack_exchange_api")
        if self.api.major != 1 or self.api.look == NULL:
            raise RuntimeError(
                f"this torch hands out tensors by DLPack {self.api.major}.{self.api.minor}, which fastlr.torch cannot "
                "read; install a version that the extra fastlr-kernels[torch] names"
            )
        self.params, self.slots, self.conform = params, slots, conform
        self.keys = (*keys, *[key for key, _ in numbers])
        for k, (_, kind) in enumerate(numbers):
            self.kinds[k] = kind
        self.count, self.width, self.tensors = len(params), len(self.keys), len(keys)
        self.items = [list(slot.values()) for slot in slots]
        self.held = [slot.get(key) for slot in slots for key in self.keys]
        self.places = <uintptr_t *>new_array(self.count * (1 + self.width), sizeof(uintptr_t))
        self.bits = <uint8_t *>new_array(self.count * (1 + self.width), 1)
        self.bound = <dl_tensor *>new_array(self.count, sizeof(dl_tensor))
        self.now = <dl_tensor *>new_array(self.count, sizeof(dl_tensor))
        self.grads = <dl_tensor *>new_array(self.count, sizeof(dl_tensor))
        for k in range(self.count):
            self.look(params[k], &self.bound[k])
            room += 2 * <size_t>self.bound[k].ndim
        self.layouts = <int64_t *>new_array(room, sizeof(int64_t))
        room = 0
        for k in range(self.count):
            x = &self.bound[k]
            memcpy(self.layouts + room, x.shape, <size_t>x.ndim * sizeof(int64_t))
            memcpy(self.layouts + room + x.ndim, x.strides, <size_t>x.ndim * sizeof(int64_t))
            x.shape, x.strides = self.layouts + room, self.layouts + room + x.ndim
            room += 2 * <size_t>x.ndim
            self.places[k * (1 + self.width)] = <uintptr_t>x.data + x.offset
            for j in range(self.width):
                held = self.held[k * self.width + j]
                if held is not None:
                    self.look(held, &state)
                    self.places[k * (1 + self.width) + 1 + j] = <uintptr_t>state.data + state.offset
                    self.bits[k * (1 + self.width) + 1 + j] = state.bits

    def __dealloc__(self):
        PyMem_Free(self.places)
        PyMem_Free(self.bits)
        PyMem_Free(self.bound)
        PyMem_Free(self.now)
        PyMem_Free(self.grads)
        PyMem_Free(self.layouts)

    cdef int look(self, object x, dl_tensor *to) except -1:
        return self.api.look(<void *>x, to)

    cpdef bint unchanged(self) except -1:
        """Whether parameters and state are what was bound, and where it was."""
        cdef size_t k, j
        cdef dl_tensor *x
        cdef const uintptr_t *place
        cdef const uint8_t *bits
        cdef dl_tensor state
        cdef Py_ssize_t at
        cdef dict slot
        cdef PyObject *key
        cdef PyObject *value
        for k in range(self.count):
            x, place, bits = &self.now[k], self.places + k * (1 + self.width), self.bits + k * (1 + self.width)
            self.look(self.params[k], x)
            if (
                <uintptr_t>x.data + x.offset != place[0] or x.code != self.bound[k].code
                or x.bits != self.bound[k].bits or not same_layout(x, &self.bound[k])
            ):
                return False
            slot, at, j = self.slots[k], 0, 0
            if len(slot) != <Py_ssize_t>len(<list>self.items[k]):
                return False
            while PyDict_Next(slot, &at, &key, &value):
                if value != <PyObject *>(<list>self.items[k])[j]:
                    return False
                j += 1
            for j in range(self.width):
                held = self.held[k * self.width + j]
                if held is None:
                    continue
                self.look(held, &state)
                if <uintptr_t>state.data + state.offset != place[1 + j] or state.bits != bits[1 + j]:
                    return False
        return True

    def collect(self):
        """The gradients, one an entry, or None; of no entry an empty list. After `unchanged`."""
        cdef size_t k
        cdef dl_tensor *x
        cdef bint some = False
        found = []
        for k in range(self.count):
            g = self.params[k].grad
            if g is not None:
                some = True
                x = &self.grads[k]
                if self.api.look(<void *>g, x) != 0:
                    PyErr_Clear()
                    g = self.other(k, g)
                elif (
                    x.code != self.now[k].code or x.bits != self.now[k].bits or x.device != DL_CPU
                    or x.code == DL_COMPLEX or not same_layout(x, &self.now[k])
                ):
                    g = self.other(k, g)
            found.append(g)
        return found if some else []

    cdef object other(self, size_t k, g):
        g = self.conform(k, g)
        if g is not None:
            self.look(g, &self.grads[k])
        return g

    cdef void take(self, size_t k, char kind, Py_buffer *view) noexcept:
        """The gradient that `collect` found, in the order in which it lies in memory. Nothing is held by the view."""
        cdef const dl_tensor *x = &self.grads[k]
        cdef int j
        memset(view, 0, sizeof(Py_buffer))
        view.buf = <char *>x.data + x.offset
        view.itemsize = 4 if kind == c"f" else 8 if kind == c"d" else 2
        view.len = x.bits // 8
        for j in range(x.ndim):
            view.len *= x.shape[j]

    cdef void read_numbers(self, Plan plan) noexcept:
        """Numbers that somebody has set count from now on."""
        cdef size_t k, j, at
        cdef double value
        for k in range(self.count):
            for j in range(self.tensors, self.width):
                at = k * (1 + self.width) + 1 + j
                value = self.number(at)
                if self.kinds[j - self.tensors] == COUNTED:
                    if value != (<double><float>plan.t[k] if self.bits[at] == 32 else <double>plan.t[k]):
                        plan.t[k] = <int64_t>value
                elif self.kinds[j - self.tensors] == CARRIED:
                    plan.carry[k * <size_t>FASTLR_CARRY] = value

    cdef void write_numbers(self, Plan plan) noexcept:
        """After a step: those of the entries that took part."""
        cdef size_t k, j
        cdef double past, value
        for k in range(self.count):
            if not plan.given[k]:
                continue
            for j in range(self.tensors, self.width):
                if self.kinds[j - self.tensors] == COUNTED:
                    value = <double>plan.t[k]
                elif self.kinds[j - self.tensors] == CARRIED:
                    value = plan.carry[k * <size_t>FASTLR_CARRY]
                else:
                    past = <double>plan.t[k] - plan.hypers[plan.pieces[k].group].rule[2]
                    value = 1 / past if past > 1 else 1
                self.set_number(k * (1 + self.width) + 1 + j, value)

    cdef double number(self, size_t at) noexcept:
        if self.bits[at] == 32:
            return <double>(<const float *>self.places[at])[0]
        return (<const double *>self.places[at])[0]

    cdef void set_number(self, size_t at, double value) noexcept:
        if self.bits[at] == 32:
            (<float *>self.places[at])[0] = <float>value
        else:
            (<double *>self.places[at])[0] = value


@cython.final
cdef class Census:
    """Who was there when the plans of an optimizer were made.

    Parameters
    ----------
    groups : list of dict
        Its `param_groups`.
    state : dict
        Its `state`.
    waiting : list of tensors
        Parameters without state: the first gradient of one changes the plans.
    tensors : list of Tensors
        What the plans are bound to.
    """
    cdef list lists, copies, waiting, tensors
    cdef object state
    cdef list keys, slots

    def __cinit__(self, list groups, state, list waiting, list tensors):
        self.lists = [group["params"] for group in groups]
        self.copies = [list(params) for params in self.lists]
        self.state, self.keys, self.slots = state, list(state), list(state.values())
        self.waiting, self.tensors = waiting, tensors

    def holds(self, list groups, state, list seen):
        """Whether all are still there, as they were, and nobody else; with `seen` see `same_values`."""
        cdef Py_ssize_t k, at = 0
        cdef PyObject *key
        cdef PyObject *slot
        if seen is not None and not same_values(groups, seen):
            return False
        if state is not self.state or len(groups) != len(self.lists) or len(state) != len(self.keys):
            return False
        for k in range(len(groups)):
            params = (<dict>groups[k])["params"]
            if params is not self.lists[k] or not same_objects(params, self.copies[k]):
                return False
        k = 0
        while PyDict_Next(state, &at, &key, &slot):
            if key != <PyObject *>self.keys[k] or slot != <PyObject *>self.slots[k]:
                return False
            k += 1
        for p in self.waiting:
            if p.grad is not None:
                return False
        for bound in self.tensors:
            if not (<Tensors>bound).unchanged():
                return False
        return True


cpdef bint same_values(list groups, list seen) except -1:
    """Whether each group has these very values: a list of them each."""
    cdef Py_ssize_t k, j, at
    cdef PyObject *key
    cdef PyObject *value
    cdef list values
    if len(groups) != len(seen):
        return False
    for k in range(len(groups)):
        values, at, j = seen[k], 0, 0
        if len(<dict>groups[k]) != len(values):
            return False
        while PyDict_Next(groups[k], &at, &key, &value):
            if value != <PyObject *>values[j]:
                return False
            j += 1
    return True


cdef bint same_objects(list a, list b) noexcept:
    cdef Py_ssize_t k
    if len(a) != len(b):
        return False
    for k in range(len(a)):
        if a[k] is not b[k]:
            return False
    return True
