# Included by _core.pyx: how state of 8 bits is laid out, and numbers in fewer bits as Python converts them.

cdef enum:
    LEAST_PACKED = 4096  # elements: what is shorter stays float32


cdef size_t packed_elements(size_t n) noexcept:
    """How many of n are stored in blocks with a scale: whole blocks, of what is long enough."""
    return n // <size_t>FASTLR_QUANTUM * <size_t>FASTLR_QUANTUM if n >= LEAST_PACKED else 0


cdef size_t packed_bytes(size_t n) noexcept:
    """Of n elements in 8 bits: codes, then scales, then the rest in float32; rounded up to a cache line."""
    cdef size_t quanta = packed_elements(n)
    return (quanta + quanta // <size_t>FASTLR_QUANTUM * sizeof(float) + (n - quanta) * sizeof(float) + 63) // 64 * 64


def packed_size(size_t n):
    """Bytes that packed state has for a piece of n elements."""
    return packed_bytes(n)


def pack(float[::1] x, unsigned char[::1] packed, bint squares):
    """Packs the state of a piece, `squares` being never negative."""
    cdef size_t n = <size_t>x.shape[0], quanta = packed_elements(n), k = 0
    cdef fastlr_format format = FASTLR_UINT8 if squares else FASTLR_INT8
    cdef char *to
    cdef size_t q = FASTLR_QUANTUM
    if <size_t>packed.shape[0] != packed_bytes(n):
        raise ValueError(f"packed must have {packed_bytes(n)} bytes for {n} elements, got {packed.shape[0]}")
    if n == 0:
        return
    to = <char *>&packed[0]
    while k < quanta:
        fastlr_narrow(FASTLR_F32, format, q, &x[k], to + k, to + quanta + k // q * sizeof(float), 0)
        k += q
    if n > quanta:
        memcpy(to + quanta + quanta // q * sizeof(float), &x[quanta], (n - quanta) * sizeof(float))


def unpack(const unsigned char[::1] packed, float[::1] x, bint squares):
    """The float32 numbers of what `pack` packed."""
    cdef size_t n = <size_t>x.shape[0], quanta = packed_elements(n), k = 0
    cdef fastlr_format format = FASTLR_UINT8 if squares else FASTLR_INT8
    cdef const char *source
    cdef size_t q = FASTLR_QUANTUM
    if <size_t>packed.shape[0] != packed_bytes(n):
        raise ValueError(f"packed must have {packed_bytes(n)} bytes for {n} elements, got {packed.shape[0]}")
    if n == 0:
        return
    source = <const char *>&packed[0]
    while k < quanta:
        fastlr_widen(format, q, source + k, source + quanta + k // q * sizeof(float), &x[k])
        k += q
    if n > quanta:
        memcpy(&x[quanta], source + quanta + quanta // q * sizeof(float), (n - quanta) * sizeof(float))


FORMATS = {"bfloat16": FASTLR_BF16, "float16": FASTLR_F16}


ctypedef fused real:
    float
    double


def narrow(str format, const real[::1] x, unsigned short[::1] codes, seed=None):
    """float32 or float64 to bfloat16 or float16: to the nearest, or with a seed float32 up or down by chance."""
    cdef fastlr_format kind = FORMATS[format]
    cdef fastlr_dtype dtype = FASTLR_F32 if real is float else FASTLR_F64
    cdef uint64_t key = 0 if seed is None else seed
    if x.shape[0] != codes.shape[0]:
        raise ValueError(f"codes must have {x.shape[0]} elements, got {codes.shape[0]}")
    if seed is not None and dtype == FASTLR_F64:
        raise TypeError("x must be float32 to be rounded by chance, got float64")
    if x.shape[0]:
        fastlr_narrow(dtype, kind if seed is None else by_chance(kind), <size_t>x.shape[0], &x[0], &codes[0], NULL, key)


def widen(str format, const unsigned short[::1] codes, float[::1] x):
    """bfloat16 or float16 to float32."""
    cdef fastlr_format kind = FORMATS[format]
    if x.shape[0] != codes.shape[0]:
        raise ValueError(f"codes must have {x.shape[0]} elements, got {codes.shape[0]}")
    if x.shape[0]:
        fastlr_widen(kind, <size_t>x.shape[0], &codes[0], NULL, &x[0])
