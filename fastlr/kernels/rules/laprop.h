/* LaProp: Ziyin, Wang & Ueda (2020): the gradient is divided first and averaged then, so that b1 and b2 are free of each
 * other. As in the authors' code, the average is one of steps, each with the rate of its time.
 *
 *     v ← b2 v + (1 − b2) g²                            c2 = 1 − b2ᵗ
 *     m ← b1 m + (1 − b1) η g / (√(v / c2) + ε)
 *     l ← b1 l + (1 − b1) η
 *     p ← p − (η / l) m                                 η / l = 1 / (1 − b1ᵗ) while η stays the same
 */
typedef struct {
    double b1, b2, eps;
} laprop_hyper;
typedef struct {
    real a1, a2, k, eps; /* ak = 1 − bk, k = η √c2 */
} laprop_step;

PER_STEP laprop_step laprop_at(const laprop_hyper *o, int64_t t, pace *x)
{
    const double c2 = complement(o->b2, t), eta = x->rate, l = o->b1 * x->carry[0] + (1 - o->b1) * eta;
    x->carry[0] = l;
    x->rate = l > 0 ? eta / l : 0;
    return (laprop_step){(real)(1 - o->b1), (real)(1 - o->b2), (real)(eta * sqrt(c2)), positive(o->eps * sqrt(c2))};
}

PER_ELEMENT out laprop(real g, real m, real v, laprop_step h)
{
    v = average(v, square(g), h.a2);
    m = average(m, h.k * (g / (root(v) + h.eps)), h.a1);
    return (out){.u = m, .s0 = m, .s1 = v};
}

#define RULE laprop
#define STATES 2
#define SQUARES 2
#define CARRY 1
#include "../sweep.h"

#define RULE laprop_cautious
#define OF laprop
#define STATES 2
#define SQUARES 2
#define CARRY 1
#define CAUTIOUS
#define READS 3
#include "../sweep.h"
