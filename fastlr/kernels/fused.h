/* The loop of a rule with its storage inlined: for the rules that most models are trained with, and the storages that save
 * most. A template, included by sweep.h where FUSED is defined, for rules of one or two states and float32 arithmetic.
 *
 * stored.c does the same for any rule and storage, a tile at a time, and gives the same bits; but there arithmetic and memory
 * take turns, and here they overlap (python -m bench.storage). Elements are taken by twos, as bfloat16 lie in words.
 *
 * A quantum is gone over twice. First its new state is made, in float32. Then, in the loop that makes the state of the next one,
 * it moves the parameters and is narrowed; by then the largest of it is known, which gives the scale. In one go every element
 * would wait for its own root and division, and a processor keeps too few operations in flight to fill that time; so it has
 * those of two elements that do not wait for each other.
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

/* Where a quantum lies. Loops are given the members one by one: as far as a compiler knows, what they write could be a place. */
typedef struct {
    void *p;
    word *codes0, *codes1;
} place;

/* A quantum between the two: the new states, of each the first elements of all pairs and then the second; the factors that narrow
 * them to 8 bits; and where they go. */
typedef struct {
    _Alignas(64) float x[2][2][PAIRS];
    float factor[2];
    place at;
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

/* What only rules of two states have: a further argument, a statement. */
#if STATES > 1
#define AND_S1(x) , x
#define WITH_S1(x) x
#else
#define AND_S1(x)
#define WITH_S1(x) ((void)0)
#endif

/* ---- of a pair: first the new state, later the parameters ---- */

/* The new state of pair j. */
INLINED void NAME(RULE, begin)(size_t j, bool half_p, void *p, bool half_g, const void *g, pair t0, pair t1, apply a,
                               NAME(OF, step) h, held *n)
{
    const pair d = pair_at(half_g, g, j);
    pair x = {0, 0};
    (void)t1;
#ifdef DIRECTION
    if (a.l2 != 0)
#endif
        x = pair_at(half_p, p, j);
    const out first = OF(seen(d.a, x.a, a), t0.a AND_S1(t1.a), h), second = OF(seen(d.b, x.b, a), t0.b AND_S1(t1.b), h);
#ifndef DIRECTION
    put_pair(half_p, p, j, (pair){moved(x.a, first.u, a), moved(x.b, second.u, a)});
#endif
    n->x[0][0][j] = first.s0, n->x[0][1][j] = second.s0;
    WITH_S1((n->x[1][0][j] = first.s1, n->x[1][1][j] = second.s1));
}

/* Its new parameters, where begin() has not made them. */
INLINED void NAME(RULE, move)(size_t j, bool half_p, void *p, const held *n, apply a, NAME(OF, step) h)
{
#ifdef DIRECTION
    const float first = NAME(OF, direction)(n->x[0][0][j] AND_S1(n->x[1][0][j]), h);
    const float second = NAME(OF, direction)(n->x[0][1][j] AND_S1(n->x[1][1][j]), h);
    const pair x = pair_at(half_p, p, j);
    put_pair(half_p, p, j, (pair){moved(x.a, first, a), moved(x.b, second, a)});
#else
    (void)j, (void)half_p, (void)p, (void)n, (void)a, (void)h;
#endif
}

/* ---- state in bfloat16 ---- */

INLINED void NAME(RULE, end_halves)(size_t j, bool half_p, void *p, word *codes0, word *codes1, const held *n, apply a,
                                    NAME(OF, step) h)
{
    NAME(RULE, move)(j, half_p, p, n, a, h);
    codes0[j] = bf16_word((pair){n->x[0][0][j], n->x[0][1][j]});
    (void)codes1;
    WITH_S1((codes1[j] = bf16_word((pair){n->x[1][0][j], n->x[1][1][j]})));
}

/* Begins a quantum and ends the last one, which lies at lp, l0 and l1. */
INLINED void NAME(RULE, halves)(bool half_p, void *restrict p, bool half_g, const void *restrict g,
                                const word *restrict codes0, const word *restrict codes1, apply a, NAME(OF, step) h,
                                held *n, const held *last, void *restrict lp, word *restrict l0, word *restrict l1)
{
    INDEPENDENT
    for (size_t j = 0; j < PAIRS; j++) {
        const pair t0 = bf16_pair(codes0[j]), t1 = bf16_pair(STATES > 1 ? codes1[j] : 0);
        NAME(RULE, begin)(j, half_p, p, half_g, g, t0, t1, a, h, n);
        NAME(RULE, end_halves)(j, half_p, lp, l0, l1, last, a, h);
    }
}

/* ---- state in 8 bits ---- */

#define WIDEN(q, w, k, scale) (SQUARES >> q & 1 ? uint8_widen(w, k, scale) : int8_widen(w, k, scale))
#define TWICE(q, w, k, scale) ((pair){WIDEN(q, w, k, scale), WIDEN(q, w, k + 1, scale)})
#define TOP(q) (SQUARES >> q & 1 ? UINT8_TOP : INT8_TOP)
#define NARROW(q, x, factor, k) (SQUARES >> q & 1 ? uint8_narrow(x, factor, k) : int8_narrow(x, factor, k))
#define SIZE(q, n, j, k) size_of((pair){n->x[q][0][pair_of(j, k)], n->x[q][1][pair_of(j, k)]}, SQUARES >> q & 1)
#define BYTE(q, n, factor, j, k) NARROW(q, n->x[q][k % 2][pair_of(j, k)], factor, k)
#define WORD(q, n, factor, j)                                                                                          \
    (BYTE(q, n, factor, j, 0) | BYTE(q, n, factor, j, 1) | BYTE(q, n, factor, j, 2) | BYTE(q, n, factor, j, 3))

INLINED void NAME(RULE, end_bytes)(size_t j, bool half_p, void *p, word *codes0, word *codes1, const held *n, float f0,
                                   float f1, apply a, NAME(OF, step) h)
{
    NAME(RULE, move)(pair_of(j, 0), half_p, p, n, a, h);
    NAME(RULE, move)(pair_of(j, 2), half_p, p, n, a, h);
    codes0[j] = WORD(0, n, f0, j);
    (void)codes1, (void)f1;
    WITH_S1(codes1[j] = WORD(1, n, f1, j));
}

INLINED void NAME(RULE, bytes)(bool half_p, void *restrict p, bool half_g, const void *restrict g,
                               const word *restrict codes0, const word *restrict codes1, float *restrict scale0,
                               float *restrict scale1, apply a, NAME(OF, step) h, held *n, const held *last,
                               void *restrict lp, word *restrict l0, word *restrict l1)
{
    const float c0 = *scale0, c1 = STATES > 1 ? *scale1 : 0, f0 = last->factor[0], f1 = last->factor[1];
    uint32_t most0 = 0, most1 = 0; /* the largest magnitudes, as integers */
    (void)c1, (void)most1;
    INDEPENDENT
    for (size_t j = 0; j < WORDS; j++) {
        const uint32_t w0 = codes0[j], w1 = STATES > 1 ? codes1[j] : 0;
        const pair t0 = TWICE(0, w0, 0, c0), t1 = TWICE(1, w1, 0, c1), r0 = TWICE(0, w0, 2, c0),
                   r1 = TWICE(1, w1, 2, c1);
        NAME(RULE, begin)(pair_of(j, 0), half_p, p, half_g, g, t0, t1, a, h, n);
        NAME(RULE, begin)(pair_of(j, 2), half_p, p, half_g, g, r0, r1, a, h, n);
        most0 = larger_of(most0, larger_of(SIZE(0, n, j, 0), SIZE(0, n, j, 2)));
        WITH_S1(most1 = larger_of(most1, larger_of(SIZE(1, n, j, 0), SIZE(1, n, j, 2))));
        NAME(RULE, end_bytes)(j, half_p, lp, l0, l1, last, f0, f1, a, h);
    }
    *scale0 = scale_of(most0, TOP(0), &n->factor[0]);
    WITH_S1(*scale1 = scale_of(most1, TOP(1), &n->factor[1]));
}

/* ---- one quantum after another ---- */

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

INLINED void NAME(RULE, finish_as)(bool half_p, bool scaled, void *restrict p, word *restrict codes0,
                                   word *restrict codes1, const held *n, apply a, NAME(OF, step) h)
{
    const float f0 = n->factor[0], f1 = n->factor[1];
    if (scaled) {
        INDEPENDENT
        for (size_t j = 0; j < WORDS; j++)
            NAME(RULE, end_bytes)(j, half_p, p, codes0, codes1, n, f0, f1, a, h);
    } else {
        INDEPENDENT
        for (size_t j = 0; j < PAIRS; j++)
            NAME(RULE, end_halves)(j, half_p, p, codes0, codes1, n, a, h);
    }
}

/* The last quantum: by itself, as gcc finds what it vectorises in a function of this size, and not in the one that calls it. */
static __attribute__((noinline)) void NAME(RULE, finish)(bool half_p, bool scaled, const held *n, apply a,
                                                         NAME(OF, step) h)
{
#define FINISH(half_p, scaled) NAME(RULE, finish_as)(half_p, scaled, n->at.p, n->at.codes0, n->at.codes1, n, a, h)
    if (half_p && scaled)
        FINISH(true, true);
    else if (half_p)
        FINISH(true, false);
    else if (scaled)
        FINISH(false, true);
    else
        FINISH(false, false);
#undef FINISH
}

/* n is whole quanta. What the first one finds to be ended goes nowhere. */
INLINED void NAME(RULE, run)(size_t n, bool half_p, void *p, bool half_g, const void *g, void *const *s,
                             void *const *scale, apply a, NAME(OF, step) h, bool all)
{
    const size_t bytes = scale ? FASTLR_QUANTUM : 2 * FASTLR_QUANTUM;
    held of[2], *now = &of[0], *last = &of[1];
    float p_nowhere[FASTLR_QUANTUM] = {0};
    word nowhere[2][PAIRS];
    memset(last, 0, sizeof *last);
    last->at = (place){p_nowhere, nowhere[0], nowhere[1]};
    for (size_t k = 0; k < n / FASTLR_QUANTUM; k++) {
        NAME(RULE, soon)(k, half_p, p, half_g, g, bytes, s[0], s[1], all);
        const void *const d = (const char *)g + k * FASTLR_QUANTUM * (half_g ? 2 : 4);
        const place at = {(char *)p + k * FASTLR_QUANTUM * (half_p ? 2 : 4), (word *)((char *)s[0] + k * bytes),
                          STATES > 1 ? (word *)((char *)s[1] + k * bytes) : NULL};
        const place before = last->at;
        if (scale)
            NAME(RULE, bytes)(half_p, at.p, half_g, d, at.codes0, at.codes1, (float *)scale[0] + k,
                              STATES > 1 ? (float *)scale[1] + k : NULL, a, h, now, last, before.p, before.codes0,
                              before.codes1);
        else
            NAME(RULE, halves)(half_p, at.p, half_g, d, at.codes0, at.codes1, a, h, now, last, before.p, before.codes0,
                               before.codes1);
        now->at = at;
        held *const ended = last;
        last = now, now = ended;
    }
    NAME(RULE, finish)(half_p, scale, last, a, h);
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
#undef SIZE
#undef BYTE
#undef WORD
#undef AND_S1
#undef WITH_S1
