/* Adan: Xie et al. (2022), Algorithm 1, with bias corrections and b = 1 − β as in the authors' code; in the order of adam.h.
 * l is the gradient of the step before; at the first, g − l counts as 0.
 *
 *     m ← b1 m + (1 − b1) g                             ck = 1 − bkᵗ
 *     d ← b2 d + (1 − b2) (g − l)
 *     n ← b3 n + (1 − b3) (g + b2 (g − l))²
 *     p ← (p − η (m / c1 + b2 d / c2) / (√(n / c3) + ε)) / (1 + η λ)
 *
 * or with plain decoupled decay, p − ηλp − η (…).
 */
typedef struct {
    double b1, b2, b3, eps, proximal;
} adan_hyper;
typedef struct {
    real a1, a2, a3, b2, k, eps, later; /* ak = 1 − bk, k = b2 c1 / c2, later = 0 at the first step, then 1 */
} adan_step;

PER_STEP adan_step adan_at(const adan_hyper *o, int64_t t, pace *x)
{
    const double c1 = complement(o->b1, t), c2 = complement(o->b2, t), c3 = complement(o->b3, t);
    x->rate *= sqrt(c3) / c1;
    if (o->proximal != 0) {
        const double shrink = 1 + x->decay;
        x->rate /= shrink;
        x->decay /= shrink;
    }
    return (adan_step){(real)(1 - o->b1),
                       (real)(1 - o->b2),
                       (real)(1 - o->b3),
                       (real)o->b2,
                       (real)(o->b2 * c1 / c2),
                       positive(o->eps * sqrt(c3)),
                       t != 1};
}

PER_ELEMENT out adan(real g, real m, real d, real n, real l, adan_step h)
{
    const real change = h.later * (g - l);
    m = average(m, g, h.a1);
    d = average(d, change, h.a2);
    n = average(n, square(g + h.b2 * change), h.a3);
    const real mean = m + h.k * d;
    return (out){.u = mean / (root(n) + h.eps), .s0 = m, .s1 = d, .s2 = n, .s3 = g, .way = mean};
}

#define RULE adan
#define STATES 4
#define SQUARES 4
#include "../sweep.h"

#define RULE adan_cautious
#define OF adan
#define STATES 4
#define SQUARES 4
#define CAUTIOUS
#define HEADING way
#define READS 4
#include "../sweep.h"
