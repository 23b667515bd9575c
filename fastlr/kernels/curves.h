/* The value of a compiled schedule at many times.
 *
 * A template: a file in curves/ includes it once, after defining
 *     TARGET    the instruction set as the compiler spells it; undefined for the compiler's own default
 *     EVALUATE  the name of the function it defines
 *
 * Times are worked on in blocks. A segment with children finds the run of times that belongs to one child, puts them on the
 * child's clock and passes them on; a leaf is one loop without branches. One value is a block of one: each value comes
 * from the same operations however many there are, so scalar and vector agree bit for bit.
 *
 * For times beyond 2^53 `lo` has what the doubles in `t` cannot hold; it is NULL otherwise.
 */
#include "elementary.h"
#include "schedule.h"

#include <float.h>

#include "target_begin.h"

#define FOR_ALL for (size_t i = 0; i < n; i++)

/* ---- arithmetic of times ---- */

/* ⌊x / y⌋ for x ≥ 0 < y, below 2^53, right where the division rounds up to an integer; `rest` is x less that many y. */
INLINED double floor_of(double x, double y, double *rest)
{
    const double q = x / y, near = (q + 0x1p52) - 0x1p52, n = q < 0x1p52 ? near : q;
    twofold p = product_of(n, y);
    double r = (x - p.hi) - p.lo;
    const double whole = r < 0 ? n - 1 : r >= y ? n + 1 : n;
    p = product_of(whole, y);
    r = (x - p.hi) - p.lo;
    *rest = r < 0 ? 0 : r;
    return whole;
}

/* The same for x + lo of any size. */
static double floor_wide(double x, double lo, double y, double *rest)
{
    const double n = floor(x / y);
    const twofold p = product_of(n, y);
    const double r = ((x - p.hi) - p.lo) + lo, more = floor(r / y), least = r - more * y;
    *rest = least < 0 ? 0 : least;
    return n + more;
}

INLINED double clipped(double x, double least, double most)
{
    const double y = x < least ? least : x;
    return y > most ? most : y;
}

/* ---- shapes: from 0 at u = 0 to 1 at u = 1 ---- */

typedef struct {
    double done, left; /* their sum is 1; the smaller one is right to an ulp or two of itself */
} progress;

/* u = x / length from whichever end is nearer, so that what is left near the end is as exact as what is done at first. */
typedef struct {
    double u, w; /* w = 1 − u */
    bool early;
    double q; /* the smaller one */
} place;

INLINED place place_of(double t, double offset, double length)
{
    const double x = clipped(t + offset, 0, length), y = length - x;
    const bool early = !(x > y);
    const double q = (early ? x : y) / length, other = 1 - q;
    return (place){early ? q : other, early ? other : q, early, q};
}

/* left = cos² (π uᵏ / 2)ᵉ */
INLINED progress shape_cosine_power(place a, const double *p)
{
    const double x = power(a.u, p[0]), s = sine_pi(0.5 * x), c = cosine_pi(0.5 * x);
    const double left = power(c * c, p[1]), done = p[1] == 1 ? s * s : 1 - left;
    return (progress){a.u == 1 ? 1 : done, a.u == 1 ? 0 : left};
}

INLINED progress shape_polynomial(place a, const double *p)
{
    const double left = power(a.w, p[0]);
    return (progress){1 - left, left};
}

/* timm's k-decay: left = (1 − uᵏ)ᵉ */
INLINED progress shape_polynomial_power(place a, const double *p)
{
    const double left = power(1 - power(a.u, p[1]), p[0]);
    return (progress){1 - left, left};
}

INLINED progress shape_power(place a, const double *p)
{
    const double done = power(a.u, p[0]);
    return (progress){done, 1 - done};
}

INLINED progress shape_root(place a, const double *p)
{
    (void)p;
    const double done = sqrt(a.u), left = a.w / (1 + done); /* 1 − √u without cancellation */
    return (progress){done, left};
}

INLINED progress shape_root_left(place a, const double *p)
{
    (void)p;
    const double left = sqrt(a.w), done = a.u / (1 + left);
    return (progress){done, left};
}

/* left = w / ((1 − d) + d w) */
INLINED progress shape_rex(place a, const double *p)
{
    const double below = (1 - p[0]) + p[0] * a.w;
    const double left = a.w / below, done = (1 - p[0]) * a.u / below;
    return (progress){a.w == 0 ? 1 : done, a.w == 0 ? 0 : left};
}

INLINED progress shape_tanh(place a, const double *p)
{
    const double y = tanh_of(p[0] * a.w + p[1] * a.u);
    return (progress){0.5 * (1 + y), 0.5 * (1 - y)};
}

/* done = (1 − e^−ku) / (1 − e^−k), p[1] being the divisor */
INLINED progress shape_exponential(place a, const double *p)
{
    const double done = a.w == 0 ? 1 : (1 - exponential(-p[0] * a.u)) / p[1];
    return (progress){done, 1 - done};
}

/* From a to b: exactly a at 0, exactly b at 1, and never beyond them. */
INLINED double between(double a, double b, progress f)
{
    return f.done < 0.5 ? a + (b - a) * f.done : b - (b - a) * f.left;
}

/* The two shapes that most schedules are made of, with fewer operations: part of the way back from the nearer end, which is
 * exactly none at the end itself. */
INLINED double linearly(double t, double offset, double length, double a, double b)
{
    const double x = clipped(t + offset, 0, length), y = length - x, d = b - a, part = (x < y ? x : y) / length;
    return (x < y ? a : b) + (x < y ? d : -d) * part;
}

/* sin² of half the angle; `per` is 1 / 2 length, and half way is exactly half. */
INLINED double by_cosine(double t, double offset, double length, double per, double a, double b)
{
    const double x = clipped(t + offset, 0, length), y = length - x, d = b - a, s = sine_near((x < y ? x : y) * per);
    const double square = s * s, part = square > 0.5 - 0x1p-51 ? 0.5 : square;
    return (x < y ? a : b) + (x < y ? d : -d) * part;
}

/* ---- the leaves ---- */

typedef const fastlr_segment *segment;

enum { END = 0, LENGTH = 1, OFFSET = 2, SHAPE_AT = 3 }; /* parameters of INTERPOLATE, after its start p[9] */

#define INTERPOLATION(shape_of)                                                                                        \
    FOR_ALL out[i] = between(a, b, shape_of(place_of(t[i], offset, length), p));                                       \
    break

static void interpolate(segment s, double gain, size_t n, const double *restrict t, double *restrict out)
{
    const double a = s->p[9] * gain, b = s->p[END], length = s->p[LENGTH], offset = s->p[OFFSET];
    const double p[2] = {s->p[SHAPE_AT], s->p[SHAPE_AT + 1]};
    const double per = clipped(0.5 / length, 0, DBL_MAX);
    switch (s->shape) {
    case SHAPE_LINEAR:
        FOR_ALL out[i] = linearly(t[i], offset, length, a, b);
        break;
    case SHAPE_COSINE:
        FOR_ALL out[i] = by_cosine(t[i], offset, length, per, a, b);
        break;
    case SHAPE_COSINE_POWER:
        INTERPOLATION(shape_cosine_power);
    case SHAPE_POLYNOMIAL:
        INTERPOLATION(shape_polynomial);
    case SHAPE_POLYNOMIAL_POWER:
        INTERPOLATION(shape_polynomial_power);
    case SHAPE_POWER:
        INTERPOLATION(shape_power);
    case SHAPE_ROOT:
        INTERPOLATION(shape_root);
    case SHAPE_ROOT_LEFT:
        INTERPOLATION(shape_root_left);
    case SHAPE_REX:
        INTERPOLATION(shape_rex);
    case SHAPE_TANH:
        INTERPOLATION(shape_tanh);
    case SHAPE_EXPONENTIAL:
        INTERPOLATION(shape_exponential);
    case SHAPE_GEOMETRIC: /* a (b/a)^u */
        FOR_ALL
        {
            const place x = place_of(t[i], offset, length);
            out[i] = x.w == 0 ? b : a * power_of((twofold){p[0], p[1]}, x.u);
        }
        break;
    }
}

/* ln Π (1 + d k) over k from 0 to n − 1, for n ≥ 0.
 *
 * For d ≥ 0.01 it is n ln d + ln Γ(n + 1/d) − ln Γ(1/d), by Stirling's series from 1/d + 16 on; for smaller d, where that
 * loses digits, Euler and Maclaurin's formula:
 *     ((1 + x) ln(1 + x) − x) / d − ½ ln(1 + x) + d/12 (1/(1 + x) − 1) − d³/360 (1/(1 + x)³ − 1) + …        x = d n
 */
INLINED double rising(double n, double d, double log_d, double at_0)
{
    return n * log_d + (stirling(n + 1 / d) - at_0);
}

INLINED double rising_slowly(double n, double d)
{
    const double x = d * n, y = 1 + x, l = logarithm(y) - ((y - 1) - x) / y, v = 1 / y, q = v * v; /* l = ln(1 + x) */
    /* (1 + x) ln(1 + x) − x cancels for small x: there it is x²/2 − x³/6 + x⁴/12 − … */
    double small = 0;
    for (int k = 16; k >= 2; k--)
        small = (k % 2 ? -1. : 1.) / (k * (k - 1)) + x * small;
    const double bulk = x < 0.1 ? x * x * small : y * l - x, d3 = d * d * d;
    return bulk / d - 0.5 * l + d / 12 * (v - 1) - d3 / 360 * (v * q - 1) + d3 * d * d / 1260 * (v * q * q - 1);
}

INLINED double triangle(double x, double up, double down)
{
    return x <= up ? x / up : (up + down - x) / down;
}

/* 64 mixed bits (Steele, Lea & Flood 2014, SplitMix64). */
INLINED uint64_t mixed(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static int leaf(segment s, double gain, size_t n, const double *restrict t, double *restrict out)
{
    const double *p = s->p;
    const double a = p[9] * gain; /* the value it starts from */
    const twofold log = {p[0], p[1]};
    double rest;
    switch (s->kind) {
    case KIND_CONSTANT:
        FOR_ALL out[i] = t[i] == t[i] ? a : t[i];
        break;
    case KIND_INTERPOLATE:
        interpolate(s, gain, n, t, out);
        break;
    case KIND_EXPONENTIAL: /* a e^(log (t + offset) / period) */
        if (p[4] != 0)
            FOR_ALL out[i] = a * power_of(log, floor_of(t[i] + p[3], p[2], &rest));
        else
            FOR_ALL out[i] = a * power_of(log, (t[i] + p[3]) / p[2]);
        break;
    case KIND_INVERSE_TIME: /* a / (1 + rate t / period) */
        if (p[2] != 0)
            FOR_ALL out[i] = a / (1 + p[0] * floor_of(t[i], p[1], &rest));
        else
            FOR_ALL out[i] = a / (1 + p[0] * t[i] / p[1]);
        break;
    case KIND_TIME_BASED: /* a / Π (1 + d k) */
        if (p[0] < 0.01)
            FOR_ALL out[i] = a * exponential(-rising_slowly(t[i], p[0]));
        else
            FOR_ALL
            {
                const double y = exponential(-rising(t[i], p[0], p[1], p[2]));
                out[i] = a * (t[i] == 0 ? 1 : y);
            }
        break;
    case KIND_INVERSE_SQRT:
        FOR_ALL out[i] = a / sqrt((t[i] + p[0]) / p[0]);
        break;
    case KIND_NOAM: /* a min(m^−½, m W^−1½), m = t + 1 */
        FOR_ALL
        {
            const double m = t[i] + 1, falling = 1 / sqrt(m), growing = m * p[0];
            out[i] = a * (growing < falling ? growing : falling);
        }
        break;
    case KIND_POWER_LAW: /* min(ceiling, a (t k)^−e) */
        FOR_ALL
        {
            const double y = a * power(t[i] * p[1], -p[0]);
            out[i] = y > p[2] ? p[2] : y;
        }
        break;
    case KIND_POLYNOMIAL_CYCLE: /* the length is the next multiple of p[1] */
        FOR_ALL
        {
            const double whole = floor_of(t[i], p[1], &rest), cycles = rest > 0 || whole == 0 ? whole + 1 : whole;
            const double left = power(1 - t[i] / (p[1] * cycles), p[2]);
            out[i] = between(a, p[0], (progress){1 - left, left});
        }
        break;
    case KIND_TRIANGLE: /* low, high, up, down, ln of the factor of each cycle or of each step */
        FOR_ALL
        {
            double x;
            const double cycle = floor_of(t[i], p[3] + p[4], &x);
            const double f = triangle(x, p[3], p[4]);
            const double scale = power_of((twofold){p[5], p[6]}, p[7] != 0 ? t[i] : cycle), done = f * scale;
            out[i] = between(a, p[2], (progress){done, 1 - done});
        }
        break;
    case KIND_NOISE: { /* uniform from a to p[0]; the seed is in `shape` */
        const uint64_t seed = mixed((uint64_t)s->shape + UINT64_C(0x9e3779b97f4a7c15));
        FOR_ALL
        {
            const double step = floor_of(t[i], 1, &rest);
            const uint64_t word = mixed(seed ^ mixed(bits_of(step) + UINT64_C(0x9e3779b97f4a7c15)));
            /* 52 random bits below 1, less 1: exact, and no conversion of integers */
            const double u = number_of((word >> 12) | UINT64_C(0x3ff0000000000000)) - 1;
            out[i] = t[i] == t[i] ? a + (p[0] - a) * u : t[i];
        }
        break;
    }
    case KIND_CUSTOM:
        return ((fastlr_custom)(intptr_t)s->first)((void *)(intptr_t)s->count, n, t, out) ? 0 : FASTLR_FAILED;
    }
    return 0;
}

/* ---- segments with children ---- */

enum { BLOCK = 256 };

static int evaluate(segment table, segment s, double gain, size_t n, const double *t, const double *lo, double *out);

/* Whether t + lo lies before the segment. */
INLINED bool is_before(double t, double lo, segment s)
{
    return t < s->start || (t == s->start && lo < s->start_lo);
}

/* How many times from the first on lie in [from, to): all, mostly, which one loop without branches finds out. */
static size_t run_length(size_t n, const double *t, const double *lo, segment from, segment to)
{
    if (!lo) {
        const double least = from->start, most = to ? to->start : HUGE_VAL;
        int64_t outside = 0;
        FOR_ALL outside += t[i] < least || t[i] >= most;
        if (outside == 0)
            return n;
    }
    size_t k = 1;
    while (k < n && !is_before(t[k], lo ? lo[k] : 0, from) &&
           (!to || is_before(t[k], lo ? lo[k] : 0, to) || t[k] != t[k]))
        k++;
    return k;
}

/* The last of `count` that t + lo is not before. */
static segment find(segment first, size_t count, double t, double lo)
{
    size_t low = 0;
    while (count - low > 1) {
        const size_t middle = low + (count - low) / 2;
        if (is_before(t, lo, &first[middle]))
            count = middle;
        else
            low = middle;
    }
    return &first[low];
}

/* Times less start, on the child's clock; NULL for a `lo` that is no longer needed. */
static const double *since(segment s, size_t n, const double *restrict t, const double *restrict lo,
                           double *restrict hi, double *restrict rest)
{
    if (!lo) {
        const double start = s->start;
        FOR_ALL hi[i] = t[i] - start;
        return NULL;
    }
    FOR_ALL
    {
        const double d = t[i] - s->start, back = d - t[i], error = (t[i] - (d - back)) + (-s->start - back);
        const double tail = error + (lo[i] - s->start_lo);
        hi[i] = d + tail;
        rest[i] = tail - (hi[i] - d);
    }
    return rest;
}

static int sequence(segment table, segment s, double gain, size_t n, const double *t, const double *lo, double *out)
{
    const segment first = table + s->first, end = first + s->count;
    double hi[BLOCK], rest[BLOCK];
    int status = 0;
    for (size_t k = 0, m; k < n; k += m) {
        const segment child = find(first, (size_t)s->count, t[k], lo ? lo[k] : 0),
                      next = child + 1 < end ? child + 1 : NULL;
        m = run_length(n - k, t + k, lo ? lo + k : NULL, child, next);
        const double *tail = since(child, m, t + k, lo ? lo + k : NULL, hi, rest);
        status |= evaluate(table, child, gain, m, hi, tail, out + k);
    }
    return status;
}

static void multiply(size_t n, double *restrict out, double by)
{
    FOR_ALL out[i] *= by;
}

enum { PERIOD = 0, GROWTH = 1, DECAY = 2, ONLY_START = 4 }; /* parameters of REPEAT */

static int one_cycle(segment table, segment s, double factor, double gain, size_t n, const double *t, const double *lo,
                     double *out)
{
    const bool only_start = s->p[ONLY_START] != 0;
    const int status = evaluate(table, table + s->first, only_start ? gain * factor : gain, n, t, lo, out);
    if (!only_start && factor != 1)
        multiply(n, out, factor);
    return status;
}

/* Puts times on the clock of the cycle between two multiples of the period; whether all of them lie in it. */
static bool in_cycle(size_t n, const double *restrict t, twofold from, twofold to, double *restrict since)
{
    uint64_t early = 0, left = ~UINT64_C(0); /* their signs */
    FOR_ALL
    {
        const double r = (t[i] - from.hi) - from.lo;
        early |= bits_of(r);
        left &= bits_of((t[i] - to.hi) - to.lo);
        since[i] = r < 0 ? 0 : r;
    }
    return (early >> 63 == 0) & (left >> 63 == 1);
}

/* How many times from the first on, which does, lie in the cycle; `since` has those on its clock. */
static size_t same_cycle(size_t n, const double *t, twofold from, twofold to, double *since)
{
    enum { FEW = 32 };
    if (in_cycle(n, t, from, to, since))
        return n;
    size_t k = 0;
    while (n - k >= FEW && in_cycle(FEW, t + k, from, to, since + k))
        k += FEW;
    for (k += k == 0; k < n && in_cycle(1, t + k, from, to, since + k); k++)
        ;
    return k;
}

/* Cycles of one length. A run of times in one cycle is put on its clock by one subtraction; where runs are short, a stretch
 * of times is reduced at once, each by its own quotient. Both take the same multiple of the period off a time. */
enum { SHORT = 16, STRETCH = 64 };

static int repeat_equal(segment table, segment s, double gain, size_t n, const double *t, const double *lo, double *out)
{
    const double period = s->p[PERIOD];
    const twofold decay = {s->p[DECAY], s->p[DECAY + 1]};
    double hi[BLOCK], cycle[BLOCK];
    int status = 0;
    for (size_t k = 0, m; k < n; k += m) {
        const double *x = t + k;
        double c = lo ? floor_wide(x[0], lo[k], period, hi) : floor_of(x[0], period, hi);
        const twofold from = product_of(c, period), to = product_of(c + 1, period);
        m = lo ? 1 : same_cycle(n - k, x, from, to, hi);
        if (m >= SHORT || m == n - k) {
            status |= one_cycle(table, s, decay.hi == 0 ? 1 : power_of(decay, c), gain, m, hi, NULL, out + k);
            continue;
        }
        m = n - k < STRETCH ? n - k : STRETCH;
        if (lo)
            for (size_t i = 0; i < m; i++)
                cycle[i] = floor_wide(x[i], lo[k + i], period, &hi[i]);
        else
            for (size_t i = 0; i < m; i++)
                cycle[i] = floor_of(x[i], period, &hi[i]);
        if (decay.hi == 0) {
            status |= one_cycle(table, s, 1, gain, m, hi, NULL, out + k);
            continue;
        }
        for (size_t j = 0, run; j < m; j += run) {
            for (run = 1; j + run < m && cycle[j + run] == cycle[j]; run++)
                ;
            status |= one_cycle(table, s, power_of(decay, cycle[j]), gain, run, hi + j, NULL, out + k + j);
        }
    }
    return status;
}

/* Cycles that grow: one segment of the table for each, after the child, with its start, stretch and factor. */
static int repeat_growing(segment table, segment s, double gain, size_t n, const double *t, const double *lo,
                          double *out)
{
    const segment first = table + s->first + 1, end = table + s->first + s->count;
    double hi[BLOCK], rest[BLOCK];
    int status = 0;
    for (size_t k = 0, m; k < n; k += m) {
        const segment cycle = find(first, (size_t)(end - first), t[k], lo ? lo[k] : 0);
        m = run_length(n - k, t + k, lo ? lo + k : NULL, cycle, cycle + 1 < end ? cycle + 1 : NULL);
        const double *tail = since(cycle, m, t + k, lo ? lo + k : NULL, hi, rest), stretch = cycle->p[0];
        for (size_t i = 0; i < m; i++)
            hi[i] = tail ? (hi[i] + tail[i]) / stretch : hi[i] / stretch;
        status |= one_cycle(table, s, cycle->p[1], gain, m, hi, NULL, out + k);
    }
    return status;
}

static int combine(segment table, segment s, size_t n, const double *t, const double *lo, double *restrict out)
{
    double other[BLOCK];
    int status = evaluate(table, table + s->first, 1, n, t, lo, out);
    for (int64_t k = 1; k < s->count; k++) {
        status |= evaluate(table, table + s->first + k, 1, n, t, lo, other);
        if (s->kind == KIND_PRODUCT)
            FOR_ALL out[i] *= other[i];
        else
            FOR_ALL out[i] += other[i];
    }
    return status;
}

/* t' = (t − before) numerator / denominator + after, rounded down if asked; never below 0. */
static int on_another_clock(segment table, segment s, size_t n, const double *t, const double *lo, double *out)
{
    const double before = s->p[0], numerator = s->p[1], denominator = s->p[2], after = s->p[3], whole = s->p[4];
    double hi[BLOCK], rest;
    FOR_ALL
    {
        const double x = lo ? (t[i] - before) + lo[i] : t[i] - before;
        const double y = x * numerator / denominator + after, z = y < 0 ? 0 : y;
        hi[i] = whole != 0 ? floor_of(z, 1, &rest) : z;
    }
    return evaluate(table, table + s->first, 1, n, hi, NULL, out);
}

static int evaluate(segment table, segment s, double gain, size_t n, const double *t, const double *lo, double *out)
{
    int status = 0;
    double kept[BLOCK];
    if (n == 0)
        return 0;
    switch (s->kind) {
    case KIND_SEQUENCE:
        return sequence(table, s, gain, n, t, lo, out);
    case KIND_REPEAT:
        return (s->count > 1 ? repeat_growing : repeat_equal)(table, s, gain, n, t, lo, out);
    case KIND_PRODUCT:
    case KIND_SUM:
        return combine(table, s, n, t, lo, out);
    case KIND_CLOCK:
        return on_another_clock(table, s, n, t, lo, out);
    case KIND_CLIP:
        status = evaluate(table, table + s->first, 1, n, t, lo, out);
        FOR_ALL out[i] = clipped(out[i], s->p[0], s->p[1]);
        return status;
    case KIND_SCALE:
        status = evaluate(table, table + s->first, 1, n, t, lo, out);
        multiply(n, out, s->p[0]);
        return status;
    case KIND_END: /* at p[0]: hold the value, be 0, or refuse */
        FOR_ALL kept[i] = t[i] > s->p[0] ? s->p[0] : lo ? t[i] + lo[i] : t[i];
        status = evaluate(table, table + s->first, gain, n, kept, NULL, out);
        if (s->p[1] == 1)
            FOR_ALL out[i] = t[i] >= s->p[0] ? 0 : out[i];
        if (s->p[1] == 2)
            FOR_ALL status |= t[i] >= s->p[0] ? FASTLR_ENDED : 0;
        return status;
    default:
        if (!lo)
            return leaf(s, gain, n, t, out);
        FOR_ALL kept[i] = t[i] + lo[i];
        return leaf(s, gain, n, kept, out);
    }
}

int EVALUATE(const fastlr_segment *table, size_t n, const double *t, const double *lo, double *out)
{
    int status = 0;
    for (size_t k = 0; k < n; k += BLOCK) {
        const size_t m = n - k < BLOCK ? n - k : BLOCK;
        status |= evaluate(table, table, 1, m, t + k, lo ? lo + k : NULL, out + k);
    }
    return status;
}

#include "target_end.h"
