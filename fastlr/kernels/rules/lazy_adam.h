/* LazyAdam: Adam for the rows of a table, where most have no gradient most of the time. m and v fade in all rows at all
 * steps, but a row is brought up to date only when it is touched: l is the step at which that last happened.
 *
 *     k ← t − 1 − l        steps missed              l ← t
 *     m ← b1 (b1ᵏ m) + (1 − b1) g
 *     v ← b2 (b2ᵏ v) + (1 − b2) g²
 *     p ← p − (η √c2 / c1) m / (√v + ε √c2)
 *
 * Above b = 0.5 bᵏ x is computed as x − (1 − bᵏ) x, for the reason given at average(), else as bᵏ x; each with the factor
 * computed in double and narrowed once. k = 0 leaves the bits of x, and so of Adam, as they are.
 */
typedef adam_hyper lazy_adam_hyper;
typedef struct {
    real a1, a2, eps;
    real keep1, keep2, lose1, lose2; /* of a row: bᵏ x = keep x − lose x */
    double b1, b2;
    int64_t t;
} lazy_adam_step;

PER_STEP lazy_adam_step lazy_adam_at(const adam_hyper *o, int64_t t, pace *x)
{
    const adam_step h = adam_at(o, t, x);
    return (lazy_adam_step){
        .a1 = h.a1, .a2 = h.a2, .eps = h.eps, .keep1 = 1, .keep2 = 1, .b1 = o->b1, .b2 = o->b2, .t = t};
}

PER_ELEMENT out lazy_adam(real g, real m, real v, lazy_adam_step h)
{
    m = average(h.keep1 * m - h.lose1 * m, g, h.a1);
    v = average(h.keep2 * v - h.lose2 * v, square(g), h.a2);
    return (out){.u = m / (root(v) + h.eps), .s0 = m, .s1 = v};
}

#define RULE lazy_adam
#define STATES 2
#define SQUARES 2
#include "../sweep.h"

PER_STEP double whole_power(double b, int64_t k)
{
    double y = 1;
    for (; k > 0; k >>= 1, b *= b)
        if (k & 1)
            y *= b;
    return y;
}

PER_STEP void fade(double b, int64_t k, real *keep, real *lose)
{
    const double lost = complement(b, k);
    *keep = lost > 0.5 ? (real)whole_power(b, k) : 1;
    *lose = lost > 0.5 ? 0 : (real)lost;
}

static void lazy_adam_row(size_t n, void *p, void *g, void *const *s, const fastlr_step *step, bool zero, size_t k,
                          fastlr_lanes *lanes)
{
    lazy_adam_block b = *(const lazy_adam_block *)step;
    int64_t *l = s[2];
    const int64_t seen = *l < 0 ? 0 : *l, missed = seen < b.h.t ? b.h.t - 1 - seen : 0;
    (void)zero;
    if (missed > 0) {
        fade(b.h.b1, missed, &b.h.keep1, &b.h.lose1);
        fade(b.h.b2, missed, &b.h.keep2, &b.h.lose2);
    }
    *l = b.h.t;
    lazy_adam_sweep(n, p, g, s, (const void *)&b, false, k, lanes);
}

static const fastlr_rule lazy_adam_rows = {
    .name = "lazy_adam",
    .size = sizeof(real),
    .states = 3,
    .hypers = 4,
    .passes = 1,
    .accesses = 7,
    .prepare = lazy_adam_prepare,
    .sweep = lazy_adam_row,
    .extent = {FASTLR_ELEMENTS, FASTLR_ELEMENTS, FASTLR_COUNT_PER_ROW},
};
