/* NAdam: Dozat (2016), Algorithm 2, with the momentum schedule of its section 3; in the order of adam.h.
 *
 *     μ(t) = b1 (1 − ½ 0.96^(t ψ))                      Π ← Π μ(t), 1 before the first step
 *     m ← b1 m + (1 − b1) g
 *     v ← b2 v + (1 − b2) g²                            c2 = 1 − b2ᵗ
 *     p ← p − η ((1 − μ(t)) g / (1 − Π) + μ(t + 1) m / (1 − Π μ(t + 1))) / (√(v / c2) + ε)
 */
typedef struct {
    double b1, b2, eps, psi;
} nadam_hyper;
typedef struct {
    real a1, a2, k1, k2, eps; /* ak = 1 − bk; k1 and k2 are the factors of g and m */
} nadam_step;

PER_STEP double nadam_momentum(const nadam_hyper *o, int64_t t)
{
    return o->b1 * (1 - 0.5 * power(0.96, (double)t * o->psi));
}

PER_STEP nadam_step nadam_at(const nadam_hyper *o, int64_t t, pace *x)
{
    const double c2 = complement(o->b2, t), now = nadam_momentum(o, t), next = nadam_momentum(o, t + 1);
    const double product = (t == 1 ? 1 : x->carry[0]) * now;
    x->carry[0] = product;
    x->rate *= sqrt(c2);
    return (nadam_step){(real)(1 - o->b1), (real)(1 - o->b2), (real)((1 - now) / (1 - product)),
                        (real)(next / (1 - product * next)), positive(o->eps * sqrt(c2))};
}

PER_ELEMENT out nadam(real g, real m, real v, nadam_step h)
{
    m = average(m, g, h.a1);
    v = average(v, square(g), h.a2);
    const real mean = h.k1 * g + h.k2 * m;
    return (out){.u = mean / (root(v) + h.eps), .s0 = m, .s1 = v, .way = mean};
}

#define RULE nadam
#define STATES 2
#define SQUARES 2
#define CARRY 1
#include "../sweep.h"

#define RULE nadam_cautious
#define OF nadam
#define STATES 2
#define SQUARES 2
#define CARRY 1
#define CAUTIOUS
#define HEADING way
#include "../sweep.h"
