/* The loop every rule runs in.
 *
 * A template: include it after the rule with
 *     RULE      the rule's name; RULE_hyper, RULE_step, RULE_at() and RULE() exist, or those of another rule, named OF
 *     STATES    how many state buffers the rule has, 0 to 5
 * and, where the rule needs it,
 *     SQUARES   which states are never negative, a bit each: stored in 8 bits they have another code (store.h)
 *     PRECISE   which states stay float32 whatever they are asked to be: sums, means of parameters, what is subtracted
 *     FUSED     storage in fewer bits has a loop of its own: fused.h; where a new state is NaN, so is the new parameter
 *     BELOW     beside it: u is the first state over RULE_below(), of the second
 *     STARTS    the first state begins as the parameter is before its first step
 *     ORIGIN    RULE() takes one more state after these, only read: the parameter as it was before its first step
 *     INPUT     RULE() takes one more array after the states, only read: a diagonal of the Hessian
 *     SEES_P    RULE() takes the parameter after the gradient
 *     MOVES_P   and returns the new one: what is below does not apply it
 *     SURVEY    RULE_survey(), with RULE()'s arguments, returns this many terms an element; RULE_at() gets their sums
 *     READS     beside it: how many buffers RULE_survey() looks at, those of gradients and parameters among them
 *     ASKS      RULE_asks(carry) says whether a step needs the survey; without it every one does
 *     TRAIL     RULE() returns this many terms too; their sums go to RULE_after(), when the step is made
 *     CARRY     how many numbers are kept from step to step
 *     SCOPE     what sums go over and who keeps the numbers: FASTLR_TENSOR, FASTLR_GROUP or FASTLR_MODEL
 *     CAUTIOUS  u is 0 where it points up the gradient, and what is left larger by as much: Liang et al. (2024), a tensor each;
 *               HEADING is what of RULE()'s result has the sign of u: u itself, unless something is less to read; READS too
 *     BLIND     RULE() does not look at the gradient
 *     KEEPS     RULE() returns the last so many states as they were
 * It defines RULE_rule, the rule's entry in the table, and undefines all parameters.
 *
 * The rule turns the gradient into a direction u; applying it is the same for all:
 *
 *     g' = scale g (+ l2 p)        u, state' = rule(g', state)        p ← p − (rate u + decay p)
 *
 * decay is η λ, not 1 − η λ: narrowed to float32, 1 − 1e-8 would be 1, and the decay lost even where the rest of the
 * step moves p. The guards keep an infinite parameter from becoming NaN through 0 · ∞.
 */
#ifndef OF
#define OF RULE
#endif
#ifdef CAUTIOUS
#define SURVEY 1
#define SCOPE FASTLR_TENSOR
#ifndef HEADING
#define HEADING u
#endif
#ifndef READS
#define READS 2 /* the gradient and a mean of it */
#endif
#endif
#ifndef SQUARES
#define SQUARES 0
#endif
#ifndef PRECISE
#define PRECISE 0
#endif
#ifndef SURVEY
#define SURVEY 0
#endif
#if SURVEY == 0
#define READS 0
#endif
#ifdef BLIND
#define SEES_G 0
#else
#define SEES_G 1
#endif
#ifndef KEEPS
#define KEEPS 0
#endif
#ifndef TRAIL
#define TRAIL 0
#endif
#ifndef CARRY
#define CARRY 0
#endif
#ifndef SCOPE
#define SCOPE FASTLR_ALONE
#endif
#ifdef MOVES_P
#define SEES_P
#endif

/* The arguments of RULE() and RULE_survey() for element i. */
#ifdef SEES_P
#define P x,
#else
#define P
#endif
#ifdef STARTS
#define S0 (fresh ? x : s0[i]),
#define STARTED 1
#elif STATES > 0
#define S0 s0[i],
#define STARTED 0
#else
#define S0
#define STARTED 0
#endif
#if STATES > 1
#define S1 s1[i],
#else
#define S1
#endif
#if STATES > 2
#define S2 s2[i],
#else
#define S2
#endif
#if STATES > 3
#define S3 s3[i],
#else
#define S3
#endif
#if STATES > 4
#define S4 s4[i],
#else
#define S4
#endif
#ifdef ORIGIN
#define FROM (fresh ? x : origin[i]),
#define ORIGINS 1
#else
#define FROM
#define ORIGINS 0
#endif
#ifdef INPUT
#define IN input[i],
#define INPUTS 1
#else
#define IN
#define INPUTS 0
#endif
#define ARGUMENTS d, P S0 S1 S2 S3 S4 FROM IN h

typedef struct {
    apply a;
    NAME(OF, step) h;
    bool fresh; /* whether it is the parameter's first step */
    fastlr_asking asks;
} NAME(RULE, block);

static bool NAME(RULE, prepare)(const fastlr_hyper *o, int64_t t, const fastlr_sums *sums, double *carry,
                                fastlr_step *step)
{
    _Static_assert(sizeof(NAME(RULE, block)) <= sizeof *step, "FASTLR_STEP_SLOTS");
    _Static_assert(sizeof(NAME(OF, hyper)) <= sizeof o->rule, "FASTLR_HYPERS");
    _Static_assert(STATES + ORIGINS + INPUTS <= FASTLR_STATES && SURVEY <= FASTLR_SUMS && TRAIL <= FASTLR_SUMS &&
                       CARRY <= FASTLR_CARRY,
                   "limits of fastlr.h");
    /* A scale that is NaN was meant: clipping by the norm of gradients that hold one. So was what is not finite in a sum, or
     * in what is carried. */
    bool meant = false;
    for (int k = 0; k < CARRY; k++)
        meant |= !isfinite(carry[k]);
    pace x = {o->lr, o->lr * o->decay, carry, sums};
    const NAME(OF, step) h = NAME(OF, at)((const NAME(OF, hyper) *)o->rule, t, &x);
#ifdef CAUTIOUS
    if (sums)
        x.rate /= share(sums->sum[0], sums->n);
#endif
    const apply a = {(real)o->scale, (real)o->l2, (real)x.rate, (real)x.decay};
    *(NAME(RULE, block) *)step = (NAME(RULE, block)){a, h, t == 1, fastlr_asks()};
    for (int k = 0; sums && k < SURVEY; k++)
        meant |= !isfinite(sums->sum[k]);
    return (is_finite(a.scale) || o->scale != o->scale) && is_finite(a.l2) &&
           ((is_finite(a.rate) && is_finite(a.decay)) || meant);
}

/* `zero` and `fresh` are constants where this is inlined, so each of the loops below is free of them. */
INLINED out NAME(RULE, element)(size_t i, real *p, real *g, real *s0, real *s1, real *s2, real *s3, real *s4,
                                real *origin, const real *input, apply a, NAME(OF, step) h, const bool zero,
                                const bool fresh)
{
    (void)s0, (void)s1, (void)s2, (void)s3, (void)s4, (void)origin, (void)input, (void)fresh;
    const real x = p[i], d = seen(g[i], x, a);
    out o = OF(ARGUMENTS);
#ifdef CAUTIOUS
    o.u = agree(o.HEADING, d) ? o.u : o.u - o.u; /* 0, but NaN stays */
#endif
#if STATES > 0
    s0[i] = o.s0;
#endif
#if STATES > 1
    s1[i] = o.s1;
#endif
#if STATES > 2
    s2[i] = o.s2;
#endif
#if STATES > 3
    s3[i] = o.s3;
#endif
#if STATES > 4
    s4[i] = o.s4;
#endif
#ifdef ORIGIN
    if (fresh)
        origin[i] = x;
#endif
#ifdef MOVES_P
    p[i] = o.p;
#else
    p[i] = moved(x, o.u, a);
#endif
    if (zero)
        g[i] = 0;
    return o;
}

/* Asks for what comes LATER than element i, so many bytes of each buffer, or of none. */
INLINED void NAME(RULE, ahead)(size_t i, size_t bytes, const real *p, const real *g, const real *s0, const real *s1,
                               const real *s2, const real *s3, const real *s4, const real *origin, const real *input,
                               bool zero, bool all)
{
    const real *const states[] = {s0, s1, s2, s3, s4};
    if (!all)
        return;
    ask(p + i, LATER, bytes, TO_WRITE);
    if (SEES_G)
        ask(g + i, LATER, bytes, zero ? TO_WRITE : TO_READ);
    for (int j = 0; j < STATES; j++)
        ask(states[j] + i, LATER, bytes, TO_READ);
    if (ORIGINS)
        ask(origin + i, LATER, bytes, TO_READ);
    if (INPUTS)
        ask(input + i, LATER, bytes, TO_READ);
}

INLINED void NAME(RULE, loop)(size_t n, real *restrict p, real *restrict g, real *restrict s0, real *restrict s1,
                              real *restrict s2, real *restrict s3, real *restrict s4, real *restrict origin,
                              const real *restrict input, apply a, NAME(OF, step) h, const bool zero, const bool fresh,
                              bool all, size_t k, fastlr_lanes *lanes)
{
#define ASK(i, bytes) NAME(RULE, ahead)(i, bytes, p, g, s0, s1, s2, s3, s4, origin, input, zero, all)
#if TRAIL > 0
#define TERMS NAME(RULE, element)(i, p, g, s0, s1, s2, s3, s4, origin, input, a, h, zero, fresh).sums
    OVER_LANES(TRAIL)
#undef TERMS
#else
    (void)k, (void)lanes;
    size_t first = 0; /* strides have their own loop: how long they are is a constant there */
    for (; n - first >= STRIDE; first += STRIDE) {
        ASK(first, STRIDE * sizeof(real));
        for (size_t j = 0; j < STRIDE; j++)
            NAME(RULE, element)(first + j, p, g, s0, s1, s2, s3, s4, origin, input, a, h, zero, fresh);
    }
    for (size_t i = first; i < n; i++)
        NAME(RULE, element)(i, p, g, s0, s1, s2, s3, s4, origin, input, a, h, zero, fresh);
#endif
#undef ASK
}

#define STATE(s, k) (STATES > k ? s[k] : NULL)
#define POINTERS(s)                                                                                                    \
    STATE(s, 0), STATE(s, 1), STATE(s, 2), STATE(s, 3), STATE(s, 4), (ORIGINS ? s[STATES * ORIGINS] : NULL),           \
        (INPUTS ? s[(STATES + ORIGINS) * INPUTS] : NULL)

static void NAME(RULE, sweep)(size_t n, void *p, void *g, void *const *s, const fastlr_step *step, bool zero, size_t k,
                              fastlr_lanes *lanes)
{
    const NAME(RULE, block) b = *(const NAME(RULE, block) *)step;
#define LOOP(zero, fresh)                                                                                              \
    NAME(RULE, loop)(n, p, g, POINTERS(s), b.a, b.h, zero, fresh, b.asks == FASTLR_ASK_ALL, k, lanes)
    if ((ORIGINS || STARTED) && b.fresh && zero)
        LOOP(true, true);
    else if ((ORIGINS || STARTED) && b.fresh)
        LOOP(false, true);
    else if (zero)
        LOOP(true, false);
    else
        LOOP(false, false);
#undef LOOP
}

#if SURVEY > 0
INLINED sums NAME(RULE, look)(size_t i, const real *p, const real *g, const real *s0, const real *s1, const real *s2,
                              const real *s3, const real *s4, const real *origin, const real *input, apply a,
                              NAME(OF, step) h, bool fresh)
{
    (void)s0, (void)s1, (void)s2, (void)s3, (void)s4, (void)origin, (void)input, (void)fresh;
    const real x = p[i], d = seen(g[i], x, a);
#ifdef CAUTIOUS
    return (sums){.t0 = agree(OF(ARGUMENTS).HEADING, d) ? 1 : 0};
#else
    return NAME(OF, survey)(ARGUMENTS);
#endif
}

INLINED void NAME(RULE, tally)(size_t n, const real *p, const real *g, const real *s0, const real *s1, const real *s2,
                               const real *s3, const real *s4, const real *origin, const real *input, apply a,
                               NAME(OF, step) h, bool fresh, size_t k, fastlr_lanes *lanes)
{
#define TERMS NAME(RULE, look)(i, p, g, s0, s1, s2, s3, s4, origin, input, a, h, fresh)
#define ASK(i, bytes) /* what is only read the processor fetches early enough by itself, and is slowed by being asked */
    OVER_LANES(SURVEY)
#undef ASK
#undef TERMS
}

static void NAME(RULE, measure)(size_t n, const void *p, const void *g, void *const *s, const fastlr_step *step,
                                size_t k, fastlr_lanes *lanes)
{
    const NAME(RULE, block) b = *(const NAME(RULE, block) *)step;
    NAME(RULE, tally)(n, p, g, POINTERS(s), b.a, b.h, b.fresh, k, lanes);
}
#endif

#if TRAIL > 0
static void NAME(RULE, close)(const fastlr_hyper *o, int64_t t, const fastlr_sums *sums, double *carry)
{
    pace x = {o->lr, o->lr * o->decay, carry, sums};
    NAME(OF, after)((const NAME(OF, hyper) *)o->rule, t, &x);
}
#endif

#if defined(FUSED) && defined(FLOATS)
#include "fused.h"
#endif

static const fastlr_rule NAME(RULE, rule) = {
    .name = TEXT(RULE),
    .size = sizeof(real),
    .states = STATES + ORIGINS,
    .inputs = INPUTS,
    .squares = SQUARES,
    .precise = PRECISE | ORIGINS << STATES,
    .hypers = sizeof(NAME(OF, hyper)) / sizeof(double),
    .carry = CARRY,
    .passes = SEES_G + (READS > 0),
    .accesses = 2 + SEES_G + 2 * STATES - KEEPS + ORIGINS + INPUTS + READS,
    .scope = SCOPE,
    .prepare = NAME(RULE, prepare),
    .sweep = NAME(RULE, sweep),
#if SURVEY > 0
    .survey = NAME(RULE, measure),
#endif
#if defined(FUSED) && defined(FLOATS)
    .fused = NAME(RULE, fused),
#endif
#ifdef ASKS
    .asks = NAME(OF, asks),
#endif
#if TRAIL > 0
    .close = NAME(RULE, close),
#endif
};

#undef RULE
#undef OF
#undef STATES
#undef SQUARES
#undef FUSED
#undef BELOW
#undef PRECISE
#undef STARTS
#undef STARTED
#undef ORIGIN
#undef ORIGINS
#undef INPUT
#undef INPUTS
#undef SEES_P
#undef MOVES_P
#undef SURVEY
#undef READS
#undef BLIND
#undef SEES_G
#undef KEEPS
#undef ASKS
#undef TRAIL
#undef CARRY
#undef SCOPE
#undef CAUTIOUS
#undef HEADING
#undef P
#undef S0
#undef S1
#undef S2
#undef S3
#undef S4
#undef FROM
#undef IN
#undef ARGUMENTS
#undef STATE
#undef POINTERS
