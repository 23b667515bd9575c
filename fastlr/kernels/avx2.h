/* What bits.h has, eight numbers at a time and with AVX2's own instructions: those that pack numbers with saturation, shuffle bytes
 * and average, which compilers do not find. The same bits. For fused/lanes.h and store.h.
 *
 * Lanes are an array, since a rule is written for one number: a loop over them is one instruction an operation, and gcc leaves
 * nothing of the array.
 *
 * They come in one of two orders. By words, as bits.h says that codes lie, of each word the first number, then the second, and so
 * on: so are parameters and gradients in bfloat16 a shift away. In order where parameters are float32 and have to stay as they are;
 * codes are then permuted, which for so few bytes is less work.
 */
#include <immintrin.h>

enum { LANE_COUNT = 8 };

typedef struct {
    _Alignas(32) float x[LANE_COUNT];
} lanes;

/* 16 elements: the first 8 and the others, or by words the even ones and the odd. */
typedef struct {
    lanes a, b;
} duo;

/* Of 8 words of codes: elements 2j and 2j + 1, and 128 + 2j and 129 + 2j. */
typedef struct {
    duo low, high;
} quad;

INLINED lanes lanes_of(__m256 x)
{
    lanes y;
    _mm256_store_ps(y.x, x);
    return y;
}

INLINED __m256 vector_of(lanes x)
{
    return _mm256_load_ps(x.x);
}

INLINED __m256i lane_bits(lanes x)
{
    return _mm256_castps_si256(vector_of(x));
}

/* ---- float32 ---- */

INLINED duo f32_get(const float *x)
{
    return (duo){lanes_of(_mm256_loadu_ps(x)), lanes_of(_mm256_loadu_ps(x + LANE_COUNT))};
}

INLINED void f32_put(float *x, duo y)
{
    _mm256_storeu_ps(x, vector_of(y.a));
    _mm256_storeu_ps(x + LANE_COUNT, vector_of(y.b));
}

/* ---- bfloat16 ---- */

/* Halves of words, as the upper ones of lanes. */
INLINED __m256i low_halves(__m256i w)
{
    return _mm256_slli_epi32(w, 16);
}

INLINED __m256i high_halves(__m256i w)
{
    return _mm256_and_si256(w, _mm256_set1_epi32(-0x10000));
}

/* The numbers of four words, in order. */
INLINED __m256i bf16_in_order(const word *codes)
{
    return _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)codes)), 16);
}

INLINED duo bf16_get(bool by_words, const word *codes)
{
    const __m256i w = _mm256_loadu_si256((const __m256i *)codes), a = by_words ? low_halves(w) : bf16_in_order(codes),
                  b = by_words ? high_halves(w) : bf16_in_order(codes + 4);
    return (duo){lanes_of(_mm256_castsi256_ps(a)), lanes_of(_mm256_castsi256_ps(b))};
}

/* Quarters 0, 2, 1, 3 of a vector: what instructions do in each half of it is then in order. */
INLINED __m256i crossed(__m256i x)
{
    return _mm256_permute4x64_epi64(x, 0xd8);
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
    _mm256_storeu_si256((__m256i *)codes, y);
}

/* Every NaN the one that bf16_near() makes. */
INLINED lanes settled(lanes x)
{
    const __m256 y = vector_of(x), nan = _mm256_castsi256_ps(_mm256_set1_epi32(INFINITE | QUIET));
    return lanes_of(_mm256_blendv_ps(y, nan, _mm256_cmp_ps(y, y, _CMP_UNORD_Q)));
}

/* ---- 8 bits ---- */

/* A lane with the ith byte in the place of its byte `to`, and 0 in the others. */
#define LANE(i, to) ((int)(0x80808080U ^ (0x80U ^ (unsigned)(i)) << 8 * (to)))

/* Bytes k and k + 1 of each of four words, in byte `to` of a lane each. */
INLINED __m256i in_order(const word *codes, int k, int to)
{
    const __m256i w = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)codes));
    return _mm256_shuffle_epi8(w,
                               _mm256_setr_epi32(LANE(k, to), LANE(1 + k, to), LANE(4 + k, to), LANE(5 + k, to),
                                                 LANE(8 + k, to), LANE(9 + k, to), LANE(12 + k, to), LANE(13 + k, to)));
}

/* Of codes times 2¹⁶; factor is the scale over that. */
INLINED lanes int8_numbers(__m256i x, __m256 factor)
{
    return lanes_of(_mm256_mul_ps(_mm256_cvtepi32_ps(x), factor));
}

/* Of codes times 2 to the STEEP. */
INLINED lanes uint8_numbers(__m256i x, __m256 factor)
{
    const __m256i y = _mm256_or_si256(x, _mm256_set1_epi32(LOWEST));
    return lanes_of(_mm256_mul_ps(_mm256_castsi256_ps(y), factor));
}

/* By words products put the codes of even bytes, and of odd ones, into the halves of words; from there each is a shift away. */
INLINED quad int8_get(bool by_words, const word *codes, float scale)
{
    const __m256 factor = _mm256_set1_ps(scale * 0x1p-16f);
    if (by_words) {
        const __m256i w = _mm256_loadu_si256((const __m256i *)codes),
                      even = _mm256_maddubs_epi16(_mm256_set1_epi16(1), w),
                      odd = _mm256_maddubs_epi16(_mm256_set1_epi16(256), w);
        return (quad){{int8_numbers(low_halves(even), factor), int8_numbers(low_halves(odd), factor)},
                      {int8_numbers(high_halves(even), factor), int8_numbers(high_halves(odd), factor)}};
    }
#define NUMBERS(codes, k) int8_numbers(_mm256_srai_epi32(in_order(codes, k, 3), 8), factor)
    return (quad){{NUMBERS(codes, 0), NUMBERS(codes + 4, 0)}, {NUMBERS(codes, 2), NUMBERS(codes + 4, 2)}};
#undef NUMBERS
}

INLINED quad uint8_get(bool by_words, const word *codes, float scale)
{
    const __m256 factor = _mm256_set1_ps(scale);
    if (by_words) {
        const __m256i w = _mm256_loadu_si256((const __m256i *)codes),
                      even = _mm256_maddubs_epi16(w, _mm256_set1_epi16(1 << UPPER)),
                      odd = _mm256_maddubs_epi16(w, _mm256_set1_epi16(256 << UPPER));
        return (quad){{uint8_numbers(low_halves(even), factor), uint8_numbers(low_halves(odd), factor)},
                      {uint8_numbers(high_halves(even), factor), uint8_numbers(high_halves(odd), factor)}};
    }
#define NUMBERS(codes, k) uint8_numbers(_mm256_slli_epi32(in_order(codes, k, 2), UPPER), factor)
    return (quad){{NUMBERS(codes, 0), NUMBERS(codes + 4, 0)}, {NUMBERS(codes, 2), NUMBERS(codes + 4, 2)}};
#undef NUMBERS
}

/* Stores the bytes of packed numbers; `words` and `order` say which goes where in each half, by words and in order. */
INLINED void bytes_put(bool by_words, word *codes, __m256i x, __m128i words, __m128i order)
{
    const __m256i y = _mm256_shuffle_epi8(x, _mm256_broadcastsi128_si256(by_words ? words : order));
    _mm256_storeu_si256((__m256i *)codes, by_words ? y : crossed(y));
}

INLINED void int8_put(bool by_words, word *codes, quad x, float fit)
{
    const __m256 factor = _mm256_set1_ps(fit);
#define NEAR(x) _mm256_cvtps_epi32(_mm256_mul_ps(vector_of(x), factor))
    const __m256i low = _mm256_packs_epi32(NEAR(x.low.a), NEAR(x.low.b)),
                  high = _mm256_packs_epi32(NEAR(x.high.a), NEAR(x.high.b));
#undef NEAR
    bytes_put(by_words, codes, _mm256_packs_epi16(low, high),
              _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
              _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15));
}

/* As uint8_word(); what is less than the lowest code becomes 0 by saturation. */
INLINED __m256i uint8_halves(duo x, __m256 factor)
{
    const __m256i a = _mm256_castps_si256(_mm256_mul_ps(vector_of(x.a), factor)),
                  b = _mm256_castps_si256(_mm256_mul_ps(vector_of(x.b), factor));
    return _mm256_srli_epi16(_mm256_subs_epu16(upper_halves(a, b), _mm256_set1_epi16(BASE)), UPPER);
}

INLINED void uint8_put(bool by_words, word *codes, quad x, float fit)
{
    const __m256 factor = _mm256_set1_ps(fit);
    bytes_put(by_words, codes, _mm256_packus_epi16(uint8_halves(x.low, factor), uint8_halves(x.high, factor)),
              _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15),
              _mm_setr_epi8(0, 2, 8, 10, 4, 6, 12, 14, 1, 3, 9, 11, 5, 7, 13, 15));
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
