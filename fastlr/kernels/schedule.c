/* Values of schedules: integers to doubles, negative steps found, the instruction set chosen. */
#include "schedule.h"
#include "elementary.h"

#include <math.h>

static fastlr_evaluator *evaluator(void)
{
#ifdef __x86_64__
    static fastlr_evaluator *const of_isa[] = {fastlr_evaluate_baseline, fastlr_evaluate_avx2, fastlr_evaluate_avx512};
    return of_isa[fastlr_isa()];
#else
    return fastlr_evaluate_baseline;
#endif
}

enum { BLOCK = 256 };

static bool any_negative(size_t n, const double *t)
{
    uint64_t signs = 0;
    for (size_t i = 0; i < n; i++)
        signs |= bits_of(t[i]);
    if (signs >> 63 == 0)
        return false;
    for (size_t i = 0; i < n; i++)
        if (t[i] < 0) /* which −0 and NaN are not */
            return true;
    return false;
}

int fastlr_schedule(const fastlr_segment *table, size_t n, const double *t, double *out)
{
    return any_negative(n, t) ? FASTLR_NEGATIVE : evaluator()(table, n, t, NULL, out);
}

/* An integer beyond 2^53 as two doubles: without its last eleven bits it fits into one. */
static int wide_ints(const fastlr_segment *table, size_t n, const int64_t *t, double *out)
{
    double hi[BLOCK], lo[BLOCK];
    for (size_t i = 0; i < n; i++) {
        const int64_t low = t[i] & 0x7ff;
        const double a = (double)(t[i] - low), b = (double)low;
        hi[i] = a + b;
        lo[i] = b - (hi[i] - a);
    }
    return evaluator()(table, n, hi, lo, out);
}

static uint64_t any_bits(size_t n, const int64_t *t)
{
    uint64_t bits = 0;
    for (size_t i = 0; i < n; i++)
        bits |= (uint64_t)t[i];
    return bits;
}

/* Below 2^52 the bits of an integer are the last ones of a double from 2^52 on: a conversion that every instruction set has,
 * in vectors. */
static void to_doubles(size_t n, const int64_t *restrict t, double *restrict x, bool small)
{
    if (small)
        for (size_t i = 0; i < n; i++)
            x[i] = number_of((uint64_t)t[i] | UINT64_C(0x4330000000000000)) - 0x1p52;
    else
        for (size_t i = 0; i < n; i++)
            x[i] = (double)t[i];
}

int fastlr_schedule_ints(const fastlr_segment *table, size_t n, const int64_t *t, double *out)
{
    fastlr_evaluator *const evaluate = evaluator();
    double x[BLOCK];
    int status = 0;
    const uint64_t bits = any_bits(n, t);
    if (bits >> 63)
        return FASTLR_NEGATIVE;
    for (size_t k = 0; k < n; k += BLOCK) {
        const size_t m = n - k < BLOCK ? n - k : BLOCK;
        if (bits >> 53 && any_bits(m, t + k) >> 53)
            status |= wide_ints(table, m, t + k, out + k);
        else {
            to_doubles(m, t + k, x, bits >> 52 == 0);
            status |= evaluate(table, m, x, NULL, out + k);
        }
    }
    return status;
}

int fastlr_schedule_wide(const fastlr_segment *table, double hi, double lo, double *out)
{
    return evaluator()(table, 1, &hi, &lo, out);
}

double fastlr_stirling(double z)
{
    return stirling(z);
}
