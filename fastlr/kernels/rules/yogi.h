/* Yogi: Zaheer et al. (2018), Algorithm 2, with or without Adam's bias corrections; in the order of adam.h.
 *
 *     m ← b1 m + (1 − b1) g
 *     v ← v − (1 − b2) sign(v − g²) g²
 *     p ← p − η (m / c1) / (√(v / c2) + ε)              ck = 1 − bkᵗ, or 1 uncorrected
 *       = p − (η √c2 / c1) m / (√v + ε √c2)             or with ε in the place of ε √c2: epsilon-hat
 */
typedef struct {
    double b1, b2, eps, hat, corrected;
} yogi_hyper;
typedef struct {
    real a1, a2, eps; /* ak = 1 − bk */
} yogi_step;

PER_STEP yogi_step yogi_at(const yogi_hyper *o, int64_t t, pace *x)
{
    const bool corrected = o->corrected != 0;
    const double c1 = corrected ? complement(o->b1, t) : 1, c2 = corrected ? complement(o->b2, t) : 1;
    x->rate *= sqrt(c2) / c1;
    return (yogi_step){(real)(1 - o->b1), (real)(1 - o->b2), positive(o->hat != 0 ? o->eps : o->eps * sqrt(c2))};
}

PER_ELEMENT out yogi(real g, real m, real v, yogi_step h)
{
    const real q = square(g);
    m = average(m, g, h.a1);
    v = v - h.a2 * (sign(v - q) * q);
    return (out){.u = m / (root(v) + h.eps), .s0 = m, .s1 = v};
}

#define RULE yogi
#define STATES 2
#define SQUARES 2
#include "../sweep.h"

#define RULE yogi_cautious
#define OF yogi
#define STATES 2
#define SQUARES 2
#define CAUTIOUS
#define HEADING s0
#include "../sweep.h"
