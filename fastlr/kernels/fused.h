/* The loop of a rule with its storage inlined: for the rules that most models are trained with, and the storages that save
 * most. A template, included by sweep.h where FUSED is defined, for rules of one or two states and float32 arithmetic.
 *
 * stored.c does the same for any rule and storage, a tile at a time, and gives the same bits; but there arithmetic and memory
 * take turns, and here they overlap (python -m bench.storage). Elements are taken by twos, as bfloat16 lie in words.
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

/* Compilers lose sight of `restrict` in what is inlined, and there are more buffers than they would compare at run time. */
#ifdef __clang__
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

/* What the codes of a quantum become: byte k of word j at [k][j]; and how and where they go when they are narrowed. */
typedef struct {
    _Alignas(64) float x[4][WORDS];
    float factor;
    word *codes;
} held;

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

/* sweep.h's element, on copies of its numbers. Returns the new parameter. */
INLINED float NAME(RULE, step_of)(float x, float d, float *s0, float *s1, apply a, NAME(OF, step) h)
{
    NAME(RULE, element)(0, &x, &d, s0, s1, NULL, NULL, NULL, NULL, NULL, a, h, false, false);
    return x;
}

/* Asks for quantum k + 4 of every buffer, or of the parameter alone; of a state it has so many bytes. */
INLINED void NAME(RULE, soon)(size_t k, bool half_p, const void *p, bool half_g, const void *g, size_t bytes,
                              const word *s0, const word *s1, bool all)
{
    ask_for(p, k, PAIRS * (half_p ? 4 : 8), TO_WRITE);
    if (!all)
        return;
    ask_for(g, k, PAIRS * (half_g ? 4 : 8), TO_READ);
    ask_for(s0, k, bytes, TO_WRITE);
    if (STATES > 1)
        ask_for(s1, k, bytes, TO_WRITE);
}

/* State in bfloat16; n is even. */
INLINED void NAME(RULE, halves)(size_t n, bool half_p, void *restrict p, bool half_g, const void *restrict g,
                                word *restrict s0, word *restrict s1, apply a, NAME(OF, step) h, bool all)
{
    for (size_t k = 0, end; k * PAIRS < n / 2; k++) {
        end = n / 2 - k * PAIRS < PAIRS ? n / 2 : (k + 1) * PAIRS;
        NAME(RULE, soon)(k, half_p, p, half_g, g, PAIRS * 4, s0, s1, all);
        for (size_t j = k * PAIRS; j < end; j++) {
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
}

#define WIDEN(q, w, k, scale) (SQUARES >> q & 1 ? uint8_widen(w, k, scale) : int8_widen(w, k, scale))
#define TOP(q) (SQUARES >> q & 1 ? UINT8_TOP : INT8_TOP)
#define PUT(q, x, factor, k) (SQUARES >> q & 1 ? uint8_narrow(x, factor, k) : int8_narrow(x, factor, k))

/* Bytes k and k + 1 of word j. */
INLINED void NAME(RULE, two)(size_t j, int k, bool half_p, void *restrict p, bool half_g, const void *restrict g,
                             uint32_t w0, uint32_t w1, float c0, float c1, apply a, NAME(OF, step) h, float n0[][WORDS],
                             float n1[][WORDS], uint32_t *size0, uint32_t *size1)
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
    *size0 = size_of(t0, SQUARES & 1);
    if (STATES > 1) {
        n1[k][j] = t1.a, n1[k + 1][j] = t1.b;
        *size1 = size_of(t1, SQUARES >> 1 & 1);
    }
}

#define WORD(q, s, j, factor)                                                                                          \
    (PUT(q, s[0][j], factor, 0) | PUT(q, s[1][j], factor, 1) | PUT(q, s[2][j], factor, 2) | PUT(q, s[3][j], factor, 3))

/* State in 8 bits, one quantum: its new state is narrowed when the largest of it is known, in the loop of the next one. So
 * the ports narrow while the divider divides. */
INLINED void NAME(RULE, quantum)(bool half_p, void *restrict p, bool half_g, const void *restrict g,
                                 const word *restrict s0, const word *restrict s1, float *restrict scale0,
                                 float *restrict scale1, apply a, NAME(OF, step) h, held *restrict n,
                                 const held *restrict last, word *restrict codes0, word *restrict codes1)
{
    const float c0 = *scale0, c1 = STATES > 1 ? *scale1 : 0, f0 = last[0].factor, f1 = last[1].factor;
    uint32_t most0 = 0, most1 = 0;
    INDEPENDENT
    for (size_t j = 0; j < WORDS; j++) {
        const uint32_t w0 = s0[j], w1 = STATES > 1 ? s1[j] : 0;
        uint32_t a0, a1 = 0, b0, b1 = 0; /* the largest magnitudes of either half, as integers */
        NAME(RULE, two)(j, 0, half_p, p, half_g, g, w0, w1, c0, c1, a, h, n[0].x, n[1].x, &a0, &a1);
        NAME(RULE, two)(j, 2, half_p, p, half_g, g, w0, w1, c0, c1, a, h, n[0].x, n[1].x, &b0, &b1);
        most0 = larger_of(most0, larger_of(a0, b0));
        most1 = larger_of(most1, larger_of(a1, b1));
        codes0[j] = WORD(0, last[0].x, j, f0);
        if (STATES > 1)
            codes1[j] = WORD(1, last[1].x, j, f1);
    }
    *scale0 = scale_of(most0, TOP(0), &n[0].factor);
    if (STATES > 1)
        *scale1 = scale_of(most1, TOP(1), &n[1].factor);
}

/* State in 8 bits; n is whole quanta. What the first one finds to narrow goes nowhere. */
INLINED void NAME(RULE, quanta)(size_t n, bool half_p, void *p, bool half_g, const void *g, word *s0, word *s1,
                                float *scale0, float *scale1, apply a, NAME(OF, step) h, bool all)
{
    held of[2][2];
    word nowhere[2][WORDS];
    memset(of[1], 0, sizeof of[1]);
    of[1][0].codes = nowhere[0];
    of[1][1].codes = nowhere[1];
    for (size_t k = 0; k < n / FASTLR_QUANTUM; k++) {
        const size_t i = k * FASTLR_QUANTUM;
        held *const now = of[k % 2];
        NAME(RULE, soon)(k, half_p, p, half_g, g, FASTLR_QUANTUM, s0, s1, all);
        now[0].codes = s0 + k * WORDS;
        now[1].codes = STATES > 1 ? s1 + k * WORDS : NULL;
        NAME(RULE, quantum)(half_p, (char *)p + i * (half_p ? 2 : 4), half_g, (const char *)g + i * (half_g ? 2 : 4),
                            now[0].codes, now[1].codes, scale0 + k, STATES > 1 ? scale1 + k : NULL, a, h, now,
                            of[(k + 1) % 2], of[(k + 1) % 2][0].codes, of[(k + 1) % 2][1].codes);
    }
    const held *const last = of[(n / FASTLR_QUANTUM + 1) % 2];
    for (size_t j = 0; j < WORDS; j++) {
        last[0].codes[j] = WORD(0, last[0].x, j, last[0].factor);
        if (STATES > 1)
            last[1].codes[j] = WORD(1, last[1].x, j, last[1].factor);
    }
}

INLINED void NAME(RULE, run)(size_t n, bool half_p, void *p, bool half_g, const void *g, void *const *s,
                             void *const *scale, apply a, NAME(OF, step) h, bool all)
{
    if (!scale)
        NAME(RULE, halves)(n, half_p, p, half_g, g, s[0], STATES > 1 ? s[1] : NULL, a, h, all);
    else
        NAME(RULE, quanta)(n, half_p, p, half_g, g, s[0], STATES > 1 ? s[1] : NULL, scale[0],
                           STATES > 1 ? scale[1] : NULL, a, h, all);
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
#undef TOP
#undef PUT
#undef WORD
