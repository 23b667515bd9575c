/* How numbers are stored: to the arithmetic's type and back, for one instruction set.
 *
 * A template: a file in store/ includes it once, after defining
 *     TARGET  the instruction set as the compiler spells it; undefined for the compiler's own default
 *     TABLE   the name of the tables it defines, one for each type
 *     VECTORS the header of its own vectors, where it has one
 *
 * Each loop is integer operations and correctly rounded ones: the same bits everywhere. From and to float32 it makes no
 * denormal that was none before, but of what Kahan's rounding lost: the same bits with denormals flushed or not.
 */
#include "stored.h"

#include <math.h>
#include <string.h>

#include "target_begin.h"

#include "bits.h"
#ifdef VECTORS
#include VECTORS
#endif

/* Of one format, from and to `real` numbers: WIDEN and NARROW see element i as `code` and, made float32 by AS, as `x`. */
#define LOAD(name, type, real, WIDEN)                                                                                  \
    static void name(size_t n, const void *from, const void *beside, void *numbers)                                    \
    {                                                                                                                  \
        const type *restrict codes = from;                                                                             \
        real *restrict to = numbers;                                                                                   \
        (void)beside;                                                                                                  \
        for (size_t i = 0; i < n; i++) {                                                                               \
            const type code = codes[i];                                                                                \
            to[i] = (real)(WIDEN);                                                                                     \
        }                                                                                                              \
    }

#define SAVE(name, type, real, AS, NARROW)                                                                             \
    static void name(size_t n, const void *numbers, void *to, void *beside, fastlr_chance chance)                      \
    {                                                                                                                  \
        type *restrict codes = to;                                                                                     \
        const real *restrict from = numbers;                                                                           \
        (void)beside, (void)chance;                                                                                    \
        for (size_t i = 0; i < n; i++) {                                                                               \
            const float x = AS(from[i]);                                                                               \
            codes[i] = (type)(NARROW);                                                                                 \
        }                                                                                                              \
    }

/* The float32 number next to x whose lowest bit is 1, unless x is one: rounded once more to fewer bits, it becomes what x would
 * have become. */
INLINED float odd(double x)
{
    const float near = (float)x;
    const uint32_t b = word_of(near), toward_0 = fabs((double)near) > fabs(x);
    return (double)near == x || x != x || b & 1 ? near : float_of(toward_0 ? b - 1 : b + 1);
}

/* ---- the arithmetic's type itself: what is copied out, and gradients that are to be limited ---- */

#define OWN(real)                                                                                                      \
    static void load_##real(size_t n, const void *from, const void *beside, void *to)                                  \
    {                                                                                                                  \
        (void)beside;                                                                                                  \
        memcpy(to, from, n * sizeof(real));                                                                            \
    }                                                                                                                  \
    static void save_##real(size_t n, const void *from, void *to, void *beside, fastlr_chance chance)                  \
    {                                                                                                                  \
        (void)beside, (void)chance;                                                                                    \
        memcpy(to, from, n * sizeof(real));                                                                            \
    }

OWN(float)
OWN(double)

/* ---- float32, where that is float64 ---- */

LOAD(load_single, float, double, code)
SAVE(save_single, float, double, (float), x)

/* ---- bfloat16: the upper half of a float32 ---- */

#ifdef VECTORS
enum { DUO = 2 * LANE_COUNT };

INLINED void load_duo(const uint16_t *codes, float *to)
{
    f32_put(to, bf16_get(false, (const word *)codes));
}

INLINED void save_duo(const float *from, uint16_t *codes)
{
    const duo x = f32_get(from);
    bf16_put(false, (word *)codes, (duo){settled(x.a), settled(x.b)});
}

/* n numbers of `from` to `to`, a DUO at a time by each(); what is left, in copies. */
#define BY_DUOS(n, from_type, from, to_type, to, each)                                                                 \
    do {                                                                                                               \
        const size_t rest = (n) % DUO, whole = (n) - rest;                                                             \
        for (size_t i = 0; i < whole; i += DUO)                                                                        \
            each((from) + i, (to) + i);                                                                                \
        if (rest) {                                                                                                    \
            from_type last[DUO] = {0};                                                                                 \
            to_type made[DUO];                                                                                         \
            memcpy(last, (from) + whole, rest * sizeof *(from));                                                       \
            each(last, made);                                                                                          \
            memcpy((to) + whole, made, rest * sizeof *(to));                                                           \
        }                                                                                                              \
    } while (0)

static void load_bf16(size_t n, const void *from, const void *beside, void *numbers)
{
    const uint16_t *restrict codes = from;
    float *restrict to = numbers;
    (void)beside;
    BY_DUOS(n, uint16_t, codes, float, to, load_duo);
}

static void save_bf16(size_t n, const void *numbers, void *to, void *beside, fastlr_chance chance)
{
    uint16_t *restrict codes = to;
    const float *restrict from = numbers;
    (void)beside, (void)chance;
    BY_DUOS(n, float, from, uint16_t, codes, save_duo);
}
#else
LOAD(load_bf16, uint16_t, float, bf16_widen(code))
SAVE(save_bf16, uint16_t, float, , bf16_narrow(x))
#endif
LOAD(load_bf16_wide, uint16_t, double, bf16_widen(code))
SAVE(save_bf16_wide, uint16_t, double, odd, bf16_narrow(x))

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

LOAD(load_f16, uint16_t, float, f16_widen(code))
SAVE(save_f16, uint16_t, float, , f16_narrow(x))
LOAD(load_f16_wide, uint16_t, double, f16_widen(code))
SAVE(save_f16_wide, uint16_t, double, odd, f16_narrow(x))

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
    static void save_##format##_by_chance(size_t n, const void *numbers, void *to, void *beside, fastlr_chance chance) \
    {                                                                                                                  \
        uint16_t *restrict codes = to;                                                                                 \
        const float *restrict from = numbers;                                                                          \
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

static void load_split(size_t n, const void *from, const void *beside, void *numbers)
{
    const uint16_t *restrict upper = from, *restrict lower = beside;
    float *restrict to = numbers;
    for (size_t i = 0; i < n; i++)
        to[i] = float_of((uint32_t)upper[i] << 16 | lower[i]);
}

static void save_split(size_t n, const void *numbers, void *to, void *beside, fastlr_chance chance)
{
    uint16_t *restrict upper = to, *restrict lower = beside;
    const float *restrict from = numbers;
    (void)chance;
    for (size_t i = 0; i < n; i++) {
        upper[i] = (uint16_t)(word_of(from[i]) >> 16);
        lower[i] = (uint16_t)word_of(from[i]);
    }
}

/* ---- with what rounding lost in a bfloat16 beside it: Kahan's compensation ---- */

#define KAHAN(format)                                                                                                  \
    static void load_##format##_kahan(size_t n, const void *from, const void *beside, void *numbers)                   \
    {                                                                                                                  \
        const uint16_t *restrict codes = from, *restrict lost = beside;                                                \
        float *restrict to = numbers;                                                                                  \
        for (size_t i = 0; i < n; i++)                                                                                 \
            to[i] = format##_widen(codes[i]) + bf16_widen(lost[i]);                                                    \
    }                                                                                                                  \
    static void save_##format##_kahan(size_t n, const void *numbers, void *to, void *beside, fastlr_chance chance)     \
    {                                                                                                                  \
        uint16_t *restrict codes = to, *restrict lost = beside;                                                        \
        const float *restrict from = numbers;                                                                          \
        (void)chance;                                                                                                  \
        for (size_t i = 0; i < n; i++) {                                                                               \
            const uint32_t code = format##_narrow(from[i]);                                                            \
            const float rest = from[i] - format##_widen(code);                                                         \
            codes[i] = (uint16_t)code;                                                                                 \
            lost[i] = (uint16_t)bf16_narrow(rest - rest == 0 ? rest : 0); /* ∞ − ∞ is nothing lost */                  \
        }                                                                                                              \
    }

KAHAN(bf16)
KAHAN(f16)

/* ---- 8 bits, in blocks with a scale ---- */

/* Functions of one code, for whole blocks. */
#ifdef VECTORS
#define LOAD_BLOCK(format)                                                                                             \
    static void load_##format(size_t n, const void *from, const void *beside, void *numbers)                           \
    {                                                                                                                  \
        const word *restrict words = from;                                                                             \
        float *restrict to = numbers;                                                                                  \
        const float scale = *(const float *)beside;                                                                    \
        (void)n;                                                                                                       \
        for (size_t j = 0; j < WORDS; j += LANE_COUNT) {                                                               \
            const quad x = format##_get(false, words + j, scale);                                                      \
            f32_put(to + 2 * j, x.low);                                                                                \
            f32_put(to + 2 * (WORDS + j), x.high);                                                                     \
        }                                                                                                              \
    }
#define ENCODE(format, words, from, fit)                                                                               \
    for (size_t j = 0; j < WORDS; j += LANE_COUNT)                                                                     \
    format##_put(false, words + j, (quad){f32_get(from + 2 * j), f32_get(from + 2 * (WORDS + j))}, fit)
#else
#define LOAD_BLOCK(format)                                                                                             \
    static void load_##format(size_t n, const void *from, const void *beside, void *numbers)                           \
    {                                                                                                                  \
        const word *restrict words = from;                                                                             \
        float *restrict to = numbers;                                                                                  \
        const float scale = *(const float *)beside;                                                                    \
        (void)n;                                                                                                       \
        for (size_t j = 0; j < WORDS; j++)                                                                             \
            for (int k = 0; k < 4; k++)                                                                                \
                to[element_of(j, k)] = format##_widen(words[j], k, scale);                                             \
    }
#define ENCODE(format, words, from, fit)                                                                               \
    for (size_t j = 0; j < WORDS; j++) {                                                                               \
        const pair x = {from[element_of(j, 0)], from[element_of(j, 1)]};                                               \
        const pair y = {from[element_of(j, 2)], from[element_of(j, 3)]};                                               \
        words[j] = format##_word(x, y, fit);                                                                           \
    }
#endif

#define SAVE_BLOCK(format, TOP)                                                                                        \
    static void save_##format(size_t n, const void *numbers, void *to, void *beside, fastlr_chance chance)             \
    {                                                                                                                  \
        word *restrict words = to;                                                                                     \
        const float *restrict from = numbers;                                                                          \
        float fit;                                                                                                     \
        *(float *)beside = scale_of(largest_of(n, from), TOP, &fit);                                                   \
        (void)chance;                                                                                                  \
        ENCODE(format, words, from, fit);                                                                              \
        clear_nan(words, *(float *)beside);                                                                            \
    }

LOAD_BLOCK(int8)
SAVE_BLOCK(int8, INT8_TOP)
LOAD_BLOCK(uint8)
SAVE_BLOCK(uint8, UINT8_TOP)

/* ---- what else is done to a tile ---- */

#define EXTRAS(real)                                                                                                   \
    static void limit_##real(size_t n, void *gradients, double bound)                                                  \
    {                                                                                                                  \
        real *restrict g = gradients;                                                                                  \
        const real most = (real)bound;                                                                                 \
        for (size_t i = 0; i < n; i++) {                                                                               \
            const real x = g[i] > most ? most : g[i];                                                                  \
            g[i] = x < -most ? -most : x;                                                                              \
        }                                                                                                              \
    }                                                                                                                  \
    static void follow_##real(size_t n, void *average, const void *parameters, double part)                            \
    {                                                                                                                  \
        real *restrict mean = average;                                                                                 \
        const real *restrict p = parameters, share = (real)part;                                                       \
        for (size_t i = 0; i < n; i++)                                                                                 \
            mean[i] = (mean[i] - share * mean[i]) + share * p[i];                                                      \
    }                                                                                                                  \
    static void add_##real(size_t n, void *total, const void *gradients)                                               \
    {                                                                                                                  \
        real *restrict sum = total;                                                                                    \
        const real *restrict g = gradients;                                                                            \
        for (size_t i = 0; i < n; i++)                                                                                 \
            sum[i] += g[i];                                                                                            \
    }

EXTRAS(float)
EXTRAS(double)

const fastlr_codec TABLE[FASTLR_DTYPES] = {
    [FASTLR_F32] = {.load = {[FASTLR_OWN] = load_float,
                             [FASTLR_BF16] = load_bf16,
                             [FASTLR_F16] = load_f16,
                             [FASTLR_BF16_BY_CHANCE] = load_bf16,
                             [FASTLR_F16_BY_CHANCE] = load_f16,
                             [FASTLR_SPLIT] = load_split,
                             [FASTLR_BF16_KAHAN] = load_bf16_kahan,
                             [FASTLR_F16_KAHAN] = load_f16_kahan,
                             [FASTLR_INT8] = load_int8,
                             [FASTLR_UINT8] = load_uint8},
                    .save = {[FASTLR_OWN] = save_float,
                             [FASTLR_BF16] = save_bf16,
                             [FASTLR_F16] = save_f16,
                             [FASTLR_BF16_BY_CHANCE] = save_bf16_by_chance,
                             [FASTLR_F16_BY_CHANCE] = save_f16_by_chance,
                             [FASTLR_SPLIT] = save_split,
                             [FASTLR_BF16_KAHAN] = save_bf16_kahan,
                             [FASTLR_F16_KAHAN] = save_f16_kahan,
                             [FASTLR_INT8] = save_int8,
                             [FASTLR_UINT8] = save_uint8},
                    .limit = limit_float,
                    .follow = follow_float,
                    .add = add_float},
    [FASTLR_F64] = {.load = {[FASTLR_OWN] = load_double,
                             [FASTLR_SINGLE] = load_single,
                             [FASTLR_BF16] = load_bf16_wide,
                             [FASTLR_F16] = load_f16_wide},
                    .save = {[FASTLR_OWN] = save_double,
                             [FASTLR_SINGLE] = save_single,
                             [FASTLR_BF16] = save_bf16_wide,
                             [FASTLR_F16] = save_f16_wide},
                    .limit = limit_double,
                    .follow = follow_double,
                    .add = add_double},
};

#include "target_end.h"
