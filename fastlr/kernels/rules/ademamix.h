/* AdEMAMix: Pagliardini et al. (2024), Algorithm 1: Adam with a second, much slower average of gradients beside the first.
 *
 *     m ← b1 m + (1 − b1) g                             c1 = 1 − b1ᵗ,  c2 = 1 − b2ᵗ
 *     n ← β n + (1 − β) g                               not corrected
 *     v ← b2 v + (1 − b2) g²
 *     p ← p − η (m / c1 + α n) / (√(v / c2) + ε)
 *
 * Over the first T steps α grows from 0 in a straight line, and over its own T β from b1, so that the half-life of what n
 * remembers does:
 *
 *     s = min(1, t / T)        α = s α∞        1 / ln β = (1 − s) / ln b1 + s / ln b3
 */
typedef struct {
    double b1, b2, b3, alpha, eps, alpha_warmup, beta3_warmup;
} ademamix_hyper;
typedef struct {
    real a1, a2, a3, k, eps; /* ak = 1 − bk, a3 = 1 − β, k = α c1 */
} ademamix_step;

/* 1 / ln b; 0 where b is. */
PER_STEP double half_life(double b)
{
    return b > 0 ? 1 / logarithm(b) : 0;
}

/* What part of a warm-up of so many steps is over. */
PER_STEP double warmed(double steps, int64_t t)
{
    return (double)t < steps ? (double)t / steps : 1;
}

PER_STEP ademamix_step ademamix_at(const ademamix_hyper *o, int64_t t, pace *x)
{
    const double c1 = complement(o->b1, t), c2 = complement(o->b2, t);
    const bool warming = (double)t < o->beta3_warmup;
    const double s = warmed(o->beta3_warmup, t), slow = (1 - s) * half_life(o->b1) + s * half_life(o->b3);
    const double b3 = warming && slow < 0 ? exponential(1 / slow) : o->b3,
                 alpha = warmed(o->alpha_warmup, t) * o->alpha;
    x->rate *= sqrt(c2) / c1;
    return (ademamix_step){(real)(1 - o->b1), (real)(1 - o->b2), (real)(1 - b3), (real)(alpha * c1),
                           positive(o->eps * sqrt(c2))};
}

PER_ELEMENT out ademamix(real g, real m, real n, real v, ademamix_step h)
{
    m = average(m, g, h.a1);
    n = average(n, g, h.a3);
    v = average(v, square(g), h.a2);
    const real both = m + h.k * n;
    return (out){.u = both / (root(v) + h.eps), .s0 = m, .s1 = n, .s2 = v, .way = both};
}

#define RULE ademamix
#define STATES 3
#define SQUARES 4
#include "../sweep.h"

#define RULE ademamix_cautious
#define OF ademamix
#define STATES 3
#define SQUARES 4
#define CAUTIOUS
#define HEADING way
#define READS 3
#include "../sweep.h"
