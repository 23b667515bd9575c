"""For other languages: the functions of _core.pxd, the table in the capsule, rules made at run time."""
cdef extern from "fastlr.h" nogil:
    const int FASTLR_ABI, FASTLR_SCALARS, FASTLR_OK
    const char *FASTLR_CAPSULE

    ctypedef int fastlr_status

    ctypedef struct fastlr_tensor:
        size_t n
        void *p
        void *g
        void *s[5]

    ctypedef struct fastlr_call:
        size_t size
        const char *rule
        fastlr_dtype dtype
        int threads
        int64_t t
        double lr, scale, l2, decay, clip_norm
        const double *hyper
        size_t hypers
        const fastlr_tensor *tensors
        size_t count, stride
        double *carry
        void *scratch
        size_t room
        bint zero, skip

    ctypedef struct fastlr_found:
        size_t size
        double norm

    ctypedef struct fastlr_description:
        size_t size
        int states, inputs, hypers, carry

    ctypedef struct fastlr_api:
        pass

    fastlr_status fastlr_describe(const char *rule, fastlr_dtype, fastlr_description *)
    size_t fastlr_scratch(const fastlr_call *)
    fastlr_status fastlr_update(const fastlr_call *, fastlr_found *)
    const char *fastlr_message(fastlr_status)
    const fastlr_api *fastlr_get_api()

    ctypedef void (*fastlr_made_at)(int64_t t, double lr, const double *hyper, double *out)
    ctypedef void (*fastlr_made_chunk)(int64_t n, void *p, void *g, void **s, const void *numbers, int64_t zero)

    ctypedef struct fastlr_made:
        const char *name
        fastlr_dtype dtype
        int states, hypers, scalars, carry
        double first[4]
        unsigned squares
        fastlr_made_at at
        fastlr_made_chunk chunk

    void fastlr_add(fastlr_made *)
    void fastlr_use_made(fastlr_made *, fastlr_made_at, fastlr_made_chunk)


_C_API = PyCapsule_New(<void *>fastlr_get_api(), FASTLR_CAPSULE, NULL)


# ---- _core.pxd ------------------------------------------------------------------------------------------------------

cdef int abi() noexcept nogil:
    return FASTLR_ABI


cdef const char *message(int status) noexcept nogil:
    return fastlr_message(status)


cdef int describe(const char *rule, int dtype, int *states, int *inputs, int *hypers, int *carry) noexcept nogil:
    cdef fastlr_description d
    memset(&d, 0, sizeof(d))
    d.size = sizeof(d)
    cdef int status = fastlr_describe(rule, <fastlr_dtype>dtype, &d)
    states[0], inputs[0], hypers[0], carry[0] = d.states, d.inputs, d.hypers, d.carry
    return status


cdef size_t align_up(size_t x) noexcept nogil:
    return (x + 63) // 64 * 64


cdef size_t scratch_size(size_t count, const size_t *n) noexcept nogil:
    cdef size_t k, total = 0
    cdef fastlr_tensor one
    cdef fastlr_call c
    memset(&c, 0, sizeof(c))
    memset(&one, 0, sizeof(one))
    c.size, c.stride, c.tensors, c.count = sizeof(c), sizeof(one), &one, 1
    for k in range(count):  # a block more, at most, and one tensor's share each
        one.n = n[k]
        total += fastlr_scratch(&c) + sizeof(fastlr_tensor)
    return align_up(total) + 128


cdef int update(
    const char *rule, int dtype, size_t count, const size_t *n, void **p, void **g, void **s, long long t,
    double lr, double scale, double l2, double decay, double clip_norm, const double *hyper, size_t hypers,
    double *carry, int zero, int skip, int threads, void *scratch, size_t room, double *norm
) noexcept nogil:
    cdef fastlr_call c
    cdef fastlr_found found
    cdef fastlr_description d
    cdef size_t k, j, per, start = (64 - <uintptr_t>scratch % 64) % 64, taken
    cdef fastlr_tensor *tensors
    cdef int status
    memset(&c, 0, sizeof(c))
    d.size, found.size = sizeof(d), sizeof(found)
    status = fastlr_describe(rule, <fastlr_dtype>dtype, &d)
    if status != FASTLR_OK:
        return status
    c.size, c.stride, c.rule, c.dtype = sizeof(c), sizeof(fastlr_tensor), rule, <fastlr_dtype>dtype
    c.count, c.t, c.lr, c.scale, c.l2, c.decay = count, t, lr, scale, l2, decay
    c.clip_norm, c.hyper, c.hypers, c.carry, c.zero, c.skip = clip_norm, hyper, hypers, carry, zero, skip
    c.threads = threads if threads > 0 else get_threads_in_c()
    taken = start + align_up(count * sizeof(fastlr_tensor))
    if scratch != NULL and room >= taken:
        tensors = <fastlr_tensor *>(<char *>scratch + start)
        per = <size_t>(d.states + d.inputs)
        memset(tensors, 0, count * sizeof(fastlr_tensor))
        for k in range(count):
            tensors[k].n, tensors[k].p, tensors[k].g = n[k], p[k], g[k]
            for j in range(per):
                tensors[k].s[j] = s[k * per + j]
        c.tensors, c.scratch, c.room = tensors, <char *>scratch + taken, room - taken
    else:
        c.count = 0  # and no scratch: refused as such
    status = fastlr_update(&c, &found)
    if norm != NULL:
        norm[0] = found.norm
    return status


cdef int update_array(
    const char *rule, int dtype, size_t n, void *p, void *g, void *s0, void *s1, void *s2, void *s3, void *s4,
    long long t, double lr, double scale, double l2, double decay, const double *hyper, size_t hypers,
    double *carry, void *scratch, size_t room
) noexcept nogil:
    cdef void *s[5]
    s[0], s[1], s[2], s[3], s[4] = s0, s1, s2, s3, s4
    return update(rule, dtype, 1, &n, &p, &g, s, t, lr, scale, l2, decay, 0, hyper, hypers, carry, False, False, 0,
                  scratch, room, NULL)


cdef int get_threads_in_c() noexcept nogil:
    return threads


def embeds(str rule):
    """Whether a step is one call with p, g and states: the rule is a sweep without inputs that carries no numbers."""
    cdef int states, inputs, hypers, carry
    return describe(rule.encode(), 0, &states, &inputs, &hypers, &carry) == FASTLR_OK and inputs == 0 and carry == 0


# ---- rules made at run time -----------------------------------------------------------------------------------------

HYPERS = FASTLR_HYPERS
SCALARS = FASTLR_SCALARS
CARRY = FASTLR_CARRY
STATES = FASTLR_STATES


@cython.final
cdef class Made:
    """A rule of two compiled functions, for the kernels' table. The table has it for good, and so this is never freed.

    Parameters
    ----------
    name : str
        Unlike every other rule's.
    states, hypers, scalars : int
        How many states it has, how many hyper-parameters its first function takes, how many numbers that returns
        beside the rate.
    squares : int
        A bit for each state that is never negative.
    first : sequence of float
        The numbers that it carries from step to step, as they are before the first.
    """
    cdef fastlr_made *made  # one for each dtype
    cdef bytes name

    def __cinit__(self, str name, int states, int hypers, int scalars, unsigned squares, first=()):
        cdef int k
        self.name = name.encode()
        for dtype in (FASTLR_F32, FASTLR_F64):
            if fastlr_find_rows(self.name, dtype) != NULL:
                raise ValueError(f"there is a rule {name!r}")
        self.made = <fastlr_made *>new_array(2, sizeof(fastlr_made))
        Py_INCREF(self)
        for k, dtype in enumerate((FASTLR_F32, FASTLR_F64)):
            self.made[k].name, self.made[k].dtype = self.name, dtype
            self.made[k].states, self.made[k].hypers, self.made[k].scalars = states, hypers, scalars
            self.made[k].squares, self.made[k].carry = squares, len(first)
            for j, x in enumerate(first):
                self.made[k].first[j] = x
            fastlr_add(&self.made[k])

    def compiled(self, str kind):
        """Whether there are functions for "f" or "d"."""
        return self.made[kind == "d"].chunk != NULL

    def use(self, str kind, uintptr_t at, uintptr_t chunk):
        """The functions' addresses: see `fastlr_made` in fastlr.h. The code must stay where it is."""
        fastlr_use_made(&self.made[kind == "d"], <fastlr_made_at><void *>at, <fastlr_made_chunk><void *>chunk)
