/* AdaHessian: Yao et al. (2021), Algorithm 1: Adam whose v averages the squares of a Hessian diagonal, D.
 *
 *     m ← b1 m + (1 − b1) g                             ck = 1 − bkᵗ
 *     v ← b2 v + (1 − b2) D²
 *     p ← p − η (m / c1) / ((√(v / c2))ᵏ + ε)           k = 1 or ½
 *       = p − (η q / c1) m / ((√v)ᵏ + ε q)              q = (√c2)ᵏ
 */
typedef struct {
    double b1, b2, eps, halved; /* whether k is ½ */
} adahessian_hyper;
typedef struct {
    real a1, a2, eps; /* ak = 1 − bk */
    bits halved;      /* not bool: see sgd.h */
} adahessian_step;

PER_STEP adahessian_step adahessian_at(const adahessian_hyper *o, int64_t t, pace *x)
{
    const double whole = sqrt(complement(o->b2, t)), q = o->halved != 0 ? sqrt(whole) : whole;
    x->rate *= q / complement(o->b1, t);
    return (adahessian_step){(real)(1 - o->b1), (real)(1 - o->b2), positive(o->eps * q), o->halved != 0};
}

PER_ELEMENT out adahessian(real g, real m, real v, real diagonal, adahessian_step h)
{
    m = average(m, g, h.a1);
    v = average(v, square(diagonal), h.a2);
    const real size = root(v);
    return (out){.u = m / ((h.halved ? root(size) : size) + h.eps), .s0 = m, .s1 = v};
}

#define RULE adahessian
#define STATES 2
#define SQUARES 2
#define INPUT
#include "../sweep.h"
