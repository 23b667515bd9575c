/* The loops of a rule with its storage inlined: for the rules that most models are trained with, and the storages that save
 * most. A template, included by sweep.h where FUSED is defined, for rules of one or two states and float32 arithmetic.
 *
 * stored.c does the same for any rule and storage, a tile at a time, and gives the same bits; but there arithmetic and memory
 * take turns, and here they overlap (python -m bench.storage). Elements are taken by twos, as bfloat16 lie in words.
 *
 * State in bfloat16 takes one loop. State in 8 bits takes two, a quantum at a time, because its scale is known when the largest
 * of the new state is: the first makes the new state and the direction, and leaves them in float32 in the nearest cache; the
 * second moves the parameters and narrows the state. So roots and divisions have nothing wait for them but a store.
 */
#ifndef NARROW_ACCESS
#define NARROW_ACCESS
enum { PAIRS = FASTLR_QUANTUM / 2 };

/* Elements 2j and 2j + 1 of parameters or gradients, float32 or bfloat16. */
INLINED pair pair_at(bool half, const void *x, size_t j)
{
    return half ? bf16_pair(((const word *)x)[j]) : (pair){((const float *)x)[2 * j], ((const float *)x)[2 * j + 1]};
}

INLINED void put_pair(bool half, void *x, size_t j, pair y)
{
    if (half) {
        ((word *)x)[j] = bf16_word(y);
    } else {
        ((float *)x)[2 * j] = y.a;
        ((float *)x)[2 * j + 1] = y.b;
    }
}

INLINED pair moved_pair(pair x, pair u, apply a)
{
    return (pair){moved(x.a, u.a, a), moved(x.b, u.b, a)};
}

/* Compilers lose sight of `restrict` in what is inlined, and there are more buffers than they would compare at run time. */
#ifdef __clang__
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

/* What the first of two loops makes of a quantum: of each the first elements of all pairs, and then the second. */
typedef struct {
    _Alignas(64) float s0[2][PAIRS];
    float s1[2][PAIRS], u[2][PAIRS];
} midway;

/* The same of one pair. */
typedef struct {
    pair s0, s1, u;
} pairs;

/* Magnitudes, as integers: ordered as the numbers are. */
typedef struct {
    uint32_t s0, s1;
} sizes;

/* Asks for quantum k + 4 of a buffer with so many bytes in each. */
INLINED void ask_for(const void *buffer, size_t k, size_t bytes, fastlr_use use)
{
    ask((const char *)buffer + k * bytes, (ptrdiff_t)(4 * bytes), bytes, use);
}

INLINED uint32_t larger_of(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* The larger magnitude, as an integer. A mean of squares, which is never −0, has no sign to take off; NaN of any sign is more
 * than infinity. */
INLINED uint32_t size_of(pair x, bool square)
{
    const uint32_t kept = square ? ~UINT32_C(0) : MAGNITUDE;
    return larger_of(word_of(x.a) & kept, word_of(x.b) & kept);
}
#endif

/* What only rules of two states have: a further argument, a statement. */
#if STATES > 1
#define AND_S1(x) , x
#define WITH_S1(x) x
#else
#define AND_S1(x)
#define WITH_S1(x) ((void)0)
#endif

INLINED pairs NAME(RULE, of_pair)(pair d, pair x, pair t0, pair t1, apply a, NAME(OF, step) h)
{
    (void)t1;
    const out first = OF(seen(d.a, x.a, a), t0.a AND_S1(t1.a), h), second = OF(seen(d.b, x.b, a), t0.b AND_S1(t1.b), h);
    return (pairs){{first.s0, second.s0}, {first.s1, second.s1}, {first.u, second.u}};
}

/* ---- state in bfloat16 ---- */

INLINED void NAME(RULE, halves)(bool half_p, void *restrict p, bool half_g, const void *restrict g,
                                word *restrict codes0, word *restrict codes1, apply a, NAME(OF, step) h)
{
    INDEPENDENT
    for (size_t j = 0; j < PAIRS; j++) {
        const pair d = pair_at(half_g, g, j), x = pair_at(half_p, p, j);
        const pair t0 = bf16_pair(codes0[j]), t1 = bf16_pair(STATES > 1 ? codes1[j] : 0);
        const pairs n = NAME(RULE, of_pair)(d, x, t0, t1, a, h);
        put_pair(half_p, p, j, moved_pair(x, n.u, a));
        codes0[j] = bf16_word(n.s0);
        WITH_S1(codes1[j] = bf16_word(n.s1));
    }
}

/* ---- state in 8 bits ---- */

#define WIDEN(q, w, k, scale) (SQUARES >> q & 1 ? uint8_widen(w, k, scale) : int8_widen(w, k, scale))
#define TWICE(q, w, k, scale) ((pair){WIDEN(q, w, k, scale), WIDEN(q, w, k + 1, scale)})
#define TOP(q) (SQUARES >> q & 1 ? UINT8_TOP : INT8_TOP)
#define NARROW(q, x, factor, k) (SQUARES >> q & 1 ? uint8_narrow(x, factor, k) : int8_narrow(x, factor, k))
#define BYTE(q, m, factor, j, k) NARROW(q, m->s##q[k % 2][pair_of(j, k)], factor, k)
#define WORD(q, m, factor, j)                                                                                          \
    (BYTE(q, m, factor, j, 0) | BYTE(q, m, factor, j, 1) | BYTE(q, m, factor, j, 2) | BYTE(q, m, factor, j, 3))

/* Makes pair j, and returns the larger magnitudes of its new states as integers. */
INLINED sizes NAME(RULE, make)(size_t j, bool half_p, const void *p, bool half_g, const void *g, pair t0, pair t1,
                               apply a, NAME(OF, step) h, midway *m)
{
    const pair x = a.l2 != 0 ? pair_at(half_p, p, j) : (pair){0, 0};
    const pairs n = NAME(RULE, of_pair)(pair_at(half_g, g, j), x, t0, t1, a, h);
    m->s0[0][j] = n.s0.a, m->s0[1][j] = n.s0.b;
    WITH_S1((m->s1[0][j] = n.s1.a, m->s1[1][j] = n.s1.b));
    m->u[0][j] = n.u.a, m->u[1][j] = n.u.b;
    return (sizes){size_of(n.s0, SQUARES & 1), size_of(n.s1, SQUARES >> 1 & 1)};
}

INLINED void NAME(RULE, move)(size_t j, bool half_p, void *p, const midway *m, apply a)
{
    put_pair(half_p, p, j, moved_pair(pair_at(half_p, p, j), (pair){m->u[0][j], m->u[1][j]}, a));
}

INLINED void NAME(RULE, bytes)(bool half_p, void *restrict p, bool half_g, const void *restrict g,
                               word *restrict codes0, word *restrict codes1, float *restrict scale0,
                               float *restrict scale1, apply a, NAME(OF, step) h, midway *m)
{
    const float c0 = *scale0, c1 = STATES > 1 ? *scale1 : 0;
    float f0, f1 = 0; /* the factors that narrow the new states */
    uint32_t most0 = 0, most1 = 0;
    (void)c1;
    INDEPENDENT
    for (size_t j = 0; j < WORDS; j++) {
        const uint32_t w0 = codes0[j], w1 = STATES > 1 ? codes1[j] : 0;
        const sizes x =
            NAME(RULE, make)(pair_of(j, 0), half_p, p, half_g, g, TWICE(0, w0, 0, c0), TWICE(1, w1, 0, c1), a, h, m);
        const sizes y =
            NAME(RULE, make)(pair_of(j, 2), half_p, p, half_g, g, TWICE(0, w0, 2, c0), TWICE(1, w1, 2, c1), a, h, m);
        most0 = larger_of(most0, larger_of(x.s0, y.s0));
        most1 = larger_of(most1, larger_of(x.s1, y.s1));
    }
    *scale0 = scale_of(most0, TOP(0), &f0);
    WITH_S1(*scale1 = scale_of(most1, TOP(1), &f1));
    (void)f1;
    INDEPENDENT
    for (size_t j = 0; j < WORDS; j++) {
        NAME(RULE, move)(pair_of(j, 0), half_p, p, m, a);
        NAME(RULE, move)(pair_of(j, 2), half_p, p, m, a);
        codes0[j] = WORD(0, m, f0, j);
        WITH_S1(codes1[j] = WORD(1, m, f1, j));
    }
}

/* ---- one quantum after another ---- */

/* Asks for quantum k + 4 of every buffer, or at most of the parameter; of a state it has so many bytes. */
INLINED void NAME(RULE, soon)(size_t k, bool half_p, const void *p, bool half_g, const void *g, size_t bytes,
                              const word *s0, const word *s1, bool scaled, bool all)
{
    if (scaled || all)
        ask_for(p, k, PAIRS * (half_p ? 4 : 8), TO_WRITE);
    if (!all)
        return;
    ask_for(g, k, PAIRS * (half_g ? 4 : 8), TO_READ);
    ask_for(s0, k, bytes, TO_WRITE);
    if (STATES > 1)
        ask_for(s1, k, bytes, TO_WRITE);
}

/* n is whole quanta. */
INLINED void NAME(RULE, run)(size_t n, bool half_p, void *p, bool half_g, const void *g, void *const *s,
                             void *const *scale, apply a, NAME(OF, step) h, bool all)
{
    const size_t bytes = scale ? FASTLR_QUANTUM : 2 * FASTLR_QUANTUM;
    midway m;
    for (size_t k = 0; k < n / FASTLR_QUANTUM; k++) {
        NAME(RULE, soon)(k, half_p, p, half_g, g, bytes, s[0], s[1], scale, all);
        void *const x = (char *)p + k * FASTLR_QUANTUM * (half_p ? 2 : 4);
        const void *const d = (const char *)g + k * FASTLR_QUANTUM * (half_g ? 2 : 4);
        word *const codes0 = (word *)((char *)s[0] + k * bytes);
        word *const codes1 = STATES > 1 ? (word *)((char *)s[1] + k * bytes) : NULL;
        if (scale)
            NAME(RULE, bytes)(half_p, x, half_g, d, codes0, codes1, (float *)scale[0] + k,
                              STATES > 1 ? (float *)scale[1] + k : NULL, a, h, &m);
        else
            NAME(RULE, halves)(half_p, x, half_g, d, codes0, codes1, a, h);
    }
}

static void NAME(RULE, fused)(size_t n, bool half_p, void *p, bool half_g, const void *g, void *const *s,
                              void *const *scale, const fastlr_step *step)
{
    const NAME(RULE, block) b = *(const NAME(RULE, block) *)step;
    apply plain = b.a;
    plain.l2 = 0; /* a constant: most have none, and loops bound by arithmetic gain a tenth */
#define FUSE(half_p, half_g)                                                                                           \
    do {                                                                                                               \
        if (b.a.l2 != 0)                                                                                               \
            NAME(RULE, run)(n, half_p, p, half_g, g, s, scale, b.a, b.h, b.all);                                       \
        else                                                                                                           \
            NAME(RULE, run)(n, half_p, p, half_g, g, s, scale, plain, b.h, b.all);                                     \
    } while (0)
    if (half_p)
        FUSE(true, true); /* narrower parameters than gradients go by stored.c */
    else if (half_g)
        FUSE(false, true);
    else
        FUSE(false, false);
}

#undef FUSE
#undef WIDEN
#undef TWICE
#undef TOP
#undef NARROW
#undef BYTE
#undef WORD
#undef AND_S1
#undef WITH_S1
