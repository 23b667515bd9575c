/* AdaBelief: Zhuang et al. (2020), Algorithm 2, with the ε that the authors add to s at every step; in the order of
 * adam.h. Rectified as in their package: RAdam's rate, and ε beside the uncorrected root; r and ρ: rectify.h.
 *
 *     m ← b1 m + (1 − b1) g                             ck = 1 − bkᵗ
 *     s ← b2 s + (1 − b2) (g − m)² + ε
 *     p ← p − η (m / c1) / (√(s / c2) + ε)
 *
 *     p ← p − η r (m / c1) √c2 / (√s + ε)               rectified, ρ > 5
 *     p ← p − η m / c1                                  rectified, ρ ≤ 5
 */
typedef struct {
    double b1, b2, eps, rectify;
} adabelief_hyper;
typedef struct {
    real a1, a2, inside, outside; /* ak = 1 − bk */
    bits plain;                   /* not bool: see sgd.h */
} adabelief_step;

PER_STEP adabelief_step adabelief_at(const adabelief_hyper *o, int64_t t, pace *x)
{
    const double c1 = complement(o->b1, t), c2 = complement(o->b2, t);
    const bool rectify = o->rectify != 0;
    const double r = rectify ? rectification(o->b2, t) : sqrt(c2);
    const bool plain = r == 0;
    x->rate /= c1;
    if (!plain)
        x->rate *= r;
    const real outside = positive(rectify ? o->eps : o->eps * sqrt(c2));
    return (adabelief_step){(real)(1 - o->b1), (real)(1 - o->b2), positive(o->eps), outside, plain};
}

PER_ELEMENT out adabelief(real g, real m, real s, adabelief_step h)
{
    m = average(m, g, h.a1);
    s = average(s, square(g - m), h.a2) + h.inside;
    return (out){.u = h.plain ? m : m / (root(s) + h.outside), .s0 = m, .s1 = s};
}

#define RULE adabelief
#define STATES 2
#define SQUARES 2
#include "../sweep.h"

#define RULE adabelief_cautious
#define OF adabelief
#define STATES 2
#define SQUARES 2
#define CAUTIOUS
#define HEADING s0
#include "../sweep.h"
