/* Values of schedules: integers to doubles, negative steps found, the instruction set chosen. */
#include "schedule.h"

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

int fastlr_schedule(const fastlr_segment *table, size_t n, const double *t, double *out)
{
    int64_t negative = 0;
    for (size_t i = 0; i < n; i++)
        negative += t[i] < 0;
    return negative ? FASTLR_NEGATIVE : evaluator()(table, n, t, NULL, out);
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

int fastlr_schedule_ints(const fastlr_segment *table, size_t n, const int64_t *t, double *out)
{
    fastlr_evaluator *const evaluate = evaluator();
    double x[BLOCK];
    int status = 0;
    for (size_t k = 0; k < n; k += BLOCK) {
        const size_t m = n - k < BLOCK ? n - k : BLOCK;
        int64_t any = 0;
        uint64_t bits = 0;
        for (size_t i = 0; i < m; i++) {
            any |= t[k + i];
            bits |= (uint64_t)t[k + i];
            x[i] = (double)t[k + i];
        }
        if (any < 0)
            return FASTLR_NEGATIVE;
        status |= bits >> 53 ? wide_ints(table, m, t + k, out + k) : evaluate(table, m, x, NULL, out + k);
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
