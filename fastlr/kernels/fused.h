/* The loops of a rule with its storage inlined: for the rules that most models are trained with, and the storages that save
 * most. A template, included by sweep.h where FUSED is defined, for rules of one or two states and float32 arithmetic.
 *
 * stored.c does the same for any rule and storage, a tile at a time, and gives the same bits; but there arithmetic and memory
 * take turns, and here they overlap (python -m bench.storage).
 *
 * Two loops, a quantum at a time: the first makes the new state, and leaves in float32 in the nearest cache what the second needs,
 * which moves the parameters: the direction, or where that is a quotient BELOW, the first state and what it is divided by. For roots
 * and divisions share a unit that is busy for longer than all others, and in a loop each they take a tenth to a twentieth of the
 * time less. State in 8 bits is narrowed after the first, when the largest that its scale goes by is known. Where there are 32
 * registers, one loop is better.
 *
 * Compilers make the loops of fused/pairs.h for any instruction set. With AVX2 those of fused/lanes.h take 0.6 to 0.9 of the time,
 * with AVX-512 0.6 to 0.95 (python -m bench.by_hand).
 *
 * Before a loop they ask for what it needs some quanta later: processors have few lines on their way at a time, and not all gain by
 * it (prefetch.c). Parameters, which in most steps the second loop alone reads, were waited for up to a quarter of the time;
 * gradients where state has 8 bits, read at two places a word, up to half of it, since not every processor foresees that
 * (python -m bench.storage).
 */
#ifndef FUSED_COMMON
#define FUSED_COMMON
/* Pairs of a quantum; elements from what is at hand to what is asked for. */
enum { PAIRS = FASTLR_QUANTUM / 2, SOON = 4 * FASTLR_QUANTUM };

/* Constants of a loop: whether parameters and gradients are bfloat16; whether the rule sees the gradient as it is, not scaled and
 * without l2, so that the first loop does not read the parameters. */
typedef struct {
    bool half_p, half_g, plain;
} kind;

/* Bytes of a parameter or gradient. */
INLINED size_t width_of(bool half)
{
    return half ? 2 : 4;
}

/* Pair j of parameters or gradients. */
INLINED void *pair_in(bool half, const void *x, size_t j)
{
    return (char *)x + 2 * j * width_of(half);
}

/* Whether any parameter of a quantum is NaN, looked at one by one. */
INLINED bool any_nan(bool half, const void *p)
{
    return half ? bf16_any_nan(PAIRS, p) : largest_of(2 * PAIRS, p) > INFINITE;
}

/* Makes every NaN of a quantum the one that bf16_word() makes. A function of its own, since it is seldom called. */
static __attribute__((noinline)) void settle(word *codes)
{
    for (size_t j = 0; j < PAIRS; j++)
        codes[j] = bf16_word(bf16_pair(codes[j]));
}

/* Whether NaN can be left to the end of a quantum: no number has one that bfloat16 does not hold. One in the state is one in the
 * parameter too, so looking for that is enough, where testing each number takes a tenth of the time. */
INLINED bool settles_late(kind is)
{
    return is.half_g && (is.half_p || is.plain);
}

/* Asks for n elements that come SOON, of parameters, gradients or state: so many bytes each. */
INLINED void ask_soon(const void *x, size_t n, size_t each, fastlr_use use)
{
    ask(x, (ptrdiff_t)(SOON * each), n * each, use);
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

/* What the first of two loops leaves in place of the direction; what the second makes of it; whether it needs the first state
 * for that. */
#ifdef BELOW
#define LEFT(o) NAME(OF, below)((o).s1, h)
#define DIRECTION(s0, u) ((s0) / (u))
#define DIVIDES true
#else
#define LEFT(o) (o).u
#define DIRECTION(s0, u) (u)
#define DIVIDES false
#endif

/* What the largest of state q is in codes of 8 bits. */
#define TOP(q) (SQUARES >> q & 1 ? UINT8_TOP : INT8_TOP)

#if defined(VECTORS) && !defined(__clang__) /* which takes lanes apart, and makes better of pairs */
#include "fused/lanes.h"
#else
#include "fused/pairs.h"
#endif

/* ---- one quantum after another ---- */

/* n is whole quanta. */
INLINED void NAME(RULE, run)(size_t n, kind is, void *p, const void *g, void *const *s, void *const *scale, apply a,
                             NAME(OF, step) h, fastlr_asking asks)
{
    word *const codes0 = s[0], *const codes1 = STATES > 1 ? s[1] : s[0];
    if (scale)
        NAME(RULE, all_bytes)(n, is, p, g, codes0, codes1, scale[0], STATES > 1 ? scale[1] : scale[0], a, h, asks);
    else
        NAME(RULE, all_halves)(n, is, p, g, codes0, codes1, a, h, asks);
}

#ifdef FUSED_LANES /* instructions as their operands come: processors look ahead less far than the chain of a turn is long */
#pragma GCC push_options
#pragma GCC optimize("schedule-insns", "sched-pressure")
#endif
static void NAME(RULE, fused)(size_t n, bool half_p, void *p, bool half_g, const void *g, void *const *s,
                              void *const *scale, const fastlr_step *step)
{
    const NAME(RULE, block) b = *(const NAME(RULE, block) *)step;
    apply plain = b.a; /* with two constants more: most steps have these, and loops bound by arithmetic gain a tenth */
    plain.l2 = 0, plain.scale = 1;
#define FUSE(half_p, half_g)                                                                                           \
    do {                                                                                                               \
        if (b.a.l2 == 0 && b.a.scale == 1)                                                                             \
            NAME(RULE, run)(n, (kind){half_p, half_g, true}, p, g, s, scale, plain, b.h, b.asks);                      \
        else                                                                                                           \
            NAME(RULE, run)(n, (kind){half_p, half_g, false}, p, g, s, scale, b.a, b.h, b.asks);                       \
    } while (0)
    if (half_p)
        FUSE(true, true); /* narrower parameters than gradients go by stored.c */
    else if (half_g)
        FUSE(false, true);
    else
        FUSE(false, false);
}

#ifdef FUSED_LANES
#pragma GCC pop_options
#endif

#undef FUSE
#undef LEFT
#undef DIRECTION
#undef DIVIDES
#undef TOP
#undef AND_S1
#undef WITH_S1
