/* ASGD: Polyak & Juditsky (1992), with Bottou's rates as in torch. The average x is of no influence on the steps.
 *
 *     p ← p − μ λ p − μ g           μ = η at the first step, then what the one before left
 *     x ← x + a (p − x)             a = 1 / max(1, t − 1 − t0): x is p until t0
 *     μ ← η / (1 + λ η t)^α
 */
typedef struct {
    double lambd, alpha, t0;
} asgd_hyper;
typedef struct {
    real rate, shrink, a; /* shrink = μ λ */
} asgd_step;

PER_STEP asgd_step asgd_at(const asgd_hyper *o, int64_t t, pace *x)
{
    const double rate = t == 1 ? x->rate : x->carry[0], past = (double)t - 1 - o->t0;
    x->carry[0] = x->rate / power(1 + o->lambd * x->rate * (double)t, o->alpha);
    return (asgd_step){(real)rate, (real)(rate * o->lambd), (real)(past > 1 ? 1 / past : 1)};
}

PER_ELEMENT out asgd(real g, real p, real x, asgd_step h)
{
    p = p - (h.rate * g + h.shrink * p);
    return (out){.p = p, .s0 = average(x, p, h.a)};
}

#define RULE asgd
#define STATES 1
#define PRECISE 1
#define MOVES_P
#define CARRY 1
#include "../sweep.h"
