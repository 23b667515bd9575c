/* What bits.h has, a vector of numbers at a time and with the processor's own instructions: those that pack numbers with
 * saturation, shuffle bytes and round halves, which compilers do not find. The same bits. For fused/lanes.h and store.h.
 *
 * A template: avx2.h and avx512.h include it after defining LANE_COUNT, floats and integers, V(x) and BITS_OF_V(x), the names of
 * instructions on these, and any_equal(). After it they have what they do each in their own way, by the same names.
 *
 * Lanes are an array, since a rule is written for one number: a loop over them is one instruction an operation, and gcc leaves
 * nothing of the array.
 *
 * They come in one of two orders. By words, as bits.h says that codes lie, of each word the first number, then the second, and so
 * on: so are parameters and gradients in bfloat16 a shift away. In order where parameters are float32 and have to stay as they are;
 * codes are then permuted, which for so few bytes is less work.
 */
typedef struct {
    _Alignas(4 * LANE_COUNT) float x[LANE_COUNT];
} lanes;

/* Twice as many elements: the first half and the second, or by words the even ones and the odd. */
typedef struct {
    lanes a, b;
} duo;

/* Of as many words of codes as there are lanes: elements 2j and 2j + 1, and 128 + 2j and 129 + 2j. */
typedef struct {
    duo low, high;
} quad;

/* The same bits. */
INLINED floats floats_of(integers x)
{
    return (floats)x;
}

INLINED integers integers_of(floats x)
{
    return (integers)x;
}

INLINED lanes lanes_of(floats x)
{
    lanes y;
    V(store_ps)(y.x, x);
    return y;
}

INLINED floats vector_of(lanes x)
{
    return V(load_ps)(x.x);
}

INLINED integers lane_bits(lanes x)
{
    return integers_of(vector_of(x));
}

INLINED integers load_words(const word *words)
{
    return BITS_OF_V(loadu)((const integers *)words);
}

INLINED void store_words(word *words, integers x)
{
    BITS_OF_V(storeu)((integers *)words, x);
}

/* ---- float32 ---- */

INLINED duo f32_get(const float *x)
{
    return (duo){lanes_of(V(loadu_ps)(x)), lanes_of(V(loadu_ps)(x + LANE_COUNT))};
}

INLINED void f32_put(float *x, duo y)
{
    V(storeu_ps)(x, vector_of(y.a));
    V(storeu_ps)(x + LANE_COUNT, vector_of(y.b));
}

/* The bits that any of both has, and those that both have. */
INLINED integers either(integers x, integers y)
{
    return BITS_OF_V(or)(x, y);
}

INLINED integers both(integers x, integers y)
{
    return BITS_OF_V (and)(x, y);
}

/* The larger magnitudes, as integers: NaN has the largest. */
INLINED integers larger_of_bits(lanes x, lanes y)
{
    const integers kept = V(set1_epi32)(MAGNITUDE);
    return V(max_epu32)(both(lane_bits(x), kept), both(lane_bits(y), kept));
}

/* Whether any of the numbers with these bits among them may be NaN: then all bits of the exponent are set, which they are in no
 * disjunction of numbers below 2. So parameters are seldom looked at one by one. */
INLINED bool may_be_nan(integers bits)
{
    const integers infinite = V(set1_epi32)(INFINITE);
    return any_equal(both(bits, infinite), infinite);
}

/* ---- bfloat16 ---- */

/* Halves of words, as the upper ones of lanes. */
INLINED integers low_halves(integers w)
{
    return V(slli_epi32)(w, 16);
}

INLINED integers high_halves(integers w)
{
    return both(w, V(set1_epi32)(-0x10000));
}

/* ---- 8 bits ---- */

/* Of codes times 2¹⁶; factor is the scale over that. */
INLINED lanes int8_numbers(integers x, floats factor)
{
    return lanes_of(V(mul_ps)(V(cvtepi32_ps)(x), factor));
}

/* Of codes times 2 to the STEEP, and LOWEST. */
INLINED lanes uint8_numbers(integers x, floats factor)
{
    return lanes_of(V(mul_ps)(floats_of(x), factor));
}

/* A lane with the ith byte in the place of its byte `to`, and 0 in the others: of what shuffles go by. */
#define LANE(i, to) ((int)(0x80808080U ^ (0x80U ^ (unsigned)(i)) << 8 * (to)))

/* By words. The codes of even bytes, and of odd ones, go into the halves of words; from there each is a shift away. */
INLINED quad int8_by_words(const word *codes, float scale)
{
    const floats factor = V(set1_ps)(scale * 0x1p-16f);
    const integers w = load_words(codes), even = V(maddubs_epi16)(V(set1_epi16)(1), w), odd = V(srai_epi16)(w, 8);
    return (quad){{int8_numbers(low_halves(even), factor), int8_numbers(low_halves(odd), factor)},
                  {int8_numbers(high_halves(even), factor), int8_numbers(high_halves(odd), factor)}};
}

INLINED quad uint8_by_words(const word *codes, float scale)
{
    const floats factor = V(set1_ps)(scale);
    const integers w = load_words(codes), kept = V(set1_epi32)(255 << STEEP), lowest = V(set1_epi32)(LOWEST);
#define NUMBERS(shifted) uint8_numbers(either(both(shifted, kept), lowest), factor)
    return (quad){{NUMBERS(V(slli_epi32)(w, STEEP)), NUMBERS(V(slli_epi32)(w, STEEP - 8))},
                  {NUMBERS(V(slli_epi32)(w, STEEP - 16)), NUMBERS(V(srli_epi32)(w, 24 - STEEP))}};
#undef NUMBERS
}

/* The codes, packed: of each 16 bytes by fours those of low.a, low.b, high.a and high.b. */
INLINED integers int8_packed(quad x, float fit)
{
    const floats factor = V(set1_ps)(fit);
#define NEAR(x) V(cvtps_epi32)(V(mul_ps)(vector_of(x), factor))
    const integers low = V(packs_epi32)(NEAR(x.low.a), NEAR(x.low.b)),
                   high = V(packs_epi32)(NEAR(x.high.a), NEAR(x.high.b));
#undef NEAR
    return V(packs_epi16)(low, high);
}

INLINED integers fitted(lanes x, float fit)
{
    return integers_of(V(mul_ps)(vector_of(x), V(set1_ps)(fit)));
}

/* As uint8_word(), of upper halves; what is less than the lowest code is negative, and becomes 0 when it is packed. */
INLINED integers uint8_codes(integers halves)
{
    return V(srai_epi16)(V(sub_epi16)(halves, V(set1_epi16)(BASE)), UPPER);
}

/* Where by words the bytes of each 16 are from: of int8_packed(), and of uint8_codes() packed. */
#define INT8_WORDS _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)
#define UINT8_WORDS _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15)
