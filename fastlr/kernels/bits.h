/* Numbers in fewer bits, one at a time: what store.h and fused.h make loops of. INLINED is defined where this is included.
 *
 * Integer operations and correctly rounded float32 ones: the same bits everywhere.
 */
INLINED uint32_t word_of(float x)
{
    uint32_t b;
    memcpy(&b, &x, sizeof b);
    return b;
}

INLINED float float_of(uint32_t b)
{
    float x;
    memcpy(&x, &b, sizeof x);
    return x;
}

enum { MAGNITUDE = 0x7fffffff, INFINITE = 0x7f800000, QUIET = 0x00400000 };

/* Two bfloat16, or four codes of 8 bits, as a loop reads them: each is then a shift away, where widening them one by one
 * would be a permutation, of which processors do fewer at a time. */
typedef uint32_t __attribute__((aligned(1), may_alias)) word;

typedef struct {
    float a, b;
} pair;

/* ---- bfloat16: the upper half of a float32 ---- */

INLINED float bf16_widen(uint32_t code)
{
    return float_of(code << 16);
}

/* The word whose upper half is the code: to the nearest, of two the even one. Of the lower half 0x7fff is added, and 1 more where
 * the upper one is odd; what is subtracted instead is two operations on bits, which AVX-512 does in one. */
INLINED uint32_t bf16_round(uint32_t b)
{
    return b - ((b >> 16 & 1) ^ -UINT32_C(0x7fff));
}

/* Every NaN to one that rounding does not carry out of. */
INLINED uint32_t bf16_near(float x)
{
    return bf16_round(x != x ? INFINITE | QUIET : word_of(x));
}

INLINED uint32_t bf16_narrow(float x)
{
    return bf16_near(x) >> 16;
}

INLINED pair bf16_pair(uint32_t w)
{
    return (pair){float_of(w << 16), float_of(w & 0xffff0000)};
}

INLINED uint32_t bf16_join(uint32_t a, uint32_t b)
{
    return a >> 16 | (b & 0xffff0000);
}

INLINED uint32_t bf16_word(pair x)
{
    return bf16_join(bf16_near(x.a), bf16_near(x.b));
}

/* The same but for NaN, which stay as they are; only those may come that bfloat16 holds. */
INLINED uint32_t bf16_word_unsettled(pair x)
{
    return bf16_join(bf16_round(word_of(x.a)), bf16_round(word_of(x.b)));
}

/* Whether any of 2 n is NaN: what is more than infinity, added to what is missing to a power of two, has that bit. */
INLINED bool bf16_any_nan(size_t n, const word *codes)
{
    enum { BOTH = 1 << 16 | 1 };
    uint32_t bits = 0;
    for (size_t j = 0; j < n; j++)
        bits |= (codes[j] & 0x7fff * BOTH) + 0x7f * BOTH;
    return bits & UINT32_C(0x8000) * BOTH;
}

/* ---- 8 bits, in blocks with a scale ----
 *
 * Byte k of word j, of 64 in a block, is the code of element 2j, 2j + 1, 128 + 2j, 129 + 2j: as bfloat16 lie in words.
 *
 * A block that holds infinity or NaN becomes NaN wholly: its scale does, and its codes are 0. Values below 2⁻¹⁰⁰ count as
 * such; so neither the scale nor its inverse can leave float32's range. A block of zeros has scale 0.
 */

/* The largest magnitude, as an integer: compilers vectorise that, and not a maximum of floats. */
INLINED uint32_t largest_of(size_t n, const float *restrict x)
{
    uint32_t most = 0;
    for (size_t i = 0; i < n; i++) {
        const uint32_t m = word_of(x[i]) & MAGNITUDE;
        most = m > most ? m : most;
    }
    return most;
}

/* The scale with which the largest has the code of `top`, and what numbers are multiplied by on the way to their codes. */
INLINED float scale_of(uint32_t largest, float top, float *fit)
{
    const float most = float_of(largest), bounded = most > 0x1p-100f ? most : 0x1p-100f;
    *fit = top / bounded;
    return largest >= INFINITE ? float_of(INFINITE | QUIET) : largest ? bounded / top : 0;
}

/* Signed: integers from −127 to 127. Adding 1.5 · 2²³ rounds to the nearest integer, which the lowest bits then are. */
static const float INT8_TOP = 127;

/* Bytes 0 and 1 are used where they lie, in the mantissa of 2²³: the code times 1 or 256. */
INLINED float int8_widen(uint32_t w, int k, float scale)
{
    if (k >= 2)
        return (float)((int32_t)(w << (24 - 8 * k)) >> 24) * scale;
    const uint32_t unit = k % 2 ? 256 : 1, from_0 = word_of(0x1p23f) + 128 * unit;
    return (float_of((w & 255 * unit) ^ from_0) - float_of(from_0)) * (scale / (float)unit);
}

/* The word of the numbers x.a, x.b, y.a, y.b. */
INLINED uint32_t int8_word(pair x, pair y, float fit)
{
    const float rounder = 0x1.8p23f;
    const uint32_t b0 = word_of(x.a * fit + rounder), b1 = word_of(x.b * fit + rounder),
                   b2 = word_of(y.a * fit + rounder), b3 = word_of(y.b * fit + rounder);
    const uint32_t low = (b0 & 255) | b1 << 8, high = (b2 & 255) | b3 << 8;
    return (low & 0xffff) | high << 16;
}

/* Not negative: floats of 4 bits of exponent and 4 of mantissa, from 2⁻¹⁵ to 2 (1 − 2⁻⁵): 0 is not among them, so that no
 * small mean of squares becomes 0 and blows a step up. UPPER is where a code is in the upper half of a float, BASE what to take
 * from that half to round and have the lowest be 0. */
static const float UINT8_TOP = 1.9375f;
enum { STEEP = 19, LOWEST = 112 << 23, UPPER = STEEP - 16, BASE = (LOWEST >> 16) - (1 << (UPPER - 1)) };

INLINED float uint8_widen(uint32_t w, int k, float scale)
{
    const int up = STEEP - 8 * k;
    return float_of(((up < 0 ? w >> -up : w << up) & 255u << STEEP) | LOWEST) * scale;
}

/* x as a float whose upper half, rounded, holds the code. Compared as integers, which are ordered as the numbers are: processors
 * do more of that at a time, and with constants. */
INLINED uint32_t uint8_near(float x, float fit)
{
    const int32_t y = (int32_t)word_of(x * fit);
    return (uint32_t)(y > LOWEST ? y : LOWEST);
}

/* The word of the numbers x.a, x.b, y.a, y.b. Upper halves by twos in a word are rounded and narrowed at once: neither is less
 * than LOWEST, so that nothing is borrowed from one to the other. */
INLINED uint32_t uint8_word(pair x, pair y, float fit)
{
    enum { BOTH = BASE | BASE << 16 };
    const uint32_t b0 = uint8_near(x.a, fit), b1 = uint8_near(x.b, fit), b2 = uint8_near(y.a, fit),
                   b3 = uint8_near(y.b, fit);
    const uint32_t even = (b0 >> 16 | (b2 & 0xffff0000)) - BOTH, odd = (b1 >> 16 | (b3 & 0xffff0000)) - BOTH;
    return (even >> UPPER & 0x00ff00ff) | (odd << (8 - UPPER) & 0xff00ff00);
}

/* Of a block that is NaN: without this, its codes would tell which of two NaN an operation took. */
INLINED void clear_nan(word *codes, float scale)
{
    if (scale != scale)
        memset(codes, 0, FASTLR_QUANTUM);
}

/* Where a loop over the words of a block finds the element of byte k of word j, and that one's pair. */
enum { WORDS = FASTLR_QUANTUM / 4 };

INLINED size_t pair_of(size_t j, int k)
{
    return j + (size_t)(k / 2) * WORDS;
}

INLINED size_t element_of(size_t j, int k)
{
    return 2 * pair_of(j, k) + (size_t)(k % 2);
}
