/* RAdam: Liu et al. (2020), Algorithm 2, with torch's ε, beside the uncorrected root.
 *
 *     m ← b1 m + (1 − b1) g                             ck = 1 − bkᵗ
 *     v ← b2 v + (1 − b2) g²                            ρ∞ = 2 / (1 − b2) − 1,  ρ = ρ∞ − 2 t b2ᵗ / c2
 *     p ← p − η r (m / c1) √c2 / (√v + ε)               ρ > 5:  r² = (ρ − 4)(ρ − 2) ρ∞ / ((ρ∞ − 4)(ρ∞ − 2) ρ)
 *     p ← p − η m / c1                                  ρ ≤ 5:  too few gradients to trust v
 */
typedef struct {
    double b1, b2, eps;
} radam_hyper;
typedef struct {
    real a1, a2, eps; /* ak = 1 − bk */
    bool rectified;
} radam_step;

PER_STEP radam_step radam_at(const radam_hyper *o, int64_t t, double *rate)
{
    const double c1 = complement(o->b1, t), c2 = complement(o->b2, t);
    const double most = 2 / (1 - o->b2) - 1, rho = most - 2 * (double)t * (1 - c2) / c2;
    const bool rectified = rho > 5;
    *rate /= c1;
    if (rectified)
        *rate *= sqrt(c2 * ((rho - 4) * (rho - 2) * most) / ((most - 4) * (most - 2) * rho));
    return (radam_step){(real)(1 - o->b1), (real)(1 - o->b2), positive(o->eps), rectified};
}

PER_ELEMENT out radam(real g, real m, real v, radam_step h)
{
    m = average(m, g, h.a1);
    v = average(v, square(g), h.a2);
    return (out){.u = h.rectified ? m / (root(v) + h.eps) : m, .s0 = m, .s1 = v};
}

#define RULE radam
#define STATES 2
#include "../sweep.h"
