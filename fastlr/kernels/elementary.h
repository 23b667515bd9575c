/* Elementary functions in double, made of + − × ÷, integers and bits alone: the same bits on every platform, which the
 * mathematical library does not promise, and no branches, so that loops over them vectorise.
 *
 *     function            for                  within (ulps; measured by tests/test_elementary.py)
 *     exponential(x)      every x              1
 *     logarithm(x)        every x              1
 *     power(x, y)         x ≥ 0, every y       1 to |y ln x| = 10, 2 to 30, 8 to 100, 48 to the ends of double's range
 *     cosine_pi(x)        |x| ≤ 2^50           2: cos πx, exact at multiples of ½
 *     sine_pi(x)          |x| ≤ 2^50           2: sin πx, exact at multiples of ½
 *     tanh_of(x)          every x              3
 *
 * NaN gives NaN (power(NaN, 0) and power(1, NaN) too); overflow gives ∞, underflow denormals and then 0; the logarithm and
 * the power of a negative number are NaN. Nothing here is right under -ffast-math or with contraction.
 */
#ifndef FASTLR_ELEMENTARY_H
#define FASTLR_ELEMENTARY_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define ELEMENTARY static inline __attribute__((always_inline, unused))

/* hi + lo, where lo is at most half an ulp of hi. */
typedef struct {
    double hi, lo;
} twofold;

ELEMENTARY uint64_t bits_of(double x)
{
    uint64_t b;
    memcpy(&b, &x, sizeof b);
    return b;
}

ELEMENTARY double number_of(uint64_t b)
{
    double x;
    memcpy(&x, &b, sizeof x);
    return x;
}

/* a + b exactly, for |a| ≥ |b| or a = 0 (Dekker 1971). */
ELEMENTARY twofold sum_of(double a, double b)
{
    const double s = a + b;
    return (twofold){s, b - (s - a)};
}

/* a b to 106 bits (Dekker 1971; the halves by mask, which cannot overflow). */
ELEMENTARY twofold product_of(double a, double b)
{
    const double p = a * b, a1 = number_of(bits_of(a) & -(UINT64_C(1) << 27)), a2 = a - a1,
                 b1 = number_of(bits_of(b) & -(UINT64_C(1) << 27)), b2 = b - b1;
    return (twofold){p, ((a1 * b1 - p) + (a1 * b2 + a2 * b1)) + a2 * b2};
}

/* ln 2, its first part short enough that its product with any exponent is exact. */
static const double LN2_HI = 0x1.62e42feep-1, LN2_LO = 0x1.a39ef35793c76p-33, PER_LN2 = 0x1.71547652b82fep+0;

/* Added to |x| < 2^51 it rounds x to an integer, which its last bits then hold; taken off again it leaves the integer. */
static const double ROUNDER = 0x1.8p52;

/* ln x for finite x > 0, to about 2^-57 of itself.
 *
 *     x = 2^k m, √½ ≤ m < √2        s = (m − 1) / (m + 1)        ln x = k ln 2 + 2 (s + s³/3 + s⁵/5 + …)
 */
ELEMENTARY twofold logarithm_of(double x)
{
    const double small = x < 0x1p-1022 ? 1 : 0;
    const uint64_t b = bits_of(small != 0 ? x * 0x1p54 : x), half = UINT64_C(0x3fe6a09e667f3bcd),
                   one = UINT64_C(1) << 62;
    const uint64_t e = (b + (one - half)) >> 52; /* k + 1024 */
    const double k = number_of(e | UINT64_C(0x4330000000000000)) - (0x1p52 + 1024) - 54 * small;
    const double m = number_of(b - ((e << 52) - one)), f = m - 1, g = m + 1, g_lo = m - (g - 1);
    const double s = f / g;
    const twofold p = product_of(s, g);
    const double s_lo = (((f - p.hi) - p.lo) - s * g_lo) / g, z = s * s;
    double tail = 1. / 21;
    tail = 1. / 19 + z * tail;
    tail = 1. / 17 + z * tail;
    tail = 1. / 15 + z * tail;
    tail = 1. / 13 + z * tail;
    tail = 1. / 11 + z * tail;
    tail = 1. / 9 + z * tail;
    tail = 1. / 7 + z * tail;
    tail = 1. / 5 + z * tail;
    tail = 1. / 3 + z * tail;
    const twofold y = sum_of(k * LN2_HI, 2 * s);
    return sum_of(y.hi, y.lo + (k * LN2_LO + 2 * (s_lo + s * (z * tail))));
}

/* e^(x.hi + x.lo): e^x = 2^k e^r with |r| ≤ ln 2 / 2, by Taylor's series. */
ELEMENTARY double exponential_of(twofold x)
{
    /* Beyond, the result is ∞ or 0 anyway; NaN passes both comparisons. */
    const double above = x.hi > 710 ? 710 : x.hi, hi = above < -746 ? -746 : above;
    const double lo = hi == x.hi ? x.lo : 0;
    const double shifted = hi * PER_LN2 + ROUNDER, k = shifted - ROUNDER;
    const twofold r = sum_of(hi - k * LN2_HI, lo - k * LN2_LO);
    const double z = r.hi;
    double tail = 1. / 6227020800;
    tail = 1. / 479001600 + z * tail;
    tail = 1. / 39916800 + z * tail;
    tail = 1. / 3628800 + z * tail;
    tail = 1. / 362880 + z * tail;
    tail = 1. / 40320 + z * tail;
    tail = 1. / 5040 + z * tail;
    tail = 1. / 720 + z * tail;
    tail = 1. / 120 + z * tail;
    tail = 1. / 24 + z * tail;
    tail = 1. / 6 + z * tail;
    tail = 1. / 2 + z * tail;
    const double y = 1 + (z + (r.lo + (z * z) * tail));
    /* 2^k in two factors, neither of which leaves the normal range: y may end as a denormal, rounded once. */
    const uint64_t n = bits_of(shifted) - bits_of(ROUNDER), half = ((n + 2048) >> 1) - 1024;
    return y * number_of((half + 1023) << 52) * number_of((n - half + 1023) << 52);
}

ELEMENTARY double exponential(double x)
{
    return exponential_of((twofold){x, 0});
}

/* Exceptional arguments by one selection after the other: a nest of them becomes a branch, and the loop stays scalar. */
ELEMENTARY double logarithm(double x)
{
    double y = logarithm_of(x).hi;
    y = x == HUGE_VAL ? x : y;
    y = x == 0 ? -HUGE_VAL : y;
    return x >= 0 ? y : (double)NAN;
}

/* e^(y (l.hi + l.lo)), for l the logarithm of a base: computed once where the base is a constant. */
ELEMENTARY double power_of(twofold l, double y)
{
    const twofold p = product_of(l.hi, y);
    const double lo = p.lo + l.lo * y; /* NaN where p overflows; it is not used then */
    return exponential_of((twofold){p.hi, p.hi > -1000 && p.hi < 1000 ? lo : 0});
}

/* x^y. */
ELEMENTARY double power(double x, double y)
{
    double z = power_of(logarithm_of(x), y);
    z = x == HUGE_VAL ? (y > 0 ? x : 0) : z;
    z = x == 0 ? (y > 0 ? x : HUGE_VAL) : z;
    z = y == 0 ? 1 : z;
    z = y == y ? z : y;
    return x >= 0 ? z : (double)NAN;
}

/* cos πq and sin πq for |q| ≤ ¼, by their series. */
ELEMENTARY double cosine_near(double q)
{
    const double z = q * q;
    double tail = 0x1.20c62c2f2d7f5p-18;
    tail = -0x1.b6e24f44b128fp-14 + z * tail;
    tail = 0x1.f9d38a3763cc3p-10 + z * tail;
    tail = -0x1.a6d1f2a204a8cp-6 + z * tail;
    tail = 0x1.e1f506891babbp-3 + z * tail;
    tail = -0x1.55d3c7e3cbffap+0 + z * tail;
    tail = 0x1.03c1f081b5ac4p+2 + z * tail;
    tail = -0x1.3bd3cc9be45dep+2 + z * tail;
    return 1 + z * tail;
}

ELEMENTARY double sine_near(double q)
{
    const double z = q * q;
    double tail = 0x1.aaec32af93359p-21;
    tail = -0x1.6fadb9f155744p-16 + z * tail;
    tail = 0x1.e8f434d018d63p-12 + z * tail;
    tail = -0x1.e3074fde8871fp-8 + z * tail;
    tail = 0x1.50783487ee782p-4 + z * tail;
    tail = -0x1.32d2cce62bd86p-1 + z * tail;
    tail = 0x1.466bc6775aae2p+1 + z * tail;
    tail = -0x1.4abbce625be53p+2 + z * tail;
    return q * 0x1.921fb54442d18p+1 + q * (0x1.1a62633145c07p-53 + z * tail);
}

/* x = n + r with |r| ≤ ½, exactly: cos πx = (−1)ⁿ cos πr; beyond ¼ the other series, of ½ − |r|, which is exact there. */
ELEMENTARY double cosine_pi(double x)
{
    const double shifted = x + ROUNDER, r = fabs(x - (shifted - ROUNDER));
    const double y = r > 0.25 ? sine_near(0.5 - r) : cosine_near(r);
    return number_of(bits_of(y) ^ (bits_of(shifted) << 63));
}

ELEMENTARY double sine_pi(double x)
{
    const double shifted = x + ROUNDER, r = x - (shifted - ROUNDER), size = fabs(r);
    const double y = size > 0.25 ? cosine_near(0.5 - size) : sine_near(size);
    const double z = number_of(bits_of(y) ^ (bits_of(shifted) << 63));
    return r < 0 ? -z : z;
}

/* 1 − 2 / (e^2|x| + 1), and below 0.9, where that would cancel, sinh x / cosh x by their series. */
ELEMENTARY double tanh_of(double x)
{
    const double size = fabs(x), near = size < 0.9 ? size : 0, z = near * near;
    double odd = 1. / 355687428096000, even = 1. / 6402373705728000;
    odd = 1. / 1307674368000 + z * odd, even = 1. / 20922789888000 + z * even;
    odd = 1. / 6227020800 + z * odd, even = 1. / 87178291200 + z * even;
    odd = 1. / 39916800 + z * odd, even = 1. / 479001600 + z * even;
    odd = 1. / 362880 + z * odd, even = 1. / 3628800 + z * even;
    odd = 1. / 5040 + z * odd, even = 1. / 40320 + z * even;
    odd = 1. / 120 + z * odd, even = 1. / 720 + z * even;
    odd = 1. / 6 + z * odd, even = 1. / 24 + z * even;
    even = 1. / 2 + z * even;
    const double y = size < 0.9 ? (near + near * (z * odd)) / (1 + z * even) : 1 - 2 / (exponential(2 * size) + 1);
    return x < 0 ? -y : x != x ? x : y;
}

#endif
