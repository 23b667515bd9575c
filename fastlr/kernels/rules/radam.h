/* RAdam: Liu et al. (2020), Algorithm 2, with torch's ε, beside the uncorrected root. r and ρ: rectify.h.
 *
 *     m ← b1 m + (1 − b1) g                             ck = 1 − bkᵗ
 *     v ← b2 v + (1 − b2) g²
 *     p ← p − η r (m / c1) √c2 / (√v + ε)               ρ > 5
 *     p ← p − η m / c1                                  ρ ≤ 5
 *
 * or with ε √c2 in the place of ε: beside the corrected root, as in TensorFlow Addons and optax.
 */
typedef struct {
    double b1, b2, eps, beside;
} radam_hyper;
typedef struct {
    real a1, a2, eps; /* ak = 1 − bk */
    bits rectified;   /* not bool: see sgd.h */
} radam_step;

PER_STEP radam_step radam_at(const radam_hyper *o, int64_t t, pace *x)
{
    const double r = rectification(o->b2, t);
    const bool rectified = r != 0;
    x->rate /= complement(o->b1, t);
    if (rectified)
        x->rate *= r;
    const real eps = positive(o->beside != 0 ? o->eps * sqrt(complement(o->b2, t)) : o->eps);
    return (radam_step){(real)(1 - o->b1), (real)(1 - o->b2), eps, rectified};
}

PER_ELEMENT out radam(real g, real m, real v, radam_step h)
{
    m = average(m, g, h.a1);
    v = average(v, square(g), h.a2);
    return (out){.u = h.rectified ? m / (root(v) + h.eps) : m, .s0 = m, .s1 = v};
}

#define RULE radam
#define STATES 2
#define SQUARES 2
#include "../sweep.h"

#define RULE radam_cautious
#define OF radam
#define STATES 2
#define SQUARES 2
#define CAUTIOUS
#define HEADING s0
#include "../sweep.h"
