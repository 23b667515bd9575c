/* The loops of fused.h with AVX2, by lanes: state is widened and narrowed by avx2.h, and in between is the rule as it is written,
 * in a loop over the lanes.
 *
 * The first loop leaves the new state in float32 and no code: so NaN of any kind are looked for at the end of a quantum, in the
 * parameters. Codes of 8 bits have a third loop, and the second goes on while their scale is made.
 */
#ifndef FUSED_LANES
#define FUSED_LANES
#include "avx2.h"

/* Without the second, gcc may make of eight lanes eight numbers before it looks for loops to vectorise. */
#define BY_LANE _Pragma("GCC ivdep") _Pragma("GCC unroll 1")

/* What are taken at a time: so many pairs of elements. */
enum { DUO = LANE_COUNT };

/* What is between the loops of a quantum, DUO after DUO. */
typedef struct {
    _Alignas(64) float s0[FASTLR_QUANTUM], s1[FASTLR_QUANTUM], u[FASTLR_QUANTUM];
} between;

/* What is made of lanes; the largest magnitudes of states, as integers. */
typedef struct {
    lanes s0, s1, u;
} made;

typedef struct {
    __m256i s0, s1;
} peaks;

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

/* The larger magnitudes. A mean of squares, which is never −0, has no sign to take off. */
INLINED __m256i peak(__m256i most, lanes x, lanes y, bool square)
{
    const __m256i kept = _mm256_set1_epi32(square ? -1 : MAGNITUDE), a = _mm256_and_si256(lane_bits(x), kept),
                  b = _mm256_and_si256(lane_bits(y), kept);
    return _mm256_max_epu32(most, _mm256_max_epu32(a, b));
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

/* bf16_put() of a quantum, where any may be NaN. A function of its own, since it is seldom called. */
static __attribute__((noinline)) void put_settled(bool by_words, word *codes, const float *x)
{
    uint16_t each[FASTLR_QUANTUM];
    for (size_t i = 0; i < FASTLR_QUANTUM; i++) {
        const size_t k = i % (2 * DUO);
        each[by_words ? i - k + 2 * (k % DUO) + k / DUO : i] = (uint16_t)bf16_narrow(x[i]);
    }
    memcpy(codes, each, sizeof each);
}

/* Whether any of the numbers with these bits among them may be NaN: then all bits of the exponent are set, which they are in no
 * disjunction of numbers below 2. So parameters are seldom looked at one by one. */
INLINED bool may_be_nan(__m256i bits)
{
    const __m256i infinite = _mm256_set1_epi32(INFINITE);
    return _mm256_movemask_epi8(_mm256_cmpeq_epi32(_mm256_and_si256(bits, infinite), infinite));
}
#endif

/* ---- eight elements ---- */

INLINED made NAME(RULE, make_lanes)(bool plain, lanes g, lanes x, lanes t0, lanes t1, apply a, NAME(OF, step) h)
{
    made y;
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

/* ---- sixteen ---- */

INLINED peaks NAME(RULE, make_duo)(kind is, const void *restrict p, const void *restrict g, size_t j, duo t0, duo t1,
                                   apply a, NAME(OF, step) h, between *restrict m, peaks most)
{
    const duo d = duo_get(is, is.half_g, g, j), x = is.plain ? d : duo_get(is, is.half_p, p, j);
    const made y = NAME(RULE, make_lanes)(is.plain, d.a, x.a, t0.a, t1.a, a, h);
    const made z = NAME(RULE, make_lanes)(is.plain, d.b, x.b, t0.b, t1.b, a, h);
    f32_put(m->s0 + 2 * j, (duo){y.s0, z.s0});
    WITH_S1(f32_put(m->s1 + 2 * j, (duo){y.s1, z.s1}));
    f32_put(m->u + 2 * j, (duo){y.u, z.u});
    most.s0 = peak(most.s0, y.s0, z.s0, SQUARES & 1);
    WITH_S1(most.s1 = peak(most.s1, y.s1, z.s1, SQUARES & 2));
    return most;
}

/* Returns bits that the new parameters have among them. */
INLINED __m256i NAME(RULE, move_duo)(kind is, void *restrict p, size_t j, apply a, const between *restrict m)
{
    const duo x = duo_get(is, is.half_p, p, j), s0 = f32_get(m->s0 + 2 * j), u = f32_get(m->u + 2 * j);
    const duo y = {NAME(RULE, move_lanes)(x.a, s0.a, u.a, a), NAME(RULE, move_lanes)(x.b, s0.b, u.b, a)};
    if (is.half_p)
        bf16_put(true, pair_in(true, p, j), y);
    else
        f32_put(pair_in(false, p, j), y);
    return _mm256_or_si256(lane_bits(y.a), lane_bits(y.b));
}

/* ---- a quantum ---- */

/* Return bits that the new parameters have among them. */
INLINED __m256i NAME(RULE, move_halves)(kind is, void *restrict p, word *restrict codes0, word *restrict codes1,
                                        apply a, const between *restrict m)
{
    __m256i bits = _mm256_setzero_si256();
    (void)codes1;
    for (size_t j = 0; j < PAIRS; j += DUO) {
        bits = _mm256_or_si256(bits, NAME(RULE, move_duo)(is, p, j, a, m));
        bf16_put(is.half_p, codes0 + j, f32_get(m->s0 + 2 * j));
        WITH_S1(bf16_put(is.half_p, codes1 + j, f32_get(m->s1 + 2 * j)));
    }
    return bits;
}

INLINED __m256i NAME(RULE, move_bytes)(kind is, void *restrict p, apply a, const between *restrict m)
{
    __m256i bits = _mm256_setzero_si256();
    for (size_t j = 0; j < PAIRS; j += DUO)
        bits = _mm256_or_si256(bits, NAME(RULE, move_duo)(is, p, j, a, m));
    return bits;
}

INLINED void NAME(RULE, halves)(kind is, void *p, const void *g, word *codes0, word *codes1, apply a, NAME(OF, step) h,
                                fastlr_asking asks)
{
    between m;
    peaks most = {0};
    if (asks == FASTLR_ASK_ALL) {
        ask_before(is.half_g, g, TO_READ);
        ask_soon(codes0, FASTLR_QUANTUM, 2, TO_WRITE);
        WITH_S1(ask_soon(codes1, FASTLR_QUANTUM, 2, TO_WRITE));
    }
    for (size_t j = 0; j < PAIRS; j += DUO) {
        const duo t0 = bf16_get(is.half_p, codes0 + j), t1 = STATES > 1 ? bf16_get(is.half_p, codes1 + j) : t0;
        most = NAME(RULE, make_duo)(is, p, g, j, t0, t1, a, h, &m, most);
        ask_with(is.half_g, g, j, DUO, TO_READ);
        ask_with(is.half_p, p, j, DUO, TO_WRITE);
    }
    ask_before(is.half_p, p, TO_WRITE);
    const __m256i bits = a.decay != 0 ? NAME(RULE, move_halves)(is, p, codes0, codes1, decaying(a), &m)
                                      : NAME(RULE, move_halves)(is, p, codes0, codes1, without_decay(a), &m);
    if (may_be_nan(bits) && any_nan(is.half_p, p)) {
        if (is.half_p)
            settle(p);
        put_settled(is.half_p, codes0, m.s0);
        WITH_S1(put_settled(is.half_p, codes1, m.s1));
    }
}

#define GET(q, codes, scale) (SQUARES >> q & 1 ? uint8_get(is.half_p, codes, scale) : int8_get(is.half_p, codes, scale))
#define PUT(q, codes, x, fit)                                                                                          \
    (SQUARES >> q & 1 ? uint8_put(is.half_p, codes, x, fit) : int8_put(is.half_p, codes, x, fit))

INLINED void NAME(RULE, bytes)(kind is, void *p, const void *g, word *codes0, word *codes1, float *scale0,
                               float *scale1, apply a, NAME(OF, step) h, fastlr_asking asks)
{
    between m;
    peaks most = {0};
    float fit0, fit1 = 0;
    (void)fit1;
    ask_before(is.half_g, g, TO_READ);
    if (asks == FASTLR_ASK_ALL) {
        ask_soon(codes0, FASTLR_QUANTUM, 1, TO_WRITE);
        WITH_S1(ask_soon(codes1, FASTLR_QUANTUM, 1, TO_WRITE));
    }
    for (size_t j = 0; j < WORDS; j += DUO) {
        const quad t0 = GET(0, codes0 + j, *scale0), t1 = STATES > 1 ? GET(1, codes1 + j, *scale1) : t0;
        most = NAME(RULE, make_duo)(is, p, g, j, t0.low, t1.low, a, h, &m, most);
        most = NAME(RULE, make_duo)(is, p, g, WORDS + j, t0.high, t1.high, a, h, &m, most);
        ask_with(is.half_g, g, 2 * j, 2 * DUO, TO_READ);
        ask_with(is.half_p, p, 2 * j, 2 * DUO, TO_WRITE);
    }
    *scale0 = scale_of(largest_bits(most.s0), TOP(0), &fit0);
    WITH_S1(*scale1 = scale_of(largest_bits(most.s1), TOP(1), &fit1));
    ask_before(is.half_p, p, TO_WRITE);
    const __m256i bits = a.decay != 0 ? NAME(RULE, move_bytes)(is, p, decaying(a), &m)
                                      : NAME(RULE, move_bytes)(is, p, without_decay(a), &m);
    for (size_t j = 0; j < WORDS; j += DUO) {
        PUT(0, codes0 + j, ((quad){f32_get(m.s0 + 2 * j), f32_get(m.s0 + 2 * (WORDS + j))}), fit0);
        WITH_S1(PUT(1, codes1 + j, ((quad){f32_get(m.s1 + 2 * j), f32_get(m.s1 + 2 * (WORDS + j))}), fit1));
    }
    if (is.half_p && may_be_nan(bits) && any_nan(true, p))
        settle(p);
    clear_nan(codes0, *scale0);
    WITH_S1(clear_nan(codes1, *scale1));
}

#undef GET
#undef PUT
