# cython: language_level=3
"""What other modules may cimport: plain functions over plain C types, frozen by tests/test_embedding.py.

They are frozen because Cython compares the text of each signature when a module that uses it is imported: new
functions may be added, these may not be changed. `fastlr/__init__.pxd` has what users write and read.
"""

cdef int abi() noexcept nogil
cdef const char *message(int status) noexcept nogil
cdef int describe(const char *rule, int dtype, int *states, int *inputs, int *hypers, int *carry) noexcept nogil
cdef size_t scratch_size(size_t count, const size_t *n) noexcept nogil
cdef int update(
    const char *rule, int dtype, size_t count, const size_t *n, void **p, void **g, void **s, long long t,
    double lr, double scale, double l2, double decay, double clip_norm, const double *hyper, size_t hypers,
    double *carry, int zero, int skip, int threads, void *scratch, size_t room, double *norm
) noexcept nogil
cdef int update_array(
    const char *rule, int dtype, size_t n, void *p, void *g, void *s0, void *s1, void *s2, void *s3, void *s4,
    long long t, double lr, double scale, double l2, double decay, const double *hyper, size_t hypers,
    double *carry, void *scratch, size_t room
) noexcept nogil
