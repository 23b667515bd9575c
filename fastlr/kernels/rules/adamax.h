/* Adamax: Kingma & Ba (2015), Algorithm 2, with torch's ε, which is added to |g|.
 *
 *     m ← b1 m + (1 − b1) g
 *     n ← max(b2 n, |g| + ε)
 *     p ← p − (η / c1) m / n                            c1 = 1 − b1ᵗ
 *
 * or, as in Keras, n ← max(b2 n, |g|) and m / (n + ε).
 */
typedef struct {
    double b1, b2, eps, after;
} adamax_hyper;
typedef struct {
    real a1, b2, inside, outside; /* a1 = 1 − b1; ε is inside the maximum or outside, the other is 0 */
} adamax_step;

PER_STEP adamax_step adamax_at(const adamax_hyper *o, int64_t t, pace *x)
{
    x->rate /= complement(o->b1, t);
    const real eps = positive(o->eps);
    const bool after = o->after != 0;
    return (adamax_step){(real)(1 - o->b1), (real)o->b2, after ? 0 : eps, after ? eps : 0};
}

PER_ELEMENT out adamax(real g, real m, real n, adamax_step h)
{
    m = average(m, g, h.a1);
    n = larger(h.b2 * n, modulus(g) + h.inside);
    return (out){.u = m / (n + h.outside), .s0 = m, .s1 = n};
}

#define RULE adamax
#define STATES 2
#define SQUARES 2
#include "../sweep.h"

#define RULE adamax_cautious
#define OF adamax
#define STATES 2
#define SQUARES 2
#define CAUTIOUS
#define HEADING s0
#include "../sweep.h"
