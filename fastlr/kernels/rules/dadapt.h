/* D-Adaptation: Defazio & Mishchenko (2023). d is a lower bound of the distance from where training began, x0, to a
 * solution, and with it the rate. What a step finds out about d is for the next one: one pass.
 *
 * Adam, in the authors' form of Algorithm 5:
 *
 *     λ = η d                                     or η d √c2 / c1, with bias correction; ck = 1 − bkᵗ, b3 = √b2
 *     r ← b3 r + (1 − b3) Σ λ g s / (√v + ε)      with s and v as they were
 *     m ← b1 m + (1 − b1) λ g
 *     v ← b2 v + (1 − b2) g²
 *     s ← b3 s + (1 − b3) λ g
 *     p ← p − m / (√v + ε)
 *     d ← max(d, min(r / ((1 − b3) Σ|s|), d growth))
 */
typedef struct {
    double b1, b2, eps, d0, growth, corrected;
} dadapt_adam_hyper;
typedef struct {
    real a1, a2, a3, eps, rate; /* ak = 1 − bk */
} dadapt_adam_step;

/* 1 − √b, without cancellation. */
PER_STEP double root_complement(double b)
{
    return (1 - b) / (1 + sqrt(b));
}

/* What d becomes: an estimate that is not a number, as a sum of nothing or of NaN is none, changes nothing. */
PER_STEP double farther(double d, double estimate, double growth)
{
    const double most = d * growth, next = estimate < most ? estimate : most;
    return next > d && isfinite(next) ? next : d;
}

/* η d, corrected for the start of Adam's averages at 0. The first step begins with d0. */
PER_STEP double paced(double *d, double d0, double b1, double b2, bool corrected, int64_t t)
{
    if (*d == 0)
        *d = d0;
    return corrected ? *d * sqrt(complement(b2, t)) / complement(b1, t) : *d;
}

PER_STEP dadapt_adam_step dadapt_adam_at(const dadapt_adam_hyper *o, int64_t t, pace *x)
{
    const double by = paced(&x->carry[0], o->d0, o->b1, o->b2, o->corrected != 0, t), rate = x->rate * by;
    x->decay *= by;
    x->rate = is_finite((real)rate) ? 1 : rate; /* in m already, but refused where it is not finite */
    return (dadapt_adam_step){(real)(1 - o->b1), (real)(1 - o->b2), (real)root_complement(o->b2), positive(o->eps),
                              (real)rate};
}

PER_STEP void dadapt_adam_after(const dadapt_adam_hyper *o, int64_t t, pace *x)
{
    (void)t;
    const double a3 = root_complement(o->b2), r = sqrt(o->b2) * x->carry[1] + a3 * x->sums->sum[0];
    const double estimate = r / (a3 * x->sums->sum[1]);
    if (!isfinite(estimate))
        return;
    x->carry[0] = farther(x->carry[0], estimate, o->growth);
    x->carry[1] = r;
}

PER_ELEMENT out dadapt_adam(real g, real m, real v, real s, dadapt_adam_step h)
{
    const real paced = h.rate * g;
    const double ahead = (double)paced * (double)(s / (root(v) + h.eps));
    m = average(m, paced, h.a1);
    v = average(v, square(g), h.a2);
    s = average(s, paced, h.a3);
    return (out){
        .u = m / (root(v) + h.eps), .s0 = m, .s1 = v, .s2 = s, .sums = {.t0 = ahead, .t1 = (double)modulus(s)}};
}

#define RULE dadapt_adam
#define STATES 3
#define SQUARES 2
#define PRECISE 4
#define TRAIL 2
#define CARRY 2
#define SCOPE FASTLR_MODEL
#include "../sweep.h"

/* Gradient descent with momentum, in the authors' form of Algorithm 4: G is the norm of the first gradient, and the only
 * reason for a read before a step.
 *
 *     λ = η d / G
 *     r ← r + Σ λ g s                             with s as it was
 *     s ← s + λ g
 *     p ← μ p + (1 − μ) (x0 − s)
 *     d ← max(d, min(2 r / √Σs², d growth))
 */
typedef struct {
    double mu, d0, growth;
} dadapt_sgd_hyper;
typedef struct {
    real c, rate; /* c = 1 − μ */
} dadapt_sgd_step;

PER_STEP bool dadapt_sgd_asks(const double *carry)
{
    return carry[2] == 0;
}

PER_STEP dadapt_sgd_step dadapt_sgd_at(const dadapt_sgd_hyper *o, int64_t t, pace *x)
{
    (void)t;
    if (x->carry[0] == 0)
        x->carry[0] = o->d0;
    if (x->sums && isfinite(x->sums->sum[0]))
        x->carry[2] = sqrt(x->sums->sum[0]);
    x->rate = x->carry[2] > 0 ? x->rate * x->carry[0] / x->carry[2] : 0;
    return (dadapt_sgd_step){(real)(1 - o->mu), (real)x->rate};
}

PER_STEP void dadapt_sgd_after(const dadapt_sgd_hyper *o, int64_t t, pace *x)
{
    (void)t;
    const double r = x->carry[1] + x->sums->sum[0], estimate = 2 * r / sqrt(x->sums->sum[1]);
    if (!isfinite(estimate))
        return;
    x->carry[0] = farther(x->carry[0], estimate, o->growth);
    x->carry[1] = r;
}

PER_ELEMENT sums dadapt_sgd_survey(real g, real p, real s, real x0, dadapt_sgd_step h)
{
    (void)p, (void)s, (void)x0, (void)h;
    return (sums){.t0 = (double)g * (double)g};
}

PER_ELEMENT out dadapt_sgd(real g, real p, real s, real x0, dadapt_sgd_step h)
{
    const real paced = h.rate * g;
    const double ahead = (double)paced * (double)s;
    s = s + paced;
    return (out){.p = average(p, x0 - s, h.c), .s0 = s, .sums = {.t0 = ahead, .t1 = (double)s * (double)s}};
}

#define RULE dadapt_sgd
#define STATES 1
#define PRECISE 1
#define ORIGIN
#define MOVES_P
#define SURVEY 1
#define READS 0 /* but in the first step */
#define ASKS
#define TRAIL 2
#define CARRY 3
#define SCOPE FASTLR_MODEL
#include "../sweep.h"
