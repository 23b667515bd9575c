/* fastlr: the optimizer step for CPUs, in plain C11.
 *
 * Kernels are stateless and never allocate: the caller owns parameters, gradients, state and the step number.
 * Elementwise results are the same bits for any instruction set, thread count, offset and split of the buffers.
 */
#ifndef FASTLR_H
#define FASTLR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FASTLR_STATES = 3, FASTLR_HYPERS = 4, FASTLR_STEP_SLOTS = 12 };

typedef enum { FASTLR_F32, FASTLR_F64, FASTLR_DTYPES } fastlr_dtype;

/* What the user chose, in double. `rule` holds the rule's own hyper-parameters, in the order of its <rule>_hyper. */
typedef struct {
    double lr;
    double scale; /* g' = scale g: unscaling x clip coefficient x (-1 to maximise) */
    double l2;    /* coupled weight decay: g' += l2 p */
    double decay; /* decoupled weight decay: p -= lr decay p */
    double rule[FASTLR_HYPERS];
} fastlr_hyper;

/* The same for one step, narrowed to the kernel's type: bias corrections applied, ready for the loop. Opaque. */
typedef struct {
    double slot[FASTLR_STEP_SLOTS];
} fastlr_step;

/* One contiguous piece of the model. Buffers that one call touches must not overlap. */
typedef struct {
    size_t n;
    void *p, *g, *s[FASTLR_STATES];
    const fastlr_step *step;
    size_t start; /* elements in the spans before it: fastlr_lay() */
} fastlr_span;

typedef struct {
    const char *name;
    size_t size; /* bytes of an element */
    int states;
    int hypers;
    /* False when a scalar of this step is not finite in the kernel's type; `t` counts from 1. */
    bool (*prepare)(const fastlr_hyper *, int64_t t, fastlr_step *);
    void (*sweep)(size_t n, void *p, void *g, void *s0, void *s1, void *s2, const fastlr_step *, bool zero);
} fastlr_rule;

/* The same over one fixed block; see kernels/reduce.h. */
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

/* The n-th rule, or NULL. */
const char *fastlr_rule_name(int n);

/* The kernel for a rule in the instruction set in use, or NULL. */
const fastlr_rule *fastlr_find(const char *name, fastlr_dtype);

/* ---- run.c: whole steps over many spans, on the pool's threads ---- */

enum { FASTLR_BLOCK = 4096 }; /* elements: the unit of reductions and of work sharing */

/* Lays the spans end to end: sets every `start`. Call it when a span's n has changed. */
void fastlr_lay(fastlr_span *, size_t spans);

/* One step. Nothing is checked here and nothing can fail. */
void fastlr_run(const fastlr_rule *, const fastlr_span *, size_t spans, bool zero, int threads);

/* One read of all gradients. `scratch` has fastlr_blocks(...) entries. */
size_t fastlr_blocks(const fastlr_span *, size_t spans);
fastlr_stats fastlr_measure(fastlr_dtype, const fastlr_span *, size_t spans, fastlr_partial *scratch, int threads);

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

#endif
