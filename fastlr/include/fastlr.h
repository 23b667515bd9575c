/* fastlr: the optimizer step for CPUs, in plain C11.
 *
 * Kernels are stateless and never allocate: the caller owns parameters, gradients, state and the step number.
 * Elementwise results are the same bits for any instruction set, thread count, offset and split of the buffers.
 *
 * Programs that embed fastlr use the last section, `embed.c`, which only grows from version to version; examples/c has one.
 * What is above it is what that is made of, and changes with the library.
 */
#ifndef FASTLR_H
#define FASTLR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef FASTLR_SHARED /* while the shared library is built: all that is declared here is what it exports */
#pragma GCC visibility push(default)
#endif
#ifdef __cplusplus
extern "C" {
#endif

enum { FASTLR_STATES = 5, FASTLR_HYPERS = 9, FASTLR_STEP_SLOTS = 16, FASTLR_SUMS = 4, FASTLR_CARRY = 4 };

typedef enum { FASTLR_F32, FASTLR_F64, FASTLR_DTYPES } fastlr_dtype;

/* What a rule's sums go over, and who keeps the numbers that it carries from step to step. */
typedef enum { FASTLR_ALONE, FASTLR_TENSOR, FASTLR_GROUP, FASTLR_MODEL } fastlr_scope;

/* What the user chose, in double. `rule` holds the rule's own hyper-parameters, in the order of its <rule>_hyper. */
typedef struct {
    double lr;
    double scale; /* g' = scale g: unscaling x clip coefficient x (-1 to maximise) */
    double l2;    /* coupled weight decay: g' += l2 p */
    double decay; /* decoupled weight decay: p -= lr decay p */
    double rule[FASTLR_HYPERS];
    const void *context; /* of the rule: fastlr_rule.context */
} fastlr_hyper;

/* The same for one step, narrowed to the kernel's type: bias corrections applied, ready for the loop. Opaque. */
typedef struct {
    double slot[FASTLR_STEP_SLOTS];
} fastlr_step;

/* How a buffer of numbers is stored; of float64 ones gradients and inputs may be as any of the first four, copies too. */
typedef enum {
    FASTLR_OWN,    /* as the arithmetic's type */
    FASTLR_SINGLE, /* float32, where that is float64 */
    FASTLR_BF16,
    FASTLR_F16,
    FASTLR_BF16_BY_CHANCE, /* the same, rounded up or down by chance, which is right on average */
    FASTLR_F16_BY_CHANCE,
    FASTLR_SPLIT,      /* bfloat16, which is the upper half of a float32, and beside it the lower half */
    FASTLR_BF16_KAHAN, /* bfloat16, and beside it what its rounding lost, as bfloat16 */
    FASTLR_F16_KAHAN,  /* float16, and the same as bfloat16: in float16 what a small number lost would be 0 */
    FASTLR_INT8,       /* bytes, and beside them a float32 scale for each FASTLR_QUANTUM: signed */
    FASTLR_UINT8,      /* the same for what is not negative: no number above 0 becomes 0 */
    FASTLR_FORMATS
} fastlr_format;

enum { FASTLR_QUANTUM = 256, FASTLR_COPIES = 2 };

/* Of a span that is not all of the arithmetic's type, and what is done to it in the pass of the step. */
typedef struct {
    fastlr_format p, g, s[FASTLR_STATES], copy[FASTLR_COPIES];
    void *low;                   /* beside p */
    void *scale[FASTLR_STATES];  /* beside the states */
    void *ema;                   /* a running mean of the new parameters in the arithmetic's type, or NULL */
    double share;                /* of the newest in it */
    void *copied[FASTLR_COPIES]; /* the new parameters once more, before p is rounded: not the same place; or NULL */
    double most;                 /* gradients are limited to ± this before they are scaled; 0 for no limit */
    uint64_t key, first;         /* of what is rounded by chance: the step's, and the span's place in the model */
} fastlr_stored;

/* One contiguous piece of the model. Buffers that one call touches must not overlap. */
typedef struct {
    size_t n;
    void *p, *g, *s[FASTLR_STATES]; /* the states, then the rule's input if it has one, which is only read */
    const fastlr_step *step;
    const fastlr_stored *stored; /* NULL where all is of the arithmetic's type and nothing else is to be done */
    size_t unit;                 /* what it is summed with: spans of one unit are neighbours, units count from 0 */
    size_t start;                /* its place on the line of all spans: fastlr_lay() */
} fastlr_span;

/* Of one unit. */
typedef struct {
    double sum[FASTLR_SUMS];
    size_t n; /* elements summed */
} fastlr_sums;

/* Running sums inside a block; see kernels/reduce.h. */
enum { FASTLR_LANES = 32 }; /* measured best with gcc for AVX2 and AVX-512 */
typedef struct {
    double lane[FASTLR_SUMS][FASTLR_LANES];
} fastlr_lanes;

/* What a state has: a number for each element, a number for each row, or an int64 for each row. */
typedef enum { FASTLR_ELEMENTS, FASTLR_PER_ROW, FASTLR_COUNT_PER_ROW } fastlr_extent;

typedef struct {
    const char *name;
    size_t size; /* bytes of an element */
    int states, inputs, hypers, carry;
    unsigned squares, precise; /* a bit for each state: never negative; not to be stored in fewer bits than float32 */
    /* Of a step after the first, without l2: reads of the gradients; numbers read or written an element, of rows that are
     * given where the rule is one for rows. */
    int passes, accesses;
    fastlr_scope scope;
    /* The scalars of step t, which counts from 1. `sums` are the survey's, NULL before it; `carry` is read and replaced.
     * False when a scalar is not finite in the kernel's type. */
    bool (*prepare)(const fastlr_hyper *, int64_t t, const fastlr_sums *sums, double *carry, fastlr_step *);
    /* Whether a step with these numbers needs the survey's sums; NULL where every one does. */
    bool (*asks)(const double *carry);
    /* Adds to the sums that the step needs; NULL where it needs none. */
    void (*survey)(size_t n, const void *p, const void *g, void *const *s, const fastlr_step *, size_t k,
                   fastlr_lanes *);
    /* Makes the step. `k` and the lanes, of the sums that come with it, are used where there is a close(). */
    void (*sweep)(size_t n, void *p, void *g, void *const *s, const fastlr_step *, bool zero, size_t k, fastlr_lanes *);
    /* The same step of n elements stored in fewer bits, or NULL: parameters and gradients float32 or, the former only with
     * the latter, bfloat16; states bfloat16, or with scales 8 bits, n being whole quanta then. */
    void (*fused)(size_t n, bool half_p, void *p, bool half_g, const void *g, void *const *s, void *const *scale,
                  const fastlr_step *);
    /* Replaces what is carried, by the sums of the sweep; NULL where it has none. */
    void (*close)(const fastlr_hyper *, int64_t t, const fastlr_sums *sums, double *carry);
    /* If a state is not one of elements, the sweep is over one row of a table, and only fastlr_run_rows() may call it. */
    fastlr_extent extent[FASTLR_STATES];
    const void *context; /* what prepare() must find in fastlr_hyper.context: see made.c */
} fastlr_rule;

/* The gradients of one block; see kernels/reduce.h. */
typedef struct {
    double square;
    uint64_t largest;
} fastlr_partial;

/* Of all gradients together. */
typedef struct {
    double norm;    /* √Σg² */
    double largest; /* max |g|; NaN if any is */
    bool finite;
} fastlr_stats;

/* ---- dispatch.c: instruction sets, from "baseline" to the widest the machine runs ---- */

/* The n-th instruction set of this build, or NULL; whether this machine can run it; the one in use. */
const char *fastlr_isa_name(int n);
bool fastlr_isa_runs(int n);
int fastlr_isa(void);
void fastlr_use_isa(int n);

/* The n-th rule that is a sweep, or NULL. */
const char *fastlr_rule_name(int n);

/* The kernel for a rule in the instruction set in use, or NULL. */
const fastlr_rule *fastlr_find(const char *name, fastlr_dtype);

/* ---- prefetch.c: what loops ask for ahead; no result depends on it ---- */

/* Next to nothing; the parameters too, where inlined loops come to them late; all that loops go over. */
typedef enum { FASTLR_ASK_LITTLE, FASTLR_ASK_LATE, FASTLR_ASK_ALL } fastlr_asking;

/* By the processor, until fastlr_ask() says otherwise. */
fastlr_asking fastlr_asks(void);
void fastlr_ask(fastlr_asking);

/* ---- run.c: whole steps over many spans, on the pool's threads ---- */

enum { FASTLR_BLOCK = 4096 }; /* elements: the unit of reductions and of work sharing */

/* Lays the spans end to end, each unit from the start of a block, and one with scales from that of a quantum: sets every `start`. Call it when a span's n or unit has
 * changed. */
void fastlr_lay(fastlr_span *, size_t spans);

/* Blocks of the line: the length of every `scratch` below. */
size_t fastlr_blocks(const fastlr_span *, size_t spans);

/* One read of all gradients. */
fastlr_stats fastlr_measure(fastlr_dtype, const fastlr_span *, size_t spans, fastlr_partial *scratch, int threads);

/* The sums that the rule's step needs, one fastlr_sums a unit. Writes no buffer of the model. */
void fastlr_survey(const fastlr_rule *, const fastlr_span *, size_t spans, fastlr_sums *scratch, fastlr_sums *found,
                   int threads);

/* One step. Nothing is checked here and nothing can fail. `scratch` and `found` are used where the rule has a close(). */
void fastlr_run(const fastlr_rule *, const fastlr_span *, size_t spans, bool zero, fastlr_sums *scratch,
                fastlr_sums *found, int threads);

/* p += g, where g is as `stored` says, which every span has. */
void fastlr_accumulate(fastlr_dtype, const fastlr_span *, size_t spans, int threads);

/* ---- schedule.c: the value of a hyper-parameter at a step ----
 *
 * A schedule is a tree, compiled into a table of segments: the children of a segment lie side by side from `first` on, and
 * offsets count from the table's first segment, which is the root. Read only, so one table serves any number of threads.
 */

enum { FASTLR_PARAMETERS = 10 };

typedef struct {
    double start, start_lo; /* when it begins, on its parent's clock: the sum of both, for steps beyond 2^53 */
    double p[FASTLR_PARAMETERS];
    int64_t kind, shape;  /* kernels/curves.h has both */
    int64_t first, count; /* its children, or a function and its context */
} fastlr_segment;

/* A user's function in a table: n values at n times. False when it failed. */
typedef bool (*fastlr_custom)(void *context, size_t n, const double *t, double *out);

/* What may go wrong, as bits; the values are NaN there. */
enum { FASTLR_NEGATIVE = 1, FASTLR_ENDED = 2, FASTLR_FAILED = 4 };

/* out[i] = the value at t[i]. `t` and `out` must not overlap. The same bits however the calls are cut. */
int fastlr_schedule(const fastlr_segment *table, size_t n, const double *t, double *out);
int fastlr_schedule_ints(const fastlr_segment *table, size_t n, const int64_t *t, double *out);

/* At hi + lo, exactly: for integers beyond 2^53. */
int fastlr_schedule_wide(const fastlr_segment *table, double hi, double lo, double *out);

/* ln Γ(z) − ½ ln 2π: a parameter of one kind of segment. */
double fastlr_stirling(double z);

/* ---- plateau.c: reducing the rate when a metric stops improving ---- */

typedef struct {
    double factor, patience, threshold, cooldown, least, smoothing;
    bool maximize, relative, skip_nan;
} fastlr_plateau;

typedef struct {
    double scale, best, bad, cooling, average, seen;
} fastlr_plateau_state;

/* One metric: the next state. */
fastlr_plateau_state fastlr_plateau_next(const fastlr_plateau *, fastlr_plateau_state, double metric);

/* ---- mechanic.c: the scale that the rule "mechanic" gives another's steps ---- */

enum { FASTLR_MECHANIC_BETAS = 8 };

typedef struct {
    int count; /* of the factors */
    double beta[FASTLR_MECHANIC_BETAS], s_init, decay, eps;
} fastlr_mechanic;

typedef struct {
    double s[FASTLR_MECHANIC_BETAS], r[FASTLR_MECHANIC_BETAS], m[FASTLR_MECHANIC_BETAS], v[FASTLR_MECHANIC_BETAS];
} fastlr_mechanic_state;

/* By the sums of the rule's survey: the next state. What is not finite changes nothing. */
fastlr_mechanic_state fastlr_mechanic_next(const fastlr_mechanic *, fastlr_mechanic_state, const fastlr_sums *);
double fastlr_mechanic_scale(const fastlr_mechanic *, const fastlr_mechanic_state *);

/* ---- rows.c: steps of the rows of tables that have a gradient, the others left alone ---- */

/* A table of rows x width elements, and `count` gradients of one row each. */
typedef struct {
    size_t rows, width;
    void *p, *s[FASTLR_STATES];
    size_t count;
    const void *g;
    const uint64_t *pairs; /* fastlr_order_rows() */
    const fastlr_step *step;
} fastlr_rows;

enum { FASTLR_ROWS_UNIT = 64 }; /* gradients: the unit of work sharing */

/* The kernel for a rule that can update rows, or NULL. */
const fastlr_rule *fastlr_find_rows(const char *name, fastlr_dtype);

/* Sorts the gradients by row, keeping their order within one. `index` has each one's row, `wide` says int64 or int32;
 * rows and count are below 2^32. Returns the first place whose row is not in [0, rows), or count and the result, which is in
 * one of the two arrays of `count` entries. Nothing here or below takes time or memory that grows with the table. */
size_t fastlr_order_rows(const void *index, bool wide, size_t count, size_t rows, uint64_t *scratch[2],
                         const uint64_t **pairs, int threads);

/* Bytes of scratch for one thread of the two below. */
size_t fastlr_rows_scratch(size_t width, fastlr_dtype);

/* As fastlr_measure(), of the summed gradients. `partial` has an entry for each gradient of all tables. */
fastlr_stats fastlr_measure_rows(fastlr_dtype, const fastlr_rows *, size_t tables, fastlr_partial *partial,
                                 void *scratch, int threads);

/* One step. Nothing is checked here and nothing can fail. */
void fastlr_run_rows(const fastlr_rule *, fastlr_dtype, const fastlr_rows *, size_t tables, void *scratch, int threads);

/* ---- factored.c: steps of rules that keep means of rows and columns (Adafactor) ---- */

/* A tensor as matrices: its last two dimensions, and the others multiplied. Of one without two, rows is 0, planes 1. */
typedef struct {
    size_t planes, rows, cols;
} fastlr_planes;

/* Bytes of `scratch` below. */
size_t fastlr_factored_scratch(const fastlr_span *, const fastlr_planes *, size_t tensors);

/* One step. A span is one tensor: its states are the means of rows (planes x rows), of columns (planes x cols), and what is
 * kept where it is not factored (cols). Nothing is checked here and nothing can fail. */
void fastlr_factored_run(const fastlr_rule *, const fastlr_span *, const fastlr_planes *, size_t tensors, bool zero,
                         void *scratch, int threads);

/* ---- stored.c: numbers in fewer bits ---- */

/* n numbers from and to a format, the latter by chance with a key; of those with scales FASTLR_QUANTUM at a time. */
void fastlr_widen(fastlr_format, size_t n, const void *codes, const void *beside, float *x);
void fastlr_narrow(fastlr_dtype, fastlr_format, size_t n, const void *x, void *codes, void *beside, uint64_t key);

/* ---- float_mode.c: of the calling thread, and of the threads that work for it ---- */

unsigned long long fastlr_get_float_mode(void);
void fastlr_set_float_mode(unsigned long long mode);

/* Denormal numbers count as 0 from now on, until the mode that this returns is set again. */
unsigned long long fastlr_flush_denormals(void);

/* ---- pool.c: the threads ---- */

/* Calls task(ctx, first, last) over pieces of [0, count), on up to `threads` threads, the caller's among them. */
typedef void (*fastlr_task)(void *ctx, size_t first, size_t last);
void fastlr_parallel(size_t count, int threads, fastlr_task, void *ctx);

/* Whether other work has run for longer since the last call than workers stay awake: their caches are its by now. */
bool fastlr_idle(void);

/* ---- threads.c: how many ---- */

enum { FASTLR_MAX_THREADS = 256 };

/* Processors this process may use: affinity and cgroup quota. */
int fastlr_processors(void);

/* ---- made.c: rules made at run time ---- */

enum { FASTLR_SCALARS = 10 };

/* Step t in double, of the hyper-parameters and then the numbers carried. out[0] is the rate, at first lr, out[1..scalars] what
 * the chunk's function is given, and then come the numbers that the next step is given. */
typedef void (*fastlr_made_at)(int64_t t, double lr, const double *hyper, double *out);

/* The step of n elements. `numbers`, of their type: scale, l2, decay, rate, then the scalars; see kernels/sweep.h. */
typedef void (*fastlr_made_chunk)(int64_t n, void *p, void *g, void *const *s, const void *numbers, int64_t zero);

/* A rule of two functions, compiled for it by somebody else: @fastlr.rule. The caller keeps it, and the code, for good. */
typedef struct fastlr_made {
    const char *name; /* no other rule's */
    fastlr_dtype dtype;
    int states, hypers, scalars, carry;
    double first[FASTLR_CARRY]; /* what is carried to step 1 */
    unsigned squares;           /* as in fastlr_rule */
    fastlr_made_at at;
    fastlr_made_chunk chunk;
    fastlr_rule rule; /* made of these by fastlr_add() */
    struct fastlr_made *next;
} fastlr_made;

/* From now on fastlr_find() has it, without a sweep until its functions are there: before its first step. */
void fastlr_add(fastlr_made *);
void fastlr_use_made(fastlr_made *, fastlr_made_at, fastlr_made_chunk);
const fastlr_rule *fastlr_find_made(const char *name, fastlr_dtype);

/* ---- embed.c: a step in one call, for programs of any language ----
 *
 * How versions go together, either way: a structure begins with its size, by which the library knows what the caller was
 * compiled with. Members are only ever added at the end, never in the padding there, and those that the caller does not know
 * of are 0; a call with members that the library does not know of is FASTLR_BAD_SIZE. The table below is the library's, and
 * begins with FASTLR_ABI and its own size, by which the caller knows what is in it. FASTLR_VERSION is that of the header;
 * nothing depends on it. What version 1 has is frozen in kernels/abi.c.
 */

enum { FASTLR_ABI = 1 }; /* changes only if something below ceases to mean what it does */

#define FASTLR_VERSION 100 /* of the package, 0.1.0: 10000 major + 100 minor + patch */

/* What fastlr_update() returns, fastlr_message() says. All but the first two leave every buffer as it was. */
typedef enum {
    FASTLR_OK,
    FASTLR_SKIPPED,    /* gradients are not finite, and the call says to skip those; they are 0 now if it says `zero` */
    FASTLR_BAD_SIZE,   /* `size` or `stride` is no version's */
    FASTLR_NO_RULE,    /* no sweep has this name and dtype */
    FASTLR_BAD_HYPERS, /* not as many as the rule has, or no array */
    FASTLR_BAD_STEP,   /* t < 1 */
    FASTLR_BAD_BUFFER, /* p, g, or a state or input that the rule has, is NULL or not aligned */
    FASTLR_NO_CARRY,   /* the rule carries numbers, and `carry` is NULL */
    FASTLR_NO_SCRATCH, /* NULL, or smaller than fastlr_scratch() says */
    FASTLR_NOT_FINITE, /* lr, decay, l2, scale or clip_norm, in double or in the buffers' type */
    FASTLR_STATUSES
} fastlr_status;

/* One array of the model, with its gradients and state: contiguous, aligned, none overlapping another. */
typedef struct {
    size_t n;
    void *p, *g;
    void *s[FASTLR_STATES]; /* as many as the rule has, 0 before the first step; then its input */
} fastlr_tensor;

typedef struct {
    size_t size; /* sizeof(fastlr_call) */
    const char *rule;
    fastlr_dtype dtype;
    int threads; /* at most; fastlr_processors() is a good number */
    int64_t t;   /* which step this is, from 1 */
    double lr;
    double scale;     /* the gradients are multiplied by it first; -1 maximises */
    double l2, decay; /* weight decay: added to the gradient; times lr, taken off the parameter itself (AdamW) */
    double clip_norm; /* > 0: scaled down to this Euclidean norm, of all gradients together; 0 for none */
    const double *hyper;
    size_t hypers; /* the rule's own, in the order of its <rule>_hyper in kernels/rules/ */
    const fastlr_tensor *tensors;
    size_t count, stride; /* stride: sizeof(fastlr_tensor) */
    double *carry;        /* FASTLR_CARRY numbers a tensor, all 0 before the first step, where the rule has any */
    void *scratch;
    size_t room; /* bytes of it */
    bool zero;   /* the gradients are 0 afterwards */
    bool skip;   /* gradients that are not finite: change nothing */
} fastlr_call;

/* Of all gradients together, where a norm was asked for by clip_norm or skip; else NaN. */
typedef struct {
    size_t size; /* sizeof(fastlr_found) */
    double norm; /* scaled, not clipped */
} fastlr_found;

typedef struct {
    size_t size; /* sizeof(fastlr_description) */
    int states, inputs, hypers, carry;
    int passes, accesses; /* see fastlr_rule */
    fastlr_scope scope;
} fastlr_description;

/* What a rule has: FASTLR_OK, FASTLR_NO_RULE or FASTLR_BAD_SIZE. */
fastlr_status fastlr_describe(const char *rule, fastlr_dtype, fastlr_description *);

/* Bytes of `scratch` that a call with these tensors needs, at most; of no alignment. It does not look at the buffers. */
size_t fastlr_scratch(const fastlr_call *);

/* One step, or none at all. `found` may be NULL. All tensors are one group; calls with others' may run at the same time. */
fastlr_status fastlr_update(const fastlr_call *, fastlr_found *found);

const char *fastlr_message(fastlr_status);

/* The factor on gradients whose norm, so scaled, is `norm`. */
double fastlr_clip(double scale, double norm, double clip_norm);

/* The same as a table, which the Python module has in the capsule fastlr._core._C_API: no linking needed. */
typedef struct {
    uint32_t abi, size; /* FASTLR_ABI; bytes of the table: look before using what was added later */
    fastlr_status (*describe)(const char *rule, fastlr_dtype, fastlr_description *);
    size_t (*scratch)(const fastlr_call *);
    fastlr_status (*update)(const fastlr_call *, fastlr_found *);
    const char *(*message)(fastlr_status);
    const char *(*rule_name)(int n);
    const char *(*isa_name)(int n);
    bool (*isa_runs)(int n);
    int (*isa)(void);
    void (*use_isa)(int n);
    int (*processors)(void);
    void (*parallel)(size_t count, int threads, fastlr_task, void *ctx);
    int (*schedule)(const fastlr_segment *, size_t n, const double *t, double *out);
} fastlr_api;

#define FASTLR_CAPSULE "fastlr._core._C_API"
const fastlr_api *fastlr_get_api(void);

#ifdef __cplusplus
}
#endif
#ifdef FASTLR_SHARED
#pragma GCC visibility pop
#endif

#endif
