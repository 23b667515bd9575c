/* vectors.h with AVX2. */
#include <immintrin.h>

enum { LANE_COUNT = 8 };

typedef __m256 floats;
typedef __m256i integers;

#define V(x) _mm256_##x
#define BITS_OF_V(x) _mm256_##x##_si256

INLINED bool any_equal(integers x, integers y)
{
    return _mm256_movemask_epi8(_mm256_cmpeq_epi32(x, y));
}

#include "vectors.h"

/* The larger magnitudes, as integers. */
INLINED integers larger_magnitudes(bool of_nan, lanes x, lanes y)
{
    (void)of_nan;
    return larger_of_bits(x, y);
}

/* The largest of integers. */
INLINED uint32_t largest_bits(__m256i x)
{
    uint32_t each[LANE_COUNT], most = 0;
    _mm256_storeu_si256((__m256i *)each, x);
    for (int k = 0; k < LANE_COUNT; k++)
        most = each[k] > most ? each[k] : most;
    return most;
}

/* Quarters 0, 2, 1, 3 of a vector: what instructions do in each half of it is then in order. */
INLINED __m256i crossed(__m256i x)
{
    return _mm256_permute4x64_epi64(x, 0xd8);
}

/* ---- bfloat16 ---- */

/* The numbers of four words, in order. */
INLINED __m256i bf16_in_order(const word *codes)
{
    return _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)codes)), 16);
}

INLINED duo bf16_get(bool by_words, const word *codes)
{
    const __m256i w = load_words(codes), a = by_words ? low_halves(w) : bf16_in_order(codes),
                  b = by_words ? high_halves(w) : bf16_in_order(codes + 4);
    return (duo){lanes_of(floats_of(a)), lanes_of(floats_of(b))};
}

/* Upper halves, and lower halves, of both: by twos in a word. */
INLINED __m256i upper_halves(__m256i a, __m256i b)
{
    return _mm256_blend_epi16(_mm256_srli_epi32(a, 16), b, 0xaa);
}

INLINED __m256i lower_halves(__m256i a, __m256i b)
{
    return _mm256_blend_epi16(a, _mm256_slli_epi32(b, 16), 0xaa);
}

/* As bf16_word_unsettled(). What is added to the lower half is 0x7fff, and 1 more where the upper one is odd; whether that carries is
 * the highest bit of half the sum, which an average, itself 1 more, has no less than 17 bits for. */
INLINED void bf16_put(bool by_words, word *codes, duo x)
{
    const __m256i a = lane_bits(x.a), b = lane_bits(x.b), upper = upper_halves(a, b);
    const __m256i add = _mm256_or_si256(_mm256_and_si256(upper, _mm256_set1_epi16(1)), _mm256_set1_epi16(0x7ffe));
    __m256i y = _mm256_add_epi16(upper, _mm256_srli_epi16(_mm256_avg_epu16(lower_halves(a, b), add), 15));
    if (!by_words) {
        const __m256i turn =
            _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
        y = crossed(_mm256_shuffle_epi8(y, turn));
    }
    store_words(codes, y);
}

/* Every NaN the one that bf16_near() makes. */
INLINED lanes settled(lanes x)
{
    const __m256 y = vector_of(x), nan = floats_of(_mm256_set1_epi32(INFINITE | QUIET));
    return lanes_of(_mm256_blendv_ps(y, nan, _mm256_cmp_ps(y, y, _CMP_UNORD_Q)));
}

/* ---- 8 bits ---- */

/* Bytes k and k + 1 of each of four words, in byte `to` of a lane each. */
INLINED __m256i in_order(const word *codes, int k, int to)
{
    const __m256i w = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)codes));
    return _mm256_shuffle_epi8(w,
                               _mm256_setr_epi32(LANE(k, to), LANE(1 + k, to), LANE(4 + k, to), LANE(5 + k, to),
                                                 LANE(8 + k, to), LANE(9 + k, to), LANE(12 + k, to), LANE(13 + k, to)));
}

INLINED quad int8_get(bool by_words, const word *codes, float scale)
{
    if (by_words)
        return int8_by_words(codes, scale);
    const __m256 factor = _mm256_set1_ps(scale * 0x1p-16f);
#define NUMBERS(codes, k) int8_numbers(_mm256_srai_epi32(in_order(codes, k, 3), 8), factor)
    return (quad){{NUMBERS(codes, 0), NUMBERS(codes + 4, 0)}, {NUMBERS(codes, 2), NUMBERS(codes + 4, 2)}};
#undef NUMBERS
}

INLINED quad uint8_get(bool by_words, const word *codes, float scale)
{
    if (by_words)
        return uint8_by_words(codes, scale);
    const __m256 factor = _mm256_set1_ps(scale);
    const __m256i lowest = _mm256_set1_epi32(LOWEST);
#define NUMBERS(codes, k)                                                                                              \
    uint8_numbers(_mm256_or_si256(_mm256_slli_epi32(in_order(codes, k, 2), UPPER), lowest), factor)
    return (quad){{NUMBERS(codes, 0), NUMBERS(codes + 4, 0)}, {NUMBERS(codes, 2), NUMBERS(codes + 4, 2)}};
#undef NUMBERS
}

/* Stores the bytes of packed numbers; `words` and `order` say which goes where in each half, by words and in order. */
INLINED void bytes_put(bool by_words, word *codes, __m256i x, __m128i words, __m128i order)
{
    const __m256i y = _mm256_shuffle_epi8(x, _mm256_broadcastsi128_si256(by_words ? words : order));
    store_words(codes, by_words ? y : crossed(y));
}

INLINED void int8_put(bool by_words, word *codes, quad x, float fit)
{
    bytes_put(by_words, codes, int8_packed(x, fit), INT8_WORDS, UINT8_WORDS);
}

INLINED void uint8_put(bool by_words, word *codes, quad x, float fit)
{
    const __m256i low = uint8_codes(upper_halves(fitted(x.low.a, fit), fitted(x.low.b, fit))),
                  high = uint8_codes(upper_halves(fitted(x.high.a, fit), fitted(x.high.b, fit)));
    bytes_put(by_words, codes, _mm256_packus_epi16(low, high), UINT8_WORDS,
              _mm_setr_epi8(0, 2, 8, 10, 4, 6, 12, 14, 1, 3, 9, 11, 5, 7, 13, 15));
}
