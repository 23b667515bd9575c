/* The formulas of schedules: what each kind of segment without children is at many times, on its own clock.
 *
 * Part of the template curves.h, for the instruction set chosen there.
 */
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
    FOR_ALL out[i] = between(a, b, shape_of(place_of(t[i] - origin, offset, length), p));                              \
    break

static void interpolate(segment s, double gain, size_t n, const double *restrict t, double origin, double *restrict out)
{
    const double a = s->p[9] * gain, b = s->p[END], length = s->p[LENGTH], offset = s->p[OFFSET];
    const double p[2] = {s->p[SHAPE_AT], s->p[SHAPE_AT + 1]};
    const double per = clipped(0.5 / length, 0, DBL_MAX);
    switch (s->shape) {
    case SHAPE_LINEAR:
        FOR_ALL out[i] = linearly(t[i] - origin, offset, length, a, b);
        break;
    case SHAPE_COSINE:
        FOR_ALL out[i] = by_cosine(t[i] - origin, offset, length, per, a, b);
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
            const place x = place_of(t[i] - origin, offset, length);
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
        interpolate(s, gain, n, t, 0, out);
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
            const double left = power(clipped(1 - t[i] / (p[1] * cycles), 0, 1), p[2]);
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
