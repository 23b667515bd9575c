/* QHAdam: Ma & Yarats (2019), section 4: Adam with each average discounted at once, by ν, beside the newest value.
 *
 *     m ← b1 m + (1 − b1) g
 *     v ← b2 v + (1 − b2) g²
 *     p ← p − η (ν1 m / c1 + (1 − ν1) g) / (√(ν2 v / c2 + (1 − ν2) g²) + ε)              ck = 1 − bkᵗ
 */
typedef struct {
    double b1, b2, eps, nu1, nu2;
} qhadam_hyper;
typedef struct {
    real a1, a2, k1, k2, n1, n2, eps; /* ak = 1 − bk, kk = νk / ck, nk = 1 − νk */
} qhadam_step;

PER_STEP qhadam_step qhadam_at(const qhadam_hyper *o, int64_t t, pace *x)
{
    (void)x;
    const double k1 = o->nu1 / complement(o->b1, t), k2 = o->nu2 / complement(o->b2, t);
    return (qhadam_step){(real)(1 - o->b1),  (real)(1 - o->b2),  (real)k1,        (real)k2,
                         (real)(1 - o->nu1), (real)(1 - o->nu2), positive(o->eps)};
}

PER_ELEMENT out qhadam(real g, real m, real v, qhadam_step h)
{
    const real q = square(g);
    m = average(m, g, h.a1);
    v = average(v, q, h.a2);
    const real mean = h.k1 * m + h.n1 * g;
    return (out){.u = mean / (root(h.k2 * v + h.n2 * q) + h.eps), .s0 = m, .s1 = v, .way = mean};
}

#define RULE qhadam
#define STATES 2
#define SQUARES 2
#include "../sweep.h"

#define RULE qhadam_cautious
#define OF qhadam
#define STATES 2
#define SQUARES 2
#define CAUTIOUS
#define HEADING way
#include "../sweep.h"
