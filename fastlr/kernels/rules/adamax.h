/* Adamax: Kingma & Ba (2015), Algorithm 2, with torch's ε, which is added to |g|.
 *
 *     m ← b1 m + (1 − b1) g
 *     n ← max(b2 n, |g| + ε)
 *     p ← p − (η / c1) m / n                            c1 = 1 − b1ᵗ
 */
typedef struct {
    double b1, b2, eps;
} adamax_hyper;
typedef struct {
    real a1, b2, eps; /* a1 = 1 − b1 */
} adamax_step;

PER_STEP adamax_step adamax_at(const adamax_hyper *o, int64_t t, double *rate)
{
    *rate /= complement(o->b1, t);
    return (adamax_step){(real)(1 - o->b1), (real)o->b2, positive(o->eps)};
}

PER_ELEMENT out adamax(real g, real m, real n, adamax_step h)
{
    m = average(m, g, h.a1);
    n = larger(h.b2 * n, modulus(g) + h.eps);
    return (out){.u = m / n, .s0 = m, .s1 = n};
}

#define RULE adamax
#define STATES 2
#include "../sweep.h"
