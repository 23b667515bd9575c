/* vectors.h with AVX-512: F, BW, DQ and VL. */
#include <immintrin.h>

enum { LANE_COUNT = 16 };

typedef __m512 floats;
typedef __m512i integers;

#define V(x) _mm512_##x
#define BITS_OF_V(x) _mm512_##x##_si512

INLINED bool any_equal(integers x, integers y)
{
    return _mm512_cmpeq_epi32_mask(x, y);
}

#include "vectors.h"

/* The larger magnitudes, as integers; unless asked for those of NaN, too, the other's where one is NaN: one instruction, not three. */
INLINED integers larger_magnitudes(bool of_nan, lanes x, lanes y)
{
    enum { LARGER = 3, WITHOUT_SIGN = 2 << 2 };
    return of_nan ? larger_of_bits(x, y)
                  : integers_of(_mm512_range_ps(vector_of(x), vector_of(y), LARGER | WITHOUT_SIGN));
}

/* The largest of integers. */
INLINED uint32_t largest_bits(__m512i x)
{
    return _mm512_reduce_max_epu32(x);
}

/* Eight times four halves of words: these, then those `by` further, and so on. Indices that compilers work out. */
#define FOUR(a, b, c, d) ((long long)(a) | (long long)(b) << 16 | (long long)(c) << 32 | (long long)(d) << 48)

INLINED __m512i counted(long long four, int by)
{
    const __m512i j = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm512_add_epi64(_mm512_set1_epi64(four), _mm512_mullo_epi64(j, _mm512_set1_epi64(FOUR(by, by, by, by))));
}

/* ---- bfloat16 ---- */

static const __mmask32 UPPER_HALVES = 0xaaaaaaaa;

/* Of 32 codes, those from the first on, in order. */
INLINED lanes bf16_in_order(__m512i codes, int first)
{
    const __m512i at = counted(FOUR(0, first, 0, first + 1), 2);
    return lanes_of(floats_of(_mm512_maskz_permutexvar_epi16(UPPER_HALVES, at, codes)));
}

INLINED duo bf16_get(bool by_words, const word *codes)
{
    const __m512i w = load_words(codes);
    if (by_words)
        return (duo){lanes_of(floats_of(low_halves(w))), lanes_of(floats_of(high_halves(w)))};
    return (duo){bf16_in_order(w, 0), bf16_in_order(w, 16)};
}

/* Upper halves, and lower halves, of both: by twos in a word, or one after the other. */
INLINED __m512i upper_halves(bool by_words, __m512i a, __m512i b)
{
    return _mm512_permutex2var_epi16(a, by_words ? counted(FOUR(1, 33, 3, 35), 4) : counted(FOUR(1, 3, 5, 7), 8), b);
}

INLINED __m512i lower_halves(bool by_words, __m512i a, __m512i b)
{
    return _mm512_permutex2var_epi16(a, by_words ? counted(FOUR(0, 32, 2, 34), 4) : counted(FOUR(0, 2, 4, 6), 8), b);
}

/* As bf16_word_unsettled(): what is in the lower half rounds up from 0x8001 on, and where the upper one is odd from 0x8000. */
INLINED void bf16_put(bool by_words, word *codes, duo x)
{
    enum { NOT_A_AND_B_OR_C = 0xae };
    const __m512i a = lane_bits(x.a), b = lane_bits(x.b), upper = upper_halves(by_words, a, b);
    const __m512i one = _mm512_set1_epi16(1), half = _mm512_set1_epi16(INT16_MIN);
    const __m512i least = _mm512_ternarylogic_epi32(upper, one, half, NOT_A_AND_B_OR_C);
    const __mmask32 up = _mm512_cmpge_epu16_mask(lower_halves(by_words, a, b), least);
    store_words(codes, _mm512_mask_add_epi16(upper, up, upper, one));
}

/* Every NaN the one that bf16_near() makes. */
INLINED lanes settled(lanes x)
{
    const __m512 y = vector_of(x), nan = floats_of(_mm512_set1_epi32(INFINITE | QUIET));
    return lanes_of(_mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(y, y, _CMP_UNORD_Q), nan));
}

/* ---- 8 bits ---- */

/* Two words in each 16 bytes. */
INLINED __m512i by_twos(const word *codes)
{
    return _mm512_cvtepu32_epi64(_mm256_loadu_si256((const __m256i *)codes));
}

/* Of such, where bytes k and k + 1 of both go: to byte `to` of a lane each. */
INLINED __m512i in_order(int k, int to)
{
    return _mm512_broadcast_i32x4(_mm_setr_epi32(LANE(k, to), LANE(1 + k, to), LANE(8 + k, to), LANE(9 + k, to)));
}

INLINED quad int8_get(bool by_words, const word *codes, float scale)
{
    if (by_words)
        return int8_by_words(codes, scale);
    const __m512 factor = _mm512_set1_ps(scale * 0x1p-16f);
    const __m512i a = by_twos(codes), b = by_twos(codes + 8);
#define NUMBERS(x, k) int8_numbers(_mm512_srai_epi32(_mm512_shuffle_epi8(x, in_order(k, 3)), 8), factor)
    return (quad){{NUMBERS(a, 0), NUMBERS(b, 0)}, {NUMBERS(a, 2), NUMBERS(b, 2)}};
#undef NUMBERS
}

INLINED quad uint8_get(bool by_words, const word *codes, float scale)
{
    if (by_words)
        return uint8_by_words(codes, scale);
    const __mmask64 third = 0x4444444444444444; /* byte of each lane */
    const __m512 factor = _mm512_set1_ps(scale);
    const __m512i a = by_twos(codes), b = by_twos(codes + 8), lowest = _mm512_set1_epi32(LOWEST >> UPPER);
#define NUMBERS(x, k)                                                                                                  \
    uint8_numbers(_mm512_slli_epi32(_mm512_mask_shuffle_epi8(lowest, third, x, in_order(k, 2)), UPPER), factor)
    return (quad){{NUMBERS(a, 0), NUMBERS(b, 0)}, {NUMBERS(a, 2), NUMBERS(b, 2)}};
#undef NUMBERS
}

INLINED void int8_put(bool by_words, word *codes, quad x, float fit)
{
    const __m512i y = int8_packed(x, fit), second = _mm512_maskz_set1_epi64(0xf0, FOUR(2, 2, 2, 2)),
                  order = _mm512_add_epi64(counted(FOUR(0, 4, 1, 5), 8), second);
    store_words(codes, by_words ? _mm512_shuffle_epi8(y, _mm512_broadcast_i32x4(INT8_WORDS))
                                : _mm512_permutexvar_epi16(order, y));
}

INLINED void uint8_put(bool by_words, word *codes, quad x, float fit)
{
    const __m512i la = fitted(x.low.a, fit), lb = fitted(x.low.b, fit), ha = fitted(x.high.a, fit),
                  hb = fitted(x.high.b, fit), twos = counted(FOUR(1, 3, 33, 35), 4);
    if (by_words) {
        const __m512i low = uint8_codes(upper_halves(true, la, lb)), high = uint8_codes(upper_halves(true, ha, hb));
        store_words(codes, _mm512_shuffle_epi8(_mm512_packus_epi16(low, high), _mm512_broadcast_i32x4(UINT8_WORDS)));
    } else {
        const __m512i first = uint8_codes(_mm512_permutex2var_epi16(la, twos, ha)),
                      second = uint8_codes(_mm512_permutex2var_epi16(lb, twos, hb));
        store_words(codes, _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7),
                                                    _mm512_packus_epi16(first, second)));
    }
}
