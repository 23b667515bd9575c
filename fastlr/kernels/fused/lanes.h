/* The loops of fused.h by lanes: state is widened and narrowed by vectors.h, and in between is the rule as it is written, in a loop
 * over the lanes.
 *
 * A turn of the first loop makes the new state of some elements; what is left to do, moving the parameters and narrowing the state,
 * is a second loop, or with AVX-512 the rest of the turn. For that there must be registers: with 16 of them one loop takes a sixth
 * longer than two, with 32 two take up to a tenth longer than one. One loop makes codes of 8 bits a quantum later, when their scale is
 * known: the next quantum's arithmetic goes on beside.
 *
 * Numbers are narrowed as if none were NaN: these are looked for at the end of a quantum, in the parameters.
 */
#ifndef FUSED_LANES
#define FUSED_LANES
#include VECTORS

/* Without the second, gcc may make of a vector of lanes so many numbers before it looks for loops to vectorise. */
#define BY_LANE _Pragma("GCC ivdep") _Pragma("GCC unroll 1")

/* What are taken at a time: so many pairs of elements. Whether there is one loop. */
enum { DUO = LANE_COUNT, ONCE = LANE_COUNT > 8 };

/* What is made of a quantum and needed later, DUO after DUO. */
typedef struct {
    _Alignas(64) float s0[FASTLR_QUANTUM], s1[FASTLR_QUANTUM], u[FASTLR_QUANTUM];
} between;

/* What is made of lanes, and of twice as many elements. */
typedef struct {
    lanes s0, s1, u;
} some_made;

typedef struct {
    duo s0, s1, u;
} made;

/* Of a quantum: the largest magnitudes of its states, as integers; bits that its new parameters have among them. */
typedef struct {
    integers most0, most1, bits;
} gathered;

/* State that has yet to be narrowed to codes of 8 bits: that of a quantum, or where there is one loop, of the one before; to which
 * codes, and what it is multiplied by for them. At first that is nothing, and goes where none looks. */
typedef struct {
    between m[2];
    bool newest; /* of these */
    word none[WORDS], *codes0, *codes1;
    float fit0, fit1;
} waiting;

/* Parameters or gradients from pair j on. */
INLINED duo duo_get(kind is, bool half, const void *x, size_t j)
{
    const void *const first = pair_in(half, x, j);
    return half ? bf16_get(is.half_p, first) : f32_get(first);
}

/* Ask for what comes SOON of parameters or gradients: for bfloat16 a quantum at once, before a loop; for float32, which is twice as
 * many lines, what a turn of the first loop goes over, with that turn and in order. On Zen 3 a quantum of float32 at once fills the
 * queue of what is on its way, and took up to a tenth longer; and so did bfloat16 with each turn. */
INLINED void ask_before(bool half, const void *x, fastlr_use use)
{
    if (half)
        ask_soon(x, FASTLR_QUANTUM, width_of(half), use);
}

INLINED void ask_with(bool half, const void *x, size_t j, size_t pairs, fastlr_use use)
{
    if (!half)
        ask_soon(pair_in(half, x, j), 2 * pairs, width_of(half), use);
}

/* The larger magnitudes, as integers; those of NaN are missed where bits of the parameters tell of them. A mean of squares, which is
 * never −0, has no sign to take off. */
INLINED integers peak(kind is, integers most, duo x, bool square)
{
    const integers larger =
        square ? V(max_epu32)(lane_bits(x.a), lane_bits(x.b)) : larger_magnitudes(!is.half_p, x.a, x.b);
    return V(max_epu32)(most, larger);
}

/* Of a step with decay, and of one without: the compiler then leaves out the question that moved() asks for every lane. */
INLINED apply decaying(apply a)
{
    if (a.decay == 0)
        __builtin_unreachable();
    return a;
}

INLINED apply without_decay(apply a)
{
    a.decay = 0;
    return a;
}

/* bf16_put() of a quantum in order, where any may be NaN. A function of its own, since it is seldom called. */
static __attribute__((noinline)) void put_settled(word *codes, const float *x)
{
    uint16_t each[FASTLR_QUANTUM];
    for (size_t i = 0; i < FASTLR_QUANTUM; i++)
        each[i] = (uint16_t)bf16_narrow(x[i]);
    memcpy(codes, each, sizeof each);
}
#endif

/* ---- a vector of elements ---- */

INLINED some_made NAME(RULE, make_lanes)(bool plain, lanes g, lanes x, lanes t0, lanes t1, apply a, NAME(OF, step) h)
{
    some_made y;
    (void)t1;
    BY_LANE
    for (int k = 0; k < LANE_COUNT; k++) {
        const out o = OF(seen(g.x[k], plain ? 0 : x.x[k], a), t0.x[k] AND_S1(t1.x[k]), h);
        y.s0.x[k] = o.s0;
        WITH_S1(y.s1.x[k] = o.s1);
        y.u.x[k] = LEFT(o);
    }
    return y;
}

INLINED lanes NAME(RULE, move_lanes)(lanes x, lanes s0, lanes u, apply a)
{
    lanes y;
    (void)s0;
    BY_LANE
    for (int k = 0; k < LANE_COUNT; k++)
        y.x[k] = moved(x.x[k], DIRECTION(s0.x[k], u.x[k]), a);
    return y;
}

/* ---- twice as many ---- */

INLINED made NAME(RULE, make_duo)(kind is, const void *restrict p, const void *restrict g, size_t j, duo t0, duo t1,
                                  apply a, NAME(OF, step) h)
{
    const duo d = duo_get(is, is.half_g, g, j), x = is.plain ? d : duo_get(is, is.half_p, p, j);
    const some_made y = NAME(RULE, make_lanes)(is.plain, d.a, x.a, t0.a, t1.a, a, h);
    const some_made z = NAME(RULE, make_lanes)(is.plain, d.b, x.b, t0.b, t1.b, a, h);
    return (made){{y.s0, z.s0}, {y.s1, z.s1}, {y.u, z.u}};
}

/* Returns bits that the new parameters have among them. */
INLINED integers NAME(RULE, move_duo)(kind is, void *restrict p, size_t j, made n, apply a)
{
    const duo x = duo_get(is, is.half_p, p, j);
    const duo y = {NAME(RULE, move_lanes)(x.a, n.s0.a, n.u.a, a), NAME(RULE, move_lanes)(x.b, n.s0.b, n.u.b, a)};
    if (is.half_p)
        bf16_put(true, pair_in(true, p, j), y);
    else
        f32_put(pair_in(false, p, j), y);
    return either(lane_bits(y.a), lane_bits(y.b));
}

/* Keeps what was made of pairs j on, all of it or the state alone; and has it back. */
INLINED void NAME(RULE, keep)(between *restrict m, size_t j, made n, bool all)
{
    f32_put(m->s0 + 2 * j, n.s0);
    WITH_S1(f32_put(m->s1 + 2 * j, n.s1));
    if (all)
        f32_put(m->u + 2 * j, n.u);
}

INLINED made NAME(RULE, kept)(const between *restrict m, size_t j)
{
    const duo s0 = f32_get(m->s0 + 2 * j), s1 = STATES > 1 ? f32_get(m->s1 + 2 * j) : s0;
    return (made){s0, s1, f32_get(m->u + 2 * j)};
}

/* ---- a quantum whose state is in bfloat16 ---- */

/* With a turn of the first loop. A single one asks for all that it asks for in this way, as those of pairs.h do. */
INLINED void NAME(RULE, ask_halves)(kind is, const void *p, const void *g, size_t j, const word *codes0,
                                    const word *codes1, fastlr_asking asks)
{
    (void)codes1;
    if (!ONCE) {
        ask_with(is.half_g, g, j, DUO, TO_READ);
        ask_with(is.half_p, p, j, DUO, TO_WRITE);
        return;
    }
    if (asks == FASTLR_ASK_ALL) {
        ask_soon(pair_in(is.half_g, g, j), 2 * DUO, width_of(is.half_g), TO_READ);
        ask_soon(codes0 + j, 2 * DUO, 2, TO_WRITE);
        WITH_S1(ask_soon(codes1 + j, 2 * DUO, 2, TO_WRITE));
    }
    if (asks >= FASTLR_ASK_LATE)
        ask_soon(pair_in(is.half_p, p, j), 2 * DUO, width_of(is.half_p), TO_WRITE);
}

/* A loop that makes the new state, does the rest, or both. */
INLINED gathered NAME(RULE, loop_halves)(bool make, bool rest, kind is, void *restrict p, const void *restrict g,
                                         word *restrict codes0, word *restrict codes1, apply a, NAME(OF, step) h,
                                         fastlr_asking asks, between *restrict m)
{
    gathered o = {0};
    for (size_t j = 0; j < PAIRS; j += DUO) {
        made n;
        if (make) {
            const duo t0 = bf16_get(is.half_p, codes0 + j), t1 = STATES > 1 ? bf16_get(is.half_p, codes1 + j) : t0;
            n = NAME(RULE, make_duo)(is, p, g, j, t0, t1, a, h);
            if (!rest || !settles_late(is))
                NAME(RULE, keep)(m, j, n, !rest);
            NAME(RULE, ask_halves)(is, p, g, j, codes0, codes1, asks);
        }
        if (rest) {
            if (!make)
                n = NAME(RULE, kept)(m, j);
            o.bits = either(o.bits, NAME(RULE, move_duo)(is, p, j, n, a));
            bf16_put(is.half_p, codes0 + j, n.s0);
            WITH_S1(bf16_put(is.half_p, codes1 + j, n.s1));
        }
    }
    return o;
}

INLINED gathered NAME(RULE, halves)(kind is, void *p, const void *g, word *codes0, word *codes1, apply a,
                                    NAME(OF, step) h, fastlr_asking asks, between *m)
{
    if (!ONCE) {
        if (asks == FASTLR_ASK_ALL) {
            ask_before(is.half_g, g, TO_READ);
            ask_soon(codes0, FASTLR_QUANTUM, 2, TO_WRITE);
            WITH_S1(ask_soon(codes1, FASTLR_QUANTUM, 2, TO_WRITE));
        }
        NAME(RULE, loop_halves)(true, false, is, p, g, codes0, codes1, a, h, asks, m);
        ask_before(is.half_p, p, TO_WRITE);
    }
    if (a.decay != 0)
        return NAME(RULE, loop_halves)(ONCE, true, is, p, g, codes0, codes1, decaying(a), h, asks, m);
    return NAME(RULE, loop_halves)(ONCE, true, is, p, g, codes0, codes1, without_decay(a), h, asks, m);
}

/* Of a quantum that may hold NaN. */
INLINED void NAME(RULE, settle_halves)(kind is, void *p, word *codes0, word *codes1, const between *m)
{
    (void)codes1;
    if (!any_nan(is.half_p, p))
        return;
    if (is.half_p)
        settle(p);
    if (settles_late(is)) {
        settle(codes0);
        WITH_S1(settle(codes1));
    } else { /* by words are bfloat16 parameters alone, which settle late */
        put_settled(codes0, m->s0);
        WITH_S1(put_settled(codes1, m->s1));
    }
}

/* n is whole quanta. */
INLINED void NAME(RULE, all_halves)(size_t n, kind is, void *p, const void *g, word *codes0, word *codes1, apply a,
                                    NAME(OF, step) h, fastlr_asking asks)
{
    between m;
    for (size_t k = 0; k < n / FASTLR_QUANTUM;) {
        size_t first;
        integers bits;
        do { /* without calls, after which what is in registers would have to be loaded again */
            first = k * PAIRS;
            bits = NAME(RULE, halves)(is, pair_in(is.half_p, p, first), pair_in(is.half_g, g, first), codes0 + first,
                                      codes1 + first, a, h, asks, &m)
                       .bits;
        } while (++k < n / FASTLR_QUANTUM && !may_be_nan(bits));
        if (may_be_nan(bits))
            NAME(RULE, settle_halves)(is, pair_in(is.half_p, p, first), codes0 + first, codes1 + first, &m);
    }
}

/* ---- a quantum whose state is in 8 bits ---- */

#define GET(q, codes, scale) (SQUARES >> q & 1 ? uint8_get(is.half_p, codes, scale) : int8_get(is.half_p, codes, scale))
#define PUT(q, codes, x, fit)                                                                                          \
    (SQUARES >> q & 1 ? uint8_put(is.half_p, codes, x, fit) : int8_put(is.half_p, codes, x, fit))
#define QUAD(x, j) ((quad){f32_get((x) + 2 * (j)), f32_get((x) + 2 * (WORDS + (j)))})

/* Keeps the state that was made of pairs j on, and adds it to the largest. */
INLINED gathered NAME(RULE, keep_bytes)(kind is, between *restrict m, size_t j, made n, bool all, gathered o)
{
    NAME(RULE, keep)(m, j, n, all);
    o.most0 = peak(is, o.most0, n.s0, SQUARES & 1);
    WITH_S1(o.most1 = peak(is, o.most1, n.s1, SQUARES & 2));
    return o;
}

/* With a turn of the first loop. A single one asks in this way for all but bfloat16 parameters: a fiftieth off on Zen 4. */
INLINED void NAME(RULE, ask_bytes)(kind is, const void *p, const void *g, size_t j, const word *codes0,
                                   const word *codes1)
{
    (void)codes1;
    if (!is.half_g || ONCE)
        ask_soon(pair_in(is.half_g, g, 2 * j), 4 * DUO, width_of(is.half_g), TO_READ);
    ask_with(is.half_p, p, 2 * j, 2 * DUO, TO_WRITE);
    if (ONCE && is.half_p) {
        ask_soon(codes0 + j, 4 * DUO, 1, TO_WRITE);
        WITH_S1(ask_soon(codes1 + j, 4 * DUO, 1, TO_WRITE));
    }
}

/* A loop that makes the new state, does the rest, or both; the codes are of what waits. */
INLINED gathered NAME(RULE, loop_bytes)(bool make, bool rest, kind is, void *restrict p, const void *restrict g,
                                        const word *restrict codes0, const word *restrict codes1, float scale0,
                                        float scale1, apply a, NAME(OF, step) h, waiting *w, gathered o)
{
    between *const restrict m = w->m + w->newest;
    const between *const restrict old = w->m + (w->newest != ONCE);
    word *const restrict old0 = w->codes0, *const restrict old1 = w->codes1;
    const float fit0 = w->fit0, fit1 = w->fit1;
    (void)scale1, (void)old1, (void)fit1;
    for (size_t j = 0; j < WORDS; j += DUO) {
        quad t0 = {0}, t1 = {0};
        if (make) {
            t0 = GET(0, codes0 + j, scale0);
            WITH_S1(t1 = GET(1, codes1 + j, scale1));
        }
        const made x = make ? NAME(RULE, make_duo)(is, p, g, j, t0.low, t1.low, a, h) : NAME(RULE, kept)(m, j);
        if (rest) { /* codes go between: quotients wait for their roots meanwhile */
            WITH_S1(PUT(1, old1 + j, QUAD(old->s1, j), fit1));
            o.bits = either(o.bits, NAME(RULE, move_duo)(is, p, j, x, a));
        }
        const size_t i = WORDS + j;
        const made y = make ? NAME(RULE, make_duo)(is, p, g, i, t0.high, t1.high, a, h) : NAME(RULE, kept)(m, i);
        if (rest) {
            PUT(0, old0 + j, QUAD(old->s0, j), fit0);
            o.bits = either(o.bits, NAME(RULE, move_duo)(is, p, i, y, a));
        }
        if (make) {
            o = NAME(RULE, keep_bytes)(is, m, j, x, !rest, o);
            o = NAME(RULE, keep_bytes)(is, m, i, y, !rest, o);
            NAME(RULE, ask_bytes)(is, p, g, j, codes0, codes1);
        }
    }
    return o;
}

/* Has the newest wait, and makes its scale. */
INLINED void NAME(RULE, wait)(waiting *w, word *codes0, word *codes1, float *scale0, float *scale1, gathered o)
{
    (void)scale1;
    w->codes0 = codes0, w->codes1 = codes1;
    *scale0 = scale_of(largest_bits(o.most0), TOP(0), &w->fit0);
    WITH_S1(*scale1 = scale_of(largest_bits(o.most1), TOP(1), &w->fit1));
}

/* Returns bits that the new parameters have among them. */
INLINED integers NAME(RULE, bytes)(kind is, void *p, const void *g, word *codes0, word *codes1, float *scale0,
                                   float *scale1, apply a, NAME(OF, step) h, fastlr_asking asks, waiting *w)
{
    const float by0 = *scale0, by1 = STATES > 1 ? *scale1 : 0;
    gathered o = {0};
    if (asks == FASTLR_ASK_ALL && !(ONCE && is.half_p)) {
        ask_soon(codes0, FASTLR_QUANTUM, 1, TO_WRITE);
        WITH_S1(ask_soon(codes1, FASTLR_QUANTUM, 1, TO_WRITE));
    }
    if (!ONCE) {
        ask_before(is.half_g, g, TO_READ);
        o = NAME(RULE, loop_bytes)(true, false, is, p, g, codes0, codes1, by0, by1, a, h, w, o);
        NAME(RULE, wait)(w, codes0, codes1, scale0, scale1, o);
    }
    ask_before(is.half_p, p, TO_WRITE);
    if (a.decay != 0)
        o = NAME(RULE, loop_bytes)(ONCE, true, is, p, g, codes0, codes1, by0, by1, decaying(a), h, w, o);
    else
        o = NAME(RULE, loop_bytes)(ONCE, true, is, p, g, codes0, codes1, by0, by1, without_decay(a), h, w, o);
    if (ONCE) {
        NAME(RULE, wait)(w, codes0, codes1, scale0, scale1, o);
        w->newest = !w->newest;
    }
    return o.bits;
}

/* Of a quantum that holds NaN, whose parameters are bfloat16. If its codes wait, its scale may be a number: see peak(). */
INLINED void NAME(RULE, settle_bytes)(word *p, float *scale0, float *scale1, waiting *w)
{
    const between *const m = w->m + !w->newest;
    (void)scale0, (void)scale1, (void)m;
    settle(p);
    if (ONCE && !(SQUARES & 1))
        *scale0 = scale_of(largest_of(FASTLR_QUANTUM, m->s0), TOP(0), &w->fit0);
    if (ONCE && STATES > 1 && !(SQUARES & 2))
        *scale1 = scale_of(largest_of(FASTLR_QUANTUM, m->s1), TOP(1), &w->fit1);
}

/* n is whole quanta. */
INLINED void NAME(RULE, all_bytes)(size_t n, kind is, void *p, const void *g, word *codes0, word *codes1, float *scale0,
                                   float *scale1, apply a, NAME(OF, step) h, fastlr_asking asks)
{
    waiting w;
    if (ONCE)
        memset(w.m, 0, sizeof w.m);
    w.newest = false, w.codes0 = w.codes1 = w.none, w.fit0 = w.fit1 = 0;
    for (size_t k = 0; k < n / FASTLR_QUANTUM;) {
        void *x;
        integers bits;
        do { /* as in all_halves() */
            x = pair_in(is.half_p, p, k * PAIRS);
            bits = NAME(RULE, bytes)(is, x, pair_in(is.half_g, g, k * PAIRS), codes0 + k * WORDS, codes1 + k * WORDS,
                                     scale0 + k, scale1 + k, a, h, asks, &w);
        } while (++k < n / FASTLR_QUANTUM && !(is.half_p && may_be_nan(bits)));
        if (is.half_p && may_be_nan(bits) && any_nan(true, x))
            NAME(RULE, settle_bytes)(x, scale0 + k - 1, scale1 + k - 1, &w);
    }
    if (ONCE)
        for (size_t j = 0; j < WORDS; j += DUO) {
            PUT(0, w.codes0 + j, QUAD(w.m[!w.newest].s0, j), w.fit0);
            WITH_S1(PUT(1, w.codes1 + j, QUAD(w.m[!w.newest].s1, j), w.fit1));
        }
    for (size_t k = 0; k < n / FASTLR_QUANTUM; k++) {
        clear_nan(codes0 + k * WORDS, scale0[k]);
        WITH_S1(clear_nan(codes1 + k * WORDS, scale1[k]));
    }
}

#undef GET
#undef PUT
#undef QUAD
