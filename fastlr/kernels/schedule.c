/* Values of schedules, by the instruction set there is. */
#include "schedule.h"

static const fastlr_evaluator *evaluator(void)
{
#ifdef __x86_64__
    static const fastlr_evaluator *const of_isa[] = {&fastlr_evaluator_baseline, &fastlr_evaluator_avx2,
                                                     &fastlr_evaluator_avx512};
    return of_isa[fastlr_isa()];
#else
    return &fastlr_evaluator_baseline;
#endif
}

int fastlr_schedule(const fastlr_segment *table, size_t n, const double *t, double *out)
{
    return evaluator()->doubles(table, n, t, out);
}

int fastlr_schedule_ints(const fastlr_segment *table, size_t n, const int64_t *t, double *out)
{
    return evaluator()->ints(table, n, t, out);
}

int fastlr_schedule_wide(const fastlr_segment *table, double hi, double lo, double *out)
{
    return evaluator()->wide(table, hi, lo, out);
}

double fastlr_stirling(double z)
{
    return stirling(z);
}
