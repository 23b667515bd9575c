/* The value of a compiled schedule at many times.
 *
 * A template: a file in curves/ includes it once, after defining
 *     TARGET    the instruction set as the compiler spells it; undefined for the compiler's own default
 *     EVALUATOR the name of the table of functions it defines: schedule.h
 *
 * Times are worked on in blocks. A segment with children finds the run of times that belongs to one child, puts them on the
 * child's clock and passes them on; a leaf is one loop without branches. One value is a block of one: each value comes
 * from the same operations however many there are, so scalar and vector agree bit for bit.
 *
 * For times beyond 2^53 `lo` has what the doubles in `t` cannot hold; it is NULL otherwise. Times that are `ascending`, as
 * those of a training run are, need not be looked at one by one to find a run.
 */
#include "elementary.h"
#include "schedule.h"

#include <float.h>

#include "target_begin.h"

#include "leaves.h"

enum { BLOCK = 256 };

static int evaluate(segment table, segment s, double gain, size_t n, const double *t, const double *lo, bool ascending,
                    double *out);

/* The value at t − origin. What most schedules are made of subtracts in its own loop. */
static int evaluate_since(segment table, segment s, double gain, size_t n, const double *t, double origin,
                          bool ascending, double *out)
{
    double since[BLOCK];
    if (s->kind == KIND_INTERPOLATE) {
        interpolate(s, gain, n, t, origin, out);
        return 0;
    }
    FOR_ALL since[i] = t[i] - origin;
    return evaluate(table, s, gain, n, since, NULL, ascending, out);
}

/* Whether t + lo lies before the segment. */
INLINED bool is_before(double t, double lo, segment s)
{
    return t < s->start || (t == s->start && lo < s->start_lo);
}

/* How many ascending times lie before `end`. */
static size_t count_before(size_t n, const double *t, double end)
{
    size_t low = 0;
    while (low < n) {
        const size_t middle = low + (n - low) / 2;
        if (t[middle] < end)
            low = middle + 1;
        else
            n = middle;
    }
    return n;
}

/* How many times from the first on, which does, lie in [from, to). */
static size_t run_length(size_t n, const double *t, const double *lo, bool ascending, segment from, segment to)
{
    if (ascending)
        return !to || t[n - 1] < to->start ? n : count_before(n, t, to->start);
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

/* Times less the start of a segment where they need two doubles each. */
static void since(segment s, size_t n, const double *restrict t, const double *restrict lo, double *restrict hi,
                  double *restrict rest)
{
    FOR_ALL
    {
        const double d = t[i] - s->start, back = d - t[i], error = (t[i] - (d - back)) + (-s->start - back);
        const double tail = error + (lo[i] - s->start_lo);
        hi[i] = d + tail;
        rest[i] = tail - (hi[i] - d);
    }
}

static int sequence(segment table, segment s, double gain, size_t n, const double *t, const double *lo, bool ascending,
                    double *out)
{
    const segment first = table + s->first, end = first + s->count;
    double hi[BLOCK], rest[BLOCK];
    int status = 0;
    for (size_t k = 0, m; k < n; k += m) {
        const segment child = find(first, (size_t)s->count, t[k], lo ? lo[k] : 0),
                      next = child + 1 < end ? child + 1 : NULL;
        m = run_length(n - k, t + k, lo ? lo + k : NULL, ascending, child, next);
        if (lo) {
            since(child, m, t + k, lo + k, hi, rest);
            status |= evaluate(table, child, gain, m, hi, rest, false, out + k);
        } else
            status |= evaluate_since(table, child, gain, m, t + k, child->start, ascending, out + k);
    }
    return status;
}

static void multiply(size_t n, double *restrict out, double by)
{
    FOR_ALL out[i] *= by;
}

enum { PERIOD = 0, GROWTH = 1, DECAY = 2, ONLY_START = 4 }; /* parameters of REPEAT */

static int one_cycle(segment table, segment s, double factor, double gain, size_t n, const double *t, double origin,
                     bool ascending, double *out)
{
    const bool only_start = s->p[ONLY_START] != 0;
    const double start = only_start ? gain * factor : gain;
    const int status = evaluate_since(table, table + s->first, start, n, t, origin, ascending, out);
    if (!only_start && factor != 1)
        multiply(n, out, factor);
    return status;
}

/* The first double that is not below x. */
INLINED double at_least(twofold x)
{
    return x.lo > 0 ? number_of(bits_of(x.hi) + 1) : x.hi;
}

/* Three ways to take off each time as many periods as fit into it: run by run, each by its own quotient, and for times
 * beyond 2^53. */
static void reduce_runs(double period, size_t n, const double *restrict t, double *restrict hi, double *restrict cycle)
{
    for (size_t k = 0, m; k < n; k += m) {
        const double c = floor_of(t[k], period, hi + k);
        const twofold from = product_of(c, period);
        m = count_before(n - k, t + k, at_least(product_of(c + 1, period)));
        for (size_t i = k; i < k + m; i++) {
            hi[i] = (t[i] - from.hi) - from.lo;
            cycle[i] = c;
        }
    }
}

static void reduce_each(double period, size_t n, const double *restrict t, double *restrict hi, double *restrict cycle)
{
    FOR_ALL cycle[i] = floor_of(t[i], period, &hi[i]);
}

static void reduce_wide(double period, size_t n, const double *restrict t, const double *restrict lo,
                        double *restrict hi, double *restrict cycle)
{
    FOR_ALL cycle[i] = floor_wide(t[i], lo[i], period, &hi[i]);
}

/* Cycles of one length. Times and multiples of the period from one period on are multiples of its last bit, so what is left
 * of a time is exact, and the three ways agree. */
static int repeat_equal(segment table, segment s, double gain, size_t n, const double *t, const double *lo,
                        bool ascending, double *out)
{
    enum { SHORT = 16 };
    const double period = s->p[PERIOD];
    const twofold decay = {s->p[DECAY], s->p[DECAY + 1]};
    double hi[BLOCK], cycle[BLOCK];
    ascending = ascending && t[n - 1] < 0x1p52 * period; /* else neighbours may count as one cycle */
    if (ascending) {                                     /* all in one cycle? */
        const double c = floor_of(t[0], period, hi);
        const twofold from = product_of(c, period);
        if (from.lo == 0 && t[n - 1] < at_least(product_of(c + 1, period)))
            return one_cycle(table, s, decay.hi == 0 ? 1 : power_of(decay, c), gain, n, t, from.hi, true, out);
    }
    if (lo)
        reduce_wide(period, n, t, lo, hi, cycle);
    else if (ascending && t[n - 1] - t[0] <= (double)(n / SHORT) * period)
        reduce_runs(period, n, t, hi, cycle);
    else
        reduce_each(period, n, t, hi, cycle);
    if (decay.hi == 0)
        return one_cycle(table, s, 1, gain, n, hi, 0, n == 1, out);
    int status = 0;
    for (size_t k = 0, m; k < n; k += m) {
        for (m = 1; k + m < n && cycle[k + m] == cycle[k]; m++)
            ;
        status |= one_cycle(table, s, power_of(decay, cycle[k]), gain, m, hi + k, 0, ascending, out + k);
    }
    return status;
}

/* Cycles that grow: one segment of the table for each, after the child, with its start, stretch and factor. */
static int repeat_growing(segment table, segment s, double gain, size_t n, const double *t, const double *lo,
                          bool ascending, double *out)
{
    const segment first = table + s->first + 1, end = table + s->first + s->count;
    double hi[BLOCK], rest[BLOCK];
    int status = 0;
    for (size_t k = 0, m; k < n; k += m) {
        const segment cycle = find(first, (size_t)(end - first), t[k], lo ? lo[k] : 0);
        const double start = cycle->start, stretch = cycle->p[0];
        m = run_length(n - k, t + k, lo ? lo + k : NULL, ascending, cycle, cycle + 1 < end ? cycle + 1 : NULL);
        if (lo)
            since(cycle, m, t + k, lo + k, hi, rest);
        for (size_t i = 0; i < m; i++)
            hi[i] = (lo ? hi[i] + rest[i] : t[k + i] - start) / stretch;
        status |= one_cycle(table, s, cycle->p[1], gain, m, hi, 0, ascending, out + k);
    }
    return status;
}

static int combine(segment table, segment s, size_t n, const double *t, const double *lo, bool ascending,
                   double *restrict out)
{
    double other[BLOCK];
    int status = evaluate(table, table + s->first, 1, n, t, lo, ascending, out);
    for (int64_t k = 1; k < s->count; k++) {
        status |= evaluate(table, table + s->first + k, 1, n, t, lo, ascending, other);
        if (s->kind == KIND_PRODUCT)
            FOR_ALL out[i] *= other[i];
        else
            FOR_ALL out[i] += other[i];
    }
    return status;
}

/* t' = (t − before) numerator / denominator + after, rounded down if asked; never below 0. */
static int on_another_clock(segment table, segment s, size_t n, const double *t, const double *lo, bool ascending,
                            double *out)
{
    const double before = s->p[0], numerator = s->p[1], denominator = s->p[2], after = s->p[3], whole = s->p[4];
    double hi[BLOCK], rest;
    FOR_ALL
    {
        const double x = lo ? (t[i] - before) + lo[i] : t[i] - before;
        const double y = x * numerator / denominator + after, z = y < 0 ? 0 : y;
        hi[i] = whole != 0 ? floor_of(z, 1, &rest) : z;
    }
    return evaluate(table, table + s->first, 1, n, hi, NULL, ascending && numerator > 0 && denominator > 0, out);
}

static int evaluate(segment table, segment s, double gain, size_t n, const double *t, const double *lo, bool ascending,
                    double *out)
{
    int status = 0;
    double kept[BLOCK];
    if (n == 0)
        return 0;
    switch (s->kind) {
    case KIND_SEQUENCE:
        return sequence(table, s, gain, n, t, lo, ascending, out);
    case KIND_REPEAT:
        return (s->count > 1 ? repeat_growing : repeat_equal)(table, s, gain, n, t, lo, ascending, out);
    case KIND_PRODUCT:
    case KIND_SUM:
        return combine(table, s, n, t, lo, ascending, out);
    case KIND_CLOCK:
        return on_another_clock(table, s, n, t, lo, ascending, out);
    case KIND_CLIP:
        status = evaluate(table, table + s->first, 1, n, t, lo, ascending, out);
        FOR_ALL out[i] = clipped(out[i], s->p[0], s->p[1]);
        return status;
    case KIND_SCALE:
        status = evaluate(table, table + s->first, 1, n, t, lo, ascending, out);
        multiply(n, out, s->p[0]);
        return status;
    case KIND_END: /* at p[0]: hold the value, be 0, or refuse */
        FOR_ALL kept[i] = t[i] > s->p[0] ? s->p[0] : lo ? t[i] + lo[i] : t[i];
        status = evaluate(table, table + s->first, gain, n, kept, NULL, ascending, out);
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

/* ---- all times: what they are is found out before anything is written ---- */

static int evaluate_doubles(segment table, size_t n, const double *t, double *out)
{
    uint64_t signs = n > 0 ? bits_of(t[0]) : 0;
    int64_t falls = 0;
    for (size_t i = 1; i < n; i++) {
        signs |= bits_of(t[i]);
        falls -= !(t[i - 1] <= t[i]); /* as NaN does */
    }
    if (signs >> 63) /* which −0 has as well, and NaN may */
        FOR_ALL if (t[i] < 0) return FASTLR_NEGATIVE;
    int status = 0;
    for (size_t k = 0; k < n; k += BLOCK)
        status |= evaluate(table, table, 1, n - k < BLOCK ? n - k : BLOCK, t + k, NULL, falls == 0, out + k);
    return status;
}

/* An integer beyond 2^53 as two doubles: without its last eleven bits it fits into one. */
static int evaluate_wide_ints(segment table, size_t n, const int64_t *t, double *out)
{
    double hi[BLOCK], lo[BLOCK];
    FOR_ALL
    {
        const int64_t low = t[i] & 0x7ff;
        const double a = (double)(t[i] - low), b = (double)low;
        hi[i] = a + b;
        lo[i] = b - (hi[i] - a);
    }
    return evaluate(table, table, 1, n, hi, lo, false, out);
}

/* Below 2^52 the bits of an integer are the last ones of a double from 2^52 on: a conversion that every instruction set has,
 * in vectors. */
static void to_doubles(size_t n, const int64_t *restrict t, double *restrict x, bool small)
{
    if (small)
        FOR_ALL x[i] = number_of((uint64_t)t[i] | UINT64_C(0x4330000000000000)) - 0x1p52;
    else
        FOR_ALL x[i] = (double)t[i];
}

static int evaluate_ints(segment table, size_t n, const int64_t *t, double *out)
{
    double x[BLOCK];
    uint64_t bits = n > 0 ? (uint64_t)t[0] : 0, falls = 0;
    for (size_t i = 1; i < n; i++) {
        bits |= (uint64_t)t[i];
        falls |= (uint64_t)t[i] - (uint64_t)t[i - 1];
    }
    if (bits >> 63)
        return FASTLR_NEGATIVE;
    int status = 0;
    for (size_t k = 0, m; k < n; k += m) {
        m = n - k < BLOCK ? n - k : BLOCK;
        const bool wide = t[k] >> 53;
        if (bits >> 53)
            for (size_t i = 1; i < m; i++)
                m = (t[k + i] >> 53 != 0) == wide ? m : i;
        if (wide)
            status |= evaluate_wide_ints(table, m, t + k, out + k);
        else {
            to_doubles(m, t + k, x, bits >> 52 == 0);
            status |= evaluate(table, table, 1, m, x, NULL, falls >> 63 == 0, out + k);
        }
    }
    return status;
}

static int evaluate_wide(segment table, double hi, double lo, double *out)
{
    return evaluate(table, table, 1, 1, &hi, &lo, false, out);
}

const fastlr_evaluator EVALUATOR = {evaluate_doubles, evaluate_ints, evaluate_wide};

#include "target_end.h"
