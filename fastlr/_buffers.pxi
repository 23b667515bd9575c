# Included by _core.pyx: buffers of Python objects, and which of them overlap.

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
    if kind == c"q" or kind == c"i":  # int64 or int32, under whichever of C's names
        if f[0] != c"q" and f[0] != c"l" and f[0] != c"i":
            return False
        return f[1] == 0 and view.itemsize == (8 if kind == c"q" else 4)
    return f[0] == kind and f[1] == 0


cdef bint has_shape(const Py_buffer *view, const Py_buffer *model) noexcept:
    if view.ndim != model.ndim:
        return False
    for k in range(view.ndim):
        if view.shape[k] != model.shape[k]:
            return False
    return True


cdef bint pin(object x, Py_buffer *view, char kind, bint writable) except -1:
    """Takes a buffer of `kind` ("f" or "d"; "q" or "i" for int64 and int32), C-contiguous and aligned.

    False, holding nothing, if x is not one.
    """
    try:
        PyObject_GetBuffer(x, view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS | (PyBUF_WRITABLE if writable else 0))
    except (BufferError, ValueError, TypeError):
        return False
    if has_format(view, kind) and <uintptr_t>view.buf % <size_t>view.itemsize == 0:
        return True
    PyBuffer_Release(view)
    return False
