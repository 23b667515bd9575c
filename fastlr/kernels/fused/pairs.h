/* The loops of fused.h as compilers vectorise them: elements are taken by twos, as bfloat16 lie in words.
 *
 * State in bfloat16 needs no second loop, nor has one where there are registers for all that a single one holds; with 16 it takes a
 * seventh longer. A single loop asks a slice at a time, since a quantum's lines at once are more than are on their way, and takes a
 * tenth less time in memory; loops of 8 bits gain nothing there, and in slices are a twentieth slower in the cache.
 */
#ifndef FUSED_PAIRS
#define FUSED_PAIRS
#ifndef REGISTERS
#define REGISTERS 16
#endif
/* Whether state in bfloat16 takes one loop; pairs that its loop asks for at once: a line of each state. */
enum { ONCE = REGISTERS > 16, SLICE = ONCE ? 16 : PAIRS };

/* Elements 2j and 2j + 1 of parameters or gradients, float32 or bfloat16; NaN that go to the latter wait for settle(). Macros:
 * clang takes an access to be independent where the loop itself makes it, and not a function. */
#define PAIR(half, x, j)                                                                                               \
    (half ? bf16_pair(((const word *)x)[j]) : (pair){((const float *)x)[2 * (j)], ((const float *)x)[2 * (j) + 1]})

#define PUT_PAIR(half, x, j, y)                                                                                        \
    do {                                                                                                               \
        const pair put = y;                                                                                            \
        if (half)                                                                                                      \
            ((word *)x)[j] = bf16_word_unsettled(put);                                                                 \
        else                                                                                                           \
            ((float *)x)[2 * (j)] = put.a, ((float *)x)[2 * (j) + 1] = put.b;                                          \
    } while (0)

/* What is between the two loops: of each word the first number, the second, and so on. */
typedef struct {
    _Alignas(64) float s0[2][PAIRS], u[2][PAIRS];
} half_way;

typedef struct {
    _Alignas(64) float s0[4][WORDS];
    float s1[4][WORDS], u[4][WORDS];
} byte_way;

#define TWO(x, k, j) ((pair){x[k][j], x[(k) + 1][j]})
#define PUT_TWO(x, k, j, y) (x[k][j] = (y).a, x[(k) + 1][j] = (y).b)
#define PUT_FOUR(x, j, y, z) (PUT_TWO(x, 0, j, y), PUT_TWO(x, 2, j, z))

/* Compilers lose sight of `restrict` in what is inlined, and there are more buffers than they would compare at run time. */
#ifdef __clang__
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

INLINED uint32_t halves_of(pair x, bool unsettled)
{
    return unsettled ? bf16_word_unsettled(x) : bf16_word(x);
}

/* What is made of a pair. */
typedef struct {
    pair s0, s1, u;
} pairs;

INLINED pair moved_pair(pair x, pair u, apply a)
{
    return (pair){moved(x.a, u.a, a), moved(x.b, u.b, a)};
}

INLINED uint32_t larger_of(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* The larger magnitude, as an integer: ordered as the numbers are, and NaN of any sign is more than infinity. A mean of squares,
 * which is never −0, has no sign to take off. */
INLINED uint32_t size_of(pair x, bool square)
{
    const uint32_t kept = square ? ~UINT32_C(0) : MAGNITUDE;
    return larger_of(word_of(x.a) & kept, word_of(x.b) & kept);
}

/* Whether any parameter of a quantum may be NaN: one is where all bits of the exponent are set, which they are in no disjunction of
 * numbers below 2. So others are seldom looked at one by one. */
INLINED bool may_be_nan(bool half, const void *p)
{
    const word *const words = p;
    uint32_t bits = 0;
    for (size_t j = 0; j < (half ? PAIRS : 2 * PAIRS); j++)
        bits |= words[j];
    return (bits & INFINITE) == INFINITE || (half && (bits << 16 & INFINITE) == INFINITE);
}
#endif

INLINED pairs NAME(RULE, make)(pair g, pair x, pair t0, pair t1, apply a, NAME(OF, step) h, const bool once)
{
    (void)t1;
    const out first = OF(seen(g.a, x.a, a), t0.a AND_S1(t1.a), h), second = OF(seen(g.b, x.b, a), t0.b AND_S1(t1.b), h);
    const pair u = once ? (pair){first.u, second.u} : (pair){LEFT(first), LEFT(second)};
    return (pairs){{first.s0, second.s0}, {first.s1, second.s1}, u};
}

INLINED pair NAME(RULE, direction)(pair s0, pair u)
{
    (void)s0;
    return (pair){DIRECTION(s0.a, u.a), DIRECTION(s0.b, u.b)};
}

#define GIVEN(j) PAIR(is.half_g, g, j), (is.plain ? (pair){0, 0} : PAIR(is.half_p, p, j))
#define MOVE(j, u) PUT_PAIR(is.half_p, p, j, moved_pair(PAIR(is.half_p, p, j), u, a))

/* ---- state in bfloat16 ---- */

INLINED void NAME(RULE, make_halves)(kind is, void *restrict p, const void *restrict g, word *restrict codes0,
                                     word *restrict codes1, apply a, NAME(OF, step) h, half_way *restrict m,
                                     fastlr_asking asks)
{
    for (size_t first = 0; first < PAIRS; first += SLICE) {
        if (asks == FASTLR_ASK_ALL) {
            ask_soon(pair_in(is.half_g, g, first), 2 * SLICE, width_of(is.half_g), TO_READ);
            ask_soon(codes0 + first, 2 * SLICE, 2, TO_WRITE);
            WITH_S1(ask_soon(codes1 + first, 2 * SLICE, 2, TO_WRITE));
        }
        if (ONCE && asks >= FASTLR_ASK_LATE)
            ask_soon(pair_in(is.half_p, p, first), 2 * SLICE, width_of(is.half_p), TO_WRITE);
        INDEPENDENT
        for (size_t i = 0; i < SLICE; i++) {
            const size_t j = first + i;
            const pair t0 = bf16_pair(codes0[j]), t1 = bf16_pair(STATES > 1 ? codes1[j] : 0);
            const pairs n = NAME(RULE, make)(GIVEN(j), t0, t1, a, h, ONCE);
            codes0[j] = halves_of(n.s0, settles_late(is));
            WITH_S1(codes1[j] = halves_of(n.s1, settles_late(is)));
            if (ONCE) {
                MOVE(j, n.u);
            } else {
                PUT_TWO(m->u, 0, j, n.u);
                if (DIVIDES)
                    PUT_TWO(m->s0, 0, j, n.s0);
            }
        }
    }
}

INLINED void NAME(RULE, move_halves)(kind is, void *restrict p, apply a, const half_way *restrict m)
{
    INDEPENDENT
    for (size_t j = 0; j < PAIRS; j++) /* !ONCE: for tools/vectorised.py */
        MOVE(j, NAME(RULE, direction)(DIVIDES ? TWO(m->s0, 0, j) : (pair){0, 0}, TWO(m->u, 0, j)));
}

/* A quantum. */
INLINED void NAME(RULE, halves)(kind is, void *p, const void *g, word *codes0, word *codes1, apply a, NAME(OF, step) h,
                                fastlr_asking asks)
{
    half_way m;
    NAME(RULE, make_halves)(is, p, g, codes0, codes1, a, h, &m, asks);
    if (!ONCE) {
        if (asks >= FASTLR_ASK_LATE)
            ask_soon(p, FASTLR_QUANTUM, width_of(is.half_p), TO_WRITE);
        NAME(RULE, move_halves)(is, p, a, &m);
    }
    if (settles_late(is) && may_be_nan(is.half_p, p) && any_nan(is.half_p, p)) {
        if (is.half_p)
            settle(p);
        settle(codes0);
        WITH_S1(settle(codes1));
    }
}

/* n is whole quanta. */
INLINED void NAME(RULE, all_halves)(size_t n, kind is, void *p, const void *g, word *codes0, word *codes1, apply a,
                                    NAME(OF, step) h, fastlr_asking asks)
{
    for (size_t k = 0; k < n / FASTLR_QUANTUM; k++)
        NAME(RULE, halves)(is, pair_in(is.half_p, p, k * PAIRS), pair_in(is.half_g, g, k * PAIRS), codes0 + k * PAIRS,
                           codes1 + k * PAIRS, a, h, asks);
}

/* ---- state in 8 bits ---- */

#define WIDEN(q, w, k, scale) (SQUARES >> q & 1 ? uint8_widen(w, k, scale) : int8_widen(w, k, scale))
#define TWICE(q, w, k, scale) ((pair){WIDEN(q, w, k, scale), WIDEN(q, w, k + 1, scale)})
#define LARGER(q, x, y) larger_of(size_of(x, SQUARES >> q & 1), size_of(y, SQUARES >> q & 1))
#define WORD(q, x, y, fit) (SQUARES >> q & 1 ? uint8_word(x, y, fit) : int8_word(x, y, fit))

/* most[q] becomes the largest of state q, as an integer. */
INLINED void NAME(RULE, make_bytes)(kind is, const void *restrict p, const void *restrict g,
                                    const word *restrict codes0, const word *restrict codes1, float scale0,
                                    float scale1, apply a, NAME(OF, step) h, byte_way *restrict m, uint32_t *most)
{
    uint32_t most0 = 0, most1 = 0;
    (void)codes1, (void)scale1;
    INDEPENDENT
    for (size_t j = 0; j < WORDS; j++) {
        const uint32_t w0 = codes0[j], w1 = STATES > 1 ? codes1[j] : 0;
        const pairs n =
            NAME(RULE, make)(GIVEN(pair_of(j, 0)), TWICE(0, w0, 0, scale0), TWICE(1, w1, 0, scale1), a, h, false);
        const pairs o =
            NAME(RULE, make)(GIVEN(pair_of(j, 2)), TWICE(0, w0, 2, scale0), TWICE(1, w1, 2, scale1), a, h, false);
        PUT_FOUR(m->s0, j, n.s0, o.s0);
        WITH_S1(PUT_FOUR(m->s1, j, n.s1, o.s1));
        PUT_FOUR(m->u, j, n.u, o.u);
        most0 = larger_of(most0, LARGER(0, n.s0, o.s0));
        WITH_S1(most1 = larger_of(most1, LARGER(1, n.s1, o.s1)));
    }
    most[0] = most0, most[1] = most1;
}

INLINED void NAME(RULE, move_bytes)(kind is, void *restrict p, word *restrict codes0, word *restrict codes1, float fit0,
                                    float fit1, apply a, const byte_way *restrict m)
{
    (void)codes1, (void)fit1;
    INDEPENDENT
    for (size_t j = 0; j < WORDS; j++) {
        const pair n = TWO(m->s0, 0, j), o = TWO(m->s0, 2, j);
        MOVE(pair_of(j, 0), NAME(RULE, direction)(n, TWO(m->u, 0, j)));
        MOVE(pair_of(j, 2), NAME(RULE, direction)(o, TWO(m->u, 2, j)));
        codes0[j] = WORD(0, n, o, fit0);
        WITH_S1(codes1[j] = WORD(1, TWO(m->s1, 0, j), TWO(m->s1, 2, j), fit1));
    }
}

/* A quantum. */
INLINED void NAME(RULE, bytes)(kind is, void *p, const void *g, word *codes0, word *codes1, float *scale0,
                               float *scale1, apply a, NAME(OF, step) h, fastlr_asking asks)
{
    byte_way m;
    uint32_t most[2];
    float fit0, fit1 = 0;
    ask_soon(g, FASTLR_QUANTUM, width_of(is.half_g), TO_READ);
    if (asks == FASTLR_ASK_ALL) {
        ask_soon(codes0, FASTLR_QUANTUM, 1, TO_WRITE);
        WITH_S1(ask_soon(codes1, FASTLR_QUANTUM, 1, TO_WRITE));
    }
    NAME(RULE, make_bytes)(is, p, g, codes0, codes1, *scale0, STATES > 1 ? *scale1 : 0, a, h, &m, most);
    *scale0 = scale_of(most[0], TOP(0), &fit0);
    WITH_S1(*scale1 = scale_of(most[1], TOP(1), &fit1));
    ask_soon(p, FASTLR_QUANTUM, width_of(is.half_p), TO_WRITE);
    NAME(RULE, move_bytes)(is, p, codes0, codes1, fit0, fit1, a, &m);
    if (is.half_p && may_be_nan(true, p) && any_nan(true, p))
        settle(p);
    clear_nan(codes0, *scale0);
    WITH_S1(clear_nan(codes1, *scale1));
}

/* n is whole quanta. */
INLINED void NAME(RULE, all_bytes)(size_t n, kind is, void *p, const void *g, word *codes0, word *codes1, float *scale0,
                                   float *scale1, apply a, NAME(OF, step) h, fastlr_asking asks)
{
    for (size_t k = 0; k < n / FASTLR_QUANTUM; k++)
        NAME(RULE, bytes)(is, pair_in(is.half_p, p, k * PAIRS), pair_in(is.half_g, g, k * PAIRS), codes0 + k * WORDS,
                          codes1 + k * WORDS, scale0 + k, scale1 + k, a, h, asks);
}

#undef GIVEN
#undef MOVE
#undef WIDEN
#undef TWICE
#undef LARGER
#undef WORD
