/* The loop of a rule with its storage inlined: for the rules that most models are trained with, and the storages that save
 * most. A template, included by sweep.h where FUSED is defined, for rules of one or two states and float32 arithmetic.
 *
 * stored.c does the same for any rule and storage, a tile at a time, and gives the same bits; but there arithmetic and memory
 * take turns, and here they overlap (python -m bench.storage). Elements are taken by twos, as bfloat16 lie in words.
 */

/* Elements 2j and 2j + 1 of parameters or gradients, float32 or bfloat16. */
#ifndef NARROW_ACCESS
#define NARROW_ACCESS
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

typedef float blocks[4][WORDS]; /* what the codes of a quantum become: byte k of word j at [k][j] */

INLINED uint32_t larger_of(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

INLINED uint32_t size_of(pair x)
{
    return larger_of(word_of(x.a) & MAGNITUDE, word_of(x.b) & MAGNITUDE);
}
#endif

/* sweep.h's element, on copies of its numbers. Returns the new parameter. */
INLINED float NAME(RULE, step_of)(float x, float d, float *s0, float *s1, apply a, NAME(OF, step) h)
{
    NAME(RULE, element)(0, &x, &d, s0, s1, NULL, NULL, NULL, NULL, NULL, a, h, false, false);
    return x;
}

/* State in bfloat16; n is even. */
INLINED void NAME(RULE, halves)(size_t n, bool half_p, void *restrict p, bool half_g, const void *restrict g,
                                word *restrict s0, word *restrict s1, apply a, NAME(OF, step) h)
{
    for (size_t j = 0; j < n / 2; j++) {
        const pair d = pair_at(half_g, g, j);
        pair x = pair_at(half_p, p, j), t0 = bf16_pair(s0[j]), t1 = bf16_pair(STATES > 1 ? s1[j] : 0);
        x.a = NAME(RULE, step_of)(x.a, d.a, &t0.a, &t1.a, a, h);
        x.b = NAME(RULE, step_of)(x.b, d.b, &t0.b, &t1.b, a, h);
        put_pair(half_p, p, j, x);
        s0[j] = bf16_word(t0);
        if (STATES > 1)
            s1[j] = bf16_word(t1);
    }
}

#define WIDEN(q, w, k, scale) (SQUARES >> q & 1 ? uint8_widen(w, k, scale) : int8_widen(w, k, scale))
#define TOP(q) (SQUARES >> q & 1 ? UINT8_TOP : INT8_TOP)
#define PUT(q, x, factor) (SQUARES >> q & 1 ? uint8_narrow(x, factor) : int8_narrow(x, factor))

/* Bytes k and k + 1 of word j. */
INLINED void NAME(RULE, two)(size_t j, int k, bool half_p, void *restrict p, bool half_g, const void *restrict g,
                             uint32_t w0, uint32_t w1, float c0, float c1, apply a, NAME(OF, step) h, blocks n0,
                             blocks n1, uint32_t *size0, uint32_t *size1)
{
    const size_t at = pair_of(j, k);
    const pair d = pair_at(half_g, g, at);
    pair x = pair_at(half_p, p, at), t0 = {WIDEN(0, w0, k, c0), WIDEN(0, w0, k + 1, c0)}, t1 = {0, 0};
    if (STATES > 1)
        t1 = (pair){WIDEN(1, w1, k, c1), WIDEN(1, w1, k + 1, c1)};
    x.a = NAME(RULE, step_of)(x.a, d.a, &t0.a, &t1.a, a, h);
    x.b = NAME(RULE, step_of)(x.b, d.b, &t0.b, &t1.b, a, h);
    put_pair(half_p, p, at, x);
    n0[k][j] = t0.a, n0[k + 1][j] = t0.b;
    *size0 = size_of(t0);
    if (STATES > 1) {
        n1[k][j] = t1.a, n1[k + 1][j] = t1.b;
        *size1 = size_of(t1);
    }
}

#define WORD(q, s, j, factor)                                                                                          \
    (PUT(q, s[0][j], factor) | PUT(q, s[1][j], factor) << 8 | PUT(q, s[2][j], factor) << 16 |                          \
     PUT(q, s[3][j], factor) << 24)

/* State in 8 bits, one quantum: the new state is narrowed when the largest of it is known. */
INLINED void NAME(RULE, quantum)(bool half_p, void *restrict p, bool half_g, const void *restrict g, word *restrict s0,
                                 word *restrict s1, float *restrict scale0, float *restrict scale1, apply a,
                                 NAME(OF, step) h)
{
    _Alignas(64) blocks n0, n1;
    const float c0 = *scale0, c1 = STATES > 1 ? *scale1 : 0;
    uint32_t most0 = 0, most1 = 0;
    for (size_t j = 0; j < WORDS; j++) {
        const uint32_t w0 = s0[j], w1 = STATES > 1 ? s1[j] : 0;
        uint32_t a0, a1 = 0, b0, b1 = 0; /* the largest magnitudes of either half, as integers */
        NAME(RULE, two)(j, 0, half_p, p, half_g, g, w0, w1, c0, c1, a, h, n0, n1, &a0, &a1);
        NAME(RULE, two)(j, 2, half_p, p, half_g, g, w0, w1, c0, c1, a, h, n0, n1, &b0, &b1);
        most0 = larger_of(most0, larger_of(a0, b0));
        most1 = larger_of(most1, larger_of(a1, b1));
    }
    float f0, f1 = 0;
    *scale0 = scale_of(most0, TOP(0), &f0);
    if (STATES > 1)
        *scale1 = scale_of(most1, TOP(1), &f1);
    for (size_t j = 0; j < WORDS; j++) {
        s0[j] = WORD(0, n0, j, f0);
        if (STATES > 1)
            s1[j] = WORD(1, n1, j, f1);
    }
}

INLINED void NAME(RULE, run)(size_t n, bool half_p, void *p, bool half_g, const void *g, void *const *s,
                             void *const *scale, apply a, NAME(OF, step) h)
{
    if (!scale)
        NAME(RULE, halves)(n, half_p, p, half_g, g, s[0], STATES > 1 ? s[1] : NULL, a, h);
    for (size_t k = 0; scale && k < n / FASTLR_QUANTUM; k++) {
        const size_t i = k * FASTLR_QUANTUM;
        NAME(RULE, quantum)(half_p, (char *)p + i * (half_p ? 2 : 4), half_g, (const char *)g + i * (half_g ? 2 : 4),
                            (word *)s[0] + i / 4, STATES > 1 ? (word *)s[1] + i / 4 : NULL, (float *)scale[0] + k,
                            STATES > 1 ? (float *)scale[1] + k : NULL, a, h);
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
            NAME(RULE, run)(n, half_p, p, half_g, g, s, scale, b.a, b.h);                                              \
        else                                                                                                           \
            NAME(RULE, run)(n, half_p, p, half_g, g, s, scale, plain, b.h);                                            \
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
#undef TOP
#undef PUT
#undef WORD
