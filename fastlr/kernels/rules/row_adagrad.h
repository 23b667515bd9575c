/* Row-wise Adagrad: one sum a row, of the mean squares of its gradients (as in FBGEMM; Mudigere et al., 2022, section 4.1.4;
 * Gupta et al., 2014).
 *
 *     s ← s + Σⱼ gⱼ² / width
 *     p ← p − η / (1 + (t − 1) λ) · g / (√s + ε)
 */
typedef struct {
    double lr_decay, eps;
} row_adagrad_hyper;
typedef struct {
    real eps, over; /* over = √s + ε, set for each row */
} row_adagrad_step;

PER_STEP row_adagrad_step row_adagrad_at(const row_adagrad_hyper *o, int64_t t, pace *x)
{
    x->rate /= 1 + (double)(t - 1) * o->lr_decay;
    return (row_adagrad_step){.eps = positive(o->eps)};
}

PER_ELEMENT out row_adagrad(real g, row_adagrad_step h)
{
    return (out){.u = g / h.over};
}

#define RULE row_adagrad
#define STATES 0
#include "../sweep.h"

/* Σ (scale g + l2 p)² in double: element j adds to lane j mod LANES, the lanes are added in order. */
static double row_square(size_t n, const real *restrict p, const real *restrict g, apply a)
{
    double lane[FASTLR_LANES] = {0}, sum = 0;
    size_t i = 0;
#define ADD(i, j)                                                                                                      \
    do {                                                                                                               \
        const real d = a.l2 != 0 ? a.scale * g[i] + a.l2 * p[i] : a.scale * g[i];                                      \
        lane[j] += (double)d * (double)d;                                                                              \
    } while (0)
    for (; i + FASTLR_LANES <= n; i += FASTLR_LANES)
        for (size_t j = 0; j < FASTLR_LANES; j++)
            ADD(i + j, j);
    for (size_t j = 0; i < n; i++, j++)
        ADD(i, j);
#undef ADD
    for (int j = 0; j < FASTLR_LANES; j++)
        sum += lane[j];
    return sum;
}

static void row_adagrad_row(size_t n, void *p, void *g, void *const *states, const fastlr_step *step, bool zero,
                            size_t k, fastlr_lanes *lanes)
{
    row_adagrad_block b = *(const row_adagrad_block *)step;
    real *s = states[0];
    (void)zero;
    *s = (real)((double)*s + row_square(n, p, g, b.a) / (double)n);
    b.h.over = root(*s) + b.h.eps;
    row_adagrad_sweep(n, p, g, states, (const void *)&b, false, k, lanes);
}

static const fastlr_rule row_adagrad_rows = {
    .name = "row_adagrad",
    .size = sizeof(real),
    .states = 1,
    .hypers = 2,
    .passes = 1,
    .accesses = 3, /* a row is in the cache when it is read again */
    .prepare = row_adagrad_prepare,
    .sweep = row_adagrad_row,
    .extent = {FASTLR_PER_ROW},
};
