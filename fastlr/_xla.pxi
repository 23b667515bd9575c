"""A step as a handler of XLA's foreign function interface, for `fastlr.jax`: C that XLA calls, with the GIL or without.

These are the structures of xla/ffi/api/c_api.h, as far as they are read, at the version that `xla_step` names. XLA
refuses a version that it has ceased to support when the handler is registered.
"""
cdef enum:
    XLA_MAJOR = 0
    XLA_MINOR = 1
    XLA_METADATA = 1  # the extension that asks for the version
    XLA_INVALID = 3   # argument
    XLA_F32 = 11
    XLA_F64 = 12


cdef struct xla_extension:
    size_t size
    int kind
    xla_extension *next


cdef struct xla_version:
    size_t size
    void *extension
    int major, minor


cdef struct xla_metadata:
    size_t size
    xla_version version
    unsigned traits


cdef struct xla_asking:
    xla_extension base
    xla_metadata *metadata


cdef struct xla_complaint:
    size_t size
    void *extension
    const char *message
    int code


cdef struct xla_api:
    size_t size
    void *extension
    xla_version version
    void *internal
    void *(*complain)(xla_complaint *) noexcept nogil


cdef struct xla_buffer:
    size_t size
    void *extension
    int dtype
    void *data
    int64_t rank
    int64_t *dims


cdef struct xla_list:
    size_t size
    void *extension
    int64_t count
    int *kinds
    void **items


cdef struct xla_attributes:
    size_t size
    void *extension
    int64_t count
    int *kinds
    void **names
    void **items  # in the order of their names


cdef struct xla_text:
    const char *start
    size_t size


cdef struct xla_scalar:
    int dtype
    void *value


cdef struct xla_array:
    int dtype
    size_t count
    void *start


cdef struct xla_frame:
    size_t size
    xla_extension *extension
    const xla_api *api
    void *context
    int stage
    xla_list arguments, results
    xla_attributes attributes


_XLA_STEP = PyCapsule_New(<void *>xla_step, NULL, NULL)
cdef dict programs = {}


def add_program(str key, function):
    """What `xla_step` calls with the number of a step, from 0, for (lr, l2, decay, *the rule's own). For good."""
    programs[key.encode()] = function


cdef void *xla_step(xla_frame *frame) noexcept nogil:
    """A step of fastlr_update().

    Arguments: the number of the step, from 1 (int32); parameters, gradients, then each state, one buffer a tensor.
    Results: new parameters, or their differences from the old, and new states; a buffer may be its argument's.
    Attributes: "key" of a program, or none; "numbers", lr, l2, decay and the rule's own, where there is no program;
    "rule"; and "updates", whether the differences are wanted.
    """
    cdef char message[512]
    cdef xla_complaint complaint
    cdef xla_extension *asking = frame.extension
    if asking != NULL and asking.kind == XLA_METADATA:
        (<xla_asking *>asking).metadata.version.major = XLA_MAJOR
        (<xla_asking *>asking).metadata.version.minor = XLA_MINOR
        (<xla_asking *>asking).metadata.traits = 0
        return NULL
    message[0] = 0
    xla_update(frame, message)
    if message[0] == 0:
        return NULL
    complaint.size, complaint.extension, complaint.message = sizeof(complaint), NULL, message
    complaint.code = XLA_INVALID
    return frame.api.complain(&complaint)


cdef void xla_update(xla_frame *frame, char *message) noexcept nogil:
    """Makes the step, or writes why not."""
    cdef xla_attributes *given = &frame.attributes
    cdef xla_text *key
    cdef xla_text *name
    cdef xla_array *numbers
    cdef xla_buffer **arguments = <xla_buffer **>frame.arguments.items
    cdef xla_buffer **results = <xla_buffer **>frame.results.items
    cdef double hyper[12]  # lr, l2, decay and FASTLR_HYPERS
    cdef char rule[512]  # a user's is named after its function
    cdef fastlr_call c
    cdef fastlr_description d
    cdef fastlr_tensor *tensors
    cdef size_t tensor_count, k, j, n, states
    cdef int status
    cdef bint updates
    if given.count != 4 or frame.arguments.count < 1:
        strcpy(message, b"fastlr_step needs the attributes key, numbers, rule and updates, and the number of the step")
        return
    key, numbers, name = <xla_text *>given.items[0], <xla_array *>given.items[1], <xla_text *>given.items[2]
    updates = (<int64_t *>(<xla_scalar *>given.items[3]).value)[0]
    if (
        name.size >= sizeof(rule) or numbers.dtype != XLA_F64
        or numbers.count < 3 or numbers.count > 3 + <size_t>FASTLR_HYPERS
    ):
        strcpy(message, b"fastlr_step: no such rule, or not its numbers")
        return
    memcpy(rule, name.start, name.size)
    rule[name.size] = 0
    memcpy(hyper, numbers.start, numbers.count * sizeof(double))
    memset(&c, 0, sizeof(c))
    c.size, c.stride, c.rule = sizeof(c), sizeof(fastlr_tensor), rule
    c.t = (<int32_t *>arguments[0].data)[0]
    if key.size and not follow_program(key.start, key.size, c.t - 1, numbers.count, hyper, message):
        return
    d.size = sizeof(d)
    status = fastlr_describe(rule, FASTLR_F32, &d)
    states = <size_t>d.states
    n = <size_t>frame.arguments.count - 1
    if status != FASTLR_OK or n % (2 + states) or <size_t>frame.results.count != n // (2 + states) * (1 + states):
        strcpy(message, b"fastlr_step: no such rule, or not its buffers")
        return
    tensor_count = n // (2 + states)
    c.dtype = FASTLR_F64 if tensor_count and arguments[1].dtype == XLA_F64 else FASTLR_F32
    tensors = <fastlr_tensor *>calloc(tensor_count + 1, sizeof(fastlr_tensor))
    for k in range(tensor_count if tensors != NULL else 0):
        n = elements(arguments[1 + k])
        for j in range(1 + states):  # the new where they are to be: there already, if XLA was given the old
            if results[j * tensor_count + k].data != arguments[1 + (j + (j > 0)) * tensor_count + k].data:
                memcpy(
                    results[j * tensor_count + k].data, arguments[1 + (j + (j > 0)) * tensor_count + k].data,
                    n * (8 if c.dtype == FASTLR_F64 else 4),
                )
        if n:
            tensors[c.count].n, tensors[c.count].p = n, results[k].data
            tensors[c.count].g = arguments[1 + tensor_count + k].data  # only read
            for j in range(states):
                tensors[c.count].s[j] = results[(1 + j) * tensor_count + k].data
            c.count += 1
    c.tensors, c.threads = tensors, get_threads_in_c()
    c.lr, c.scale, c.l2, c.decay, c.hyper, c.hypers = hyper[0], 1, hyper[1], hyper[2], &hyper[3], numbers.count - 3
    c.room = fastlr_scratch(&c)
    c.scratch = malloc(c.room)
    if tensors == NULL or (c.room and c.scratch == NULL):
        strcpy(message, b"fastlr_step: out of memory")
    else:
        status = fastlr_update(&c, NULL)
        if status != FASTLR_OK:
            strcpy(message, fastlr_message(<fastlr_status>status))
        for k in range(tensor_count if updates else 0):
            subtract(results[k].data, arguments[1 + k].data, elements(arguments[1 + k]), c.dtype)
    free(c.scratch)
    free(tensors)


cdef size_t elements(const xla_buffer *b) noexcept nogil:
    cdef int64_t k, n = 1
    for k in range(b.rank):
        n *= b.dims[k]
    return <size_t>n


cdef void subtract(void *new, const void *old, size_t n, fastlr_dtype dtype) noexcept nogil:
    cdef size_t k
    if dtype == FASTLR_F64:
        for k in range(n):
            (<double *>new)[k] -= (<const double *>old)[k]
    else:
        for k in range(n):
            (<float *>new)[k] -= (<const float *>old)[k]


cdef bint follow_program(
    const char *key, size_t size, int64_t step, size_t count, double *hyper, char *message
) noexcept with gil:
    try:
        found = programs[key[:size]](step)
        if <size_t>len(found) != count:
            raise ValueError(f"{count} numbers are needed, got {len(found)}")
        for k in range(count):
            hyper[k] = found[k]
    except BaseException as error:
        text = f"{type(error).__name__}: {error}".encode()[:511]
        memcpy(message, <const char *>text, len(text))
        message[len(text)] = 0
        return False
    return True
