# Included by _core.pyx: what of the kernels it calls.

cdef extern from "fastlr.h" nogil:
    const int FASTLR_STATES, FASTLR_HYPERS, FASTLR_CARRY, FASTLR_MAX_THREADS, FASTLR_BLOCK, FASTLR_QUANTUM

    ctypedef enum fastlr_dtype:
        FASTLR_F32
        FASTLR_F64

    ctypedef enum fastlr_scope:
        FASTLR_ALONE
        FASTLR_TENSOR
        FASTLR_GROUP
        FASTLR_MODEL

    ctypedef struct fastlr_hyper:
        double lr, scale, l2, decay
        double rule[9]
        const void *context

    ctypedef struct fastlr_step:
        pass

    ctypedef enum fastlr_format:
        FASTLR_OWN
        FASTLR_SINGLE
        FASTLR_BF16
        FASTLR_F16
        FASTLR_BF16_BY_CHANCE
        FASTLR_F16_BY_CHANCE
        FASTLR_SPLIT
        FASTLR_BF16_KAHAN
        FASTLR_F16_KAHAN
        FASTLR_INT8
        FASTLR_UINT8

    ctypedef struct fastlr_stored:
        fastlr_format p, g
        fastlr_format s[5]
        fastlr_format copy[2]
        void *low
        void *scale[5]
        void *ema
        double share
        void *copied[2]
        double most
        uint64_t key, first

    ctypedef struct fastlr_span:
        size_t n
        void *p
        void *g
        void *s[5]
        const fastlr_step *step
        const fastlr_stored *stored
        size_t unit, start

    ctypedef struct fastlr_sums:
        size_t n

    ctypedef struct fastlr_lanes:
        pass

    ctypedef enum fastlr_extent:
        FASTLR_ELEMENTS
        FASTLR_PER_ROW
        FASTLR_COUNT_PER_ROW

    ctypedef struct fastlr_rule:
        const char *name
        size_t size
        int states, inputs, hypers, carry, passes, accesses
        unsigned squares, precise
        fastlr_scope scope
        bint prepare(const fastlr_hyper *, int64_t t, const fastlr_sums *, double *carry, fastlr_step *)
        bint (*asks)(const double *carry)
        void (*survey)(size_t, const void *, const void *, void **, const fastlr_step *, size_t, fastlr_lanes *)
        void (*close)(const fastlr_hyper *, int64_t t, const fastlr_sums *, double *carry)
        fastlr_extent extent[5]
        const void *context

    ctypedef struct fastlr_partial:
        pass

    ctypedef struct fastlr_stats:
        double norm, largest
        bint finite

    const char *fastlr_isa_name(int n)
    bint fastlr_isa_runs(int n)
    int fastlr_isa()
    void fastlr_use_isa(int n)
    ctypedef enum fastlr_asking:
        FASTLR_ASK_LITTLE
        FASTLR_ASK_LATE
        FASTLR_ASK_ALL
    fastlr_asking fastlr_asks()
    void fastlr_ask(fastlr_asking asks)
    const fastlr_rule *fastlr_find(const char *name, fastlr_dtype)
    void fastlr_lay(fastlr_span *, size_t spans)
    size_t fastlr_blocks(const fastlr_span *, size_t spans)
    fastlr_stats fastlr_measure(fastlr_dtype, const fastlr_span *, size_t spans, fastlr_partial *, int threads)
    void fastlr_survey(
        const fastlr_rule *, const fastlr_span *, size_t spans, fastlr_sums *, fastlr_sums *, int threads
    )
    void fastlr_run(
        const fastlr_rule *, const fastlr_span *, size_t spans, bint zero, fastlr_sums *, fastlr_sums *, int threads
    )
    void fastlr_accumulate(fastlr_dtype, const fastlr_span *, size_t spans, int threads)
    int fastlr_processors()
    double fastlr_clip(double scale, double norm, double clip_norm)
    unsigned long long fastlr_flush_denormals()
    void fastlr_set_float_mode(unsigned long long)
    void fastlr_widen(fastlr_format, size_t n, const void *codes, const void *beside, float *x)
    void fastlr_narrow(
        fastlr_dtype, fastlr_format, size_t n, const void *x, void *codes, void *beside, uint64_t key
    )

    const int FASTLR_MECHANIC_BETAS

    ctypedef struct fastlr_mechanic:
        int count
        double beta[8]
        double s_init, decay, eps

    ctypedef struct fastlr_mechanic_state:
        double s[8]
        double r[8]
        double m[8]
        double v[8]

    fastlr_mechanic_state fastlr_mechanic_next(
        const fastlr_mechanic *, fastlr_mechanic_state, const fastlr_sums *
    )
    double fastlr_mechanic_scale(const fastlr_mechanic *, const fastlr_mechanic_state *)

    ctypedef struct fastlr_rows:
        size_t rows, width
        void *p
        void *s[5]
        size_t count
        const void *g
        const uint64_t *pairs
        const fastlr_step *step

    const fastlr_rule *fastlr_find_rows(const char *name, fastlr_dtype)
    size_t fastlr_order_rows(const void *index, bint wide, size_t count, size_t rows, uint64_t **scratch,
                             const uint64_t **pairs, int threads)
    size_t fastlr_rows_scratch(size_t width, fastlr_dtype)
    fastlr_stats fastlr_measure_rows(fastlr_dtype, const fastlr_rows *, size_t tables, fastlr_partial *, void *scratch,
                                     int threads)
    void fastlr_run_rows(const fastlr_rule *, fastlr_dtype, const fastlr_rows *, size_t tables, void *scratch,
                         int threads)

    ctypedef struct fastlr_planes:
        size_t planes, rows, cols

    size_t fastlr_factored_scratch(const fastlr_span *, const fastlr_planes *, size_t tensors)
    void fastlr_factored_run(
        const fastlr_rule *, const fastlr_span *, const fastlr_planes *, size_t tensors, bint zero, void *, int threads
    )

cdef extern from "elementary.h" nogil:
    double exponential(double)
    double logarithm(double)
    double power(double, double)
    double cosine_pi(double)
    double sine_pi(double)
    double tanh_of(double)
