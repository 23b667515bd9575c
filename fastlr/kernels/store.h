/* How numbers are stored: to float32 and back, for one instruction set.
 *
 * A template: a file in store/ includes it once, after defining
 *     TARGET  the instruction set as the compiler spells it; undefined for the compiler's own default
 *     TABLE   the name of the table it defines
 *
 * Each loop is integer operations and correctly rounded float32 ones, and makes no denormal that was none before: the same
 * bits everywhere, and with denormals flushed or not.
 */
#include "stored.h"

#include <string.h>

#include "target_begin.h"

#include "bits.h"

/* A pair of functions of one format: WIDEN and NARROW see element i as `code` and `x`. */
#define LOAD(format, type, WIDEN)                                                                                      \
    static void load_##format(size_t n, const void *from, const void *beside, float *restrict to)                      \
    {                                                                                                                  \
        const type *restrict codes = from;                                                                             \
        (void)beside;                                                                                                  \
        for (size_t i = 0; i < n; i++) {                                                                               \
            const uint32_t code = codes[i];                                                                            \
            to[i] = (WIDEN);                                                                                           \
        }                                                                                                              \
    }

#define SAVE(format, type, NARROW)                                                                                     \
    static void save_##format(size_t n, const float *restrict from, void *to, void *beside, fastlr_chance chance)      \
    {                                                                                                                  \
        type *restrict codes = to;                                                                                     \
        (void)beside, (void)chance;                                                                                    \
        for (size_t i = 0; i < n; i++) {                                                                               \
            const float x = from[i];                                                                                   \
            codes[i] = (type)(NARROW);                                                                                 \
        }                                                                                                              \
    }

/* ---- float32 itself: what is copied out, and gradients that are to be limited ---- */

static void load_own(size_t n, const void *from, const void *beside, float *restrict to)
{
    (void)beside;
    memcpy(to, from, n * sizeof *to);
}

static void save_own(size_t n, const float *restrict from, void *to, void *beside, fastlr_chance chance)
{
    (void)beside, (void)chance;
    memcpy(to, from, n * sizeof *from);
}

/* ---- bfloat16: the upper half of a float32 ---- */

LOAD(bf16, uint16_t, bf16_widen(code))
SAVE(bf16, uint16_t, bf16_narrow(x))

/* ---- float16 ---- */

/* Its denormals are integers times 2⁻²⁴. */
INLINED float f16_widen(uint32_t code)
{
    const uint32_t m = code & 0x7fff, sign = (code & 0x8000) << 16;
    const float small = (float)(int32_t)m * 0x1p-24f;
    const float large = float_of((m << 13) + ((m >= 0x7c00 ? 224u : 112u) << 23));
    return float_of(word_of(m < 0x400 ? small : large) | sign);
}

/* Below 2⁻¹⁴ an ulp is 2⁻²⁴, which is that of 0.5 in float32. 65520 and more are infinite. */
INLINED uint32_t f16_narrow(float x)
{
    const uint32_t b = word_of(x), sign = b >> 16 & 0x8000, m = b & MAGNITUDE;
    const uint32_t small = word_of(float_of(m) + 0.5f) - word_of(0.5f);
    const uint32_t large = (m + 0xfff + (m >> 13 & 1) - (112u << 23)) >> 13;
    const uint32_t finite = m < 113u << 23 ? small : m >= 0x477ff000 ? 0x7c00 : large;
    return sign | (m > INFINITE ? 0x7e00 : finite);
}

LOAD(f16, uint16_t, f16_widen(code))
SAVE(f16, uint16_t, f16_narrow(x))

/* ---- the same, rounded up or down by chance: right on average ---- */

/* 32 bits of an element's place: two rounds of Chris Wellons' lowbias32, with a key in each. */
INLINED uint32_t drawn(uint32_t i, uint32_t key0, uint32_t key1)
{
    i ^= key0;
    i = (i ^ i >> 16) * 0x7feb352du;
    i = ((i ^ i >> 15) + key1) * 0x846ca68bu;
    i = (i ^ i >> 16) * 0x7feb352du;
    i = (i ^ i >> 15) * 0x846ca68bu;
    return i ^ i >> 16;
}

/* The two keys: splitmix64 of the step's key and of the upper half of the place, so that no two runs of 2³² are alike. */
static uint64_t keys_of(fastlr_chance chance)
{
    uint64_t z = chance.key + (chance.index >> 32) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

#define SAVE_BY_CHANCE(format, NARROW)                                                                                 \
    static void save_##format##_by_chance(size_t n, const float *restrict from, void *to, void *beside,                \
                                          fastlr_chance chance)                                                        \
    {                                                                                                                  \
        uint16_t *restrict codes = to;                                                                                 \
        const uint64_t keys = keys_of(chance);                                                                         \
        const uint32_t key0 = (uint32_t)keys, key1 = (uint32_t)(keys >> 32), first = (uint32_t)chance.index;           \
        (void)beside;                                                                                                  \
        for (uint32_t i = 0; i < (uint32_t)n; i++) {                                                                   \
            const float x = from[i];                                                                                   \
            const uint32_t up = drawn(first + i, key0, key1) >> 16;                                                    \
            codes[i] = (uint16_t)(NARROW);                                                                             \
        }                                                                                                              \
    }

/* The lower half of x, as a share of an ulp, is the chance of the larger magnitude. */
INLINED uint32_t bf16_by_chance(float x, uint32_t up)
{
    const uint32_t b = word_of(x);
    return (x != x ? b | QUIET : (b & INFINITE) == INFINITE ? b : b + up) >> 16;
}

/* Of 13 bits, and of what is below 2⁻¹⁴ of 13 bits after the point where an ulp is 1. */
INLINED uint32_t f16_by_chance(float x, uint32_t up)
{
    const uint32_t b = word_of(x), sign = b >> 16 & 0x8000, m = b & MAGNITUDE;
    const float near_0 = m < 113u << 23 ? float_of(m) : 0;
    const uint32_t small = ((uint32_t)(int32_t)(near_0 * 0x1p37f) + (up >> 3)) >> 13;
    const uint32_t large = (m + (up >> 3) - (112u << 23)) >> 13;
    const uint32_t finite = m < 113u << 23 ? small : large >= 0x7c00 ? 0x7c00 : large;
    return sign | (m > INFINITE ? 0x7e00 : m >= 0x47800000 ? 0x7c00 : finite);
}

SAVE_BY_CHANCE(bf16, bf16_by_chance(x, up))
SAVE_BY_CHANCE(f16, f16_by_chance(x, up))

/* ---- a float32 in two halves, the upper of which is a bfloat16 by itself ---- */

static void load_split(size_t n, const void *from, const void *beside, float *restrict to)
{
    const uint16_t *restrict upper = from, *restrict lower = beside;
    for (size_t i = 0; i < n; i++)
        to[i] = float_of((uint32_t)upper[i] << 16 | lower[i]);
}

static void save_split(size_t n, const float *restrict from, void *to, void *beside, fastlr_chance chance)
{
    uint16_t *restrict upper = to, *restrict lower = beside;
    (void)chance;
    for (size_t i = 0; i < n; i++) {
        upper[i] = (uint16_t)(word_of(from[i]) >> 16);
        lower[i] = (uint16_t)word_of(from[i]);
    }
}

/* ---- bfloat16 with what its rounding lost in another: Kahan's compensation ---- */

static void load_kahan(size_t n, const void *from, const void *beside, float *restrict to)
{
    const uint16_t *restrict codes = from, *restrict lost = beside;
    for (size_t i = 0; i < n; i++)
        to[i] = bf16_widen(codes[i]) + bf16_widen(lost[i]);
}

static void save_kahan(size_t n, const float *restrict from, void *to, void *beside, fastlr_chance chance)
{
    uint16_t *restrict codes = to, *restrict lost = beside;
    (void)chance;
    for (size_t i = 0; i < n; i++) {
        const uint32_t code = bf16_narrow(from[i]);
        const float rest = from[i] - bf16_widen(code);
        codes[i] = (uint16_t)code;
        lost[i] = (uint16_t)bf16_narrow(rest - rest == 0 ? rest : 0); /* ∞ − ∞ is nothing lost */
    }
}

/* ---- 8 bits, in blocks with a scale ---- */

/* A pair of functions of one code, for whole blocks. */
#define LOAD_BLOCK(format)                                                                                             \
    static void load_##format(size_t n, const void *from, const void *beside, float *restrict to)                      \
    {                                                                                                                  \
        const word *restrict words = from;                                                                             \
        const float scale = *(const float *)beside;                                                                    \
        (void)n;                                                                                                       \
        for (size_t j = 0; j < WORDS; j++)                                                                             \
            for (int k = 0; k < 4; k++)                                                                                \
                to[element_of(j, k)] = format##_widen(words[j], k, scale);                                             \
    }

#define SAVE_BLOCK(format, TOP)                                                                                        \
    static void save_##format(size_t n, const float *restrict from, void *to, void *beside, fastlr_chance chance)      \
    {                                                                                                                  \
        word *restrict words = to;                                                                                     \
        float factor;                                                                                                  \
        *(float *)beside = scale_of(largest_of(n, from), TOP, &factor);                                                \
        (void)chance;                                                                                                  \
        for (size_t j = 0; j < WORDS; j++) {                                                                           \
            uint32_t w = 0;                                                                                            \
            for (int k = 0; k < 4; k++)                                                                                \
                w |= format##_narrow(from[element_of(j, k)], factor, k);                                               \
            words[j] = w;                                                                                              \
        }                                                                                                              \
    }

LOAD_BLOCK(int8)
SAVE_BLOCK(int8, INT8_TOP)
LOAD_BLOCK(uint8)
SAVE_BLOCK(uint8, UINT8_TOP)

/* ---- what else is done to a tile ---- */

static void limit(size_t n, float *restrict g, float most)
{
    for (size_t i = 0; i < n; i++) {
        const float x = g[i] > most ? most : g[i];
        g[i] = x < -most ? -most : x;
    }
}

static void follow(size_t n, float *restrict mean, const float *restrict p, float share)
{
    for (size_t i = 0; i < n; i++)
        mean[i] = (mean[i] - share * mean[i]) + share * p[i];
}

static void add(size_t n, float *restrict sum, const float *restrict g)
{
    for (size_t i = 0; i < n; i++)
        sum[i] += g[i];
}

const fastlr_codec TABLE = {
    .load = {load_own, load_bf16, load_f16, load_bf16, load_f16, load_split, load_kahan, load_int8, load_uint8},
    .save = {save_own, save_bf16, save_f16, save_bf16_by_chance, save_f16_by_chance, save_split, save_kahan, save_int8,
             save_uint8},
    .limit = limit,
    .follow = follow,
    .add = add,
};

#include "target_end.h"
