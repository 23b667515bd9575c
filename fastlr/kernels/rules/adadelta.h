/* Adadelta: Zeiler (2012), Algorithm 1, with torch's rate η.
 *
 *     v ← ρ v + (1 − ρ) g²
 *     Δ = √(d + ε) / √(v + ε) · g
 *     d ← ρ d + (1 − ρ) Δ²
 *     p ← p − η Δ
 */
typedef struct {
    double rho, eps;
} adadelta_hyper;
typedef struct {
    real a, eps; /* a = 1 − ρ */
} adadelta_step;

PER_STEP adadelta_step adadelta_at(const adadelta_hyper *o, int64_t t, pace *x)
{
    (void)t, (void)x;
    return (adadelta_step){(real)(1 - o->rho), positive(o->eps)};
}

PER_ELEMENT out adadelta(real g, real v, real d, adadelta_step h)
{
    v = average(v, square(g), h.a);
    const real delta = root(d + h.eps) / root(v + h.eps) * g;
    d = average(d, square(delta), h.a);
    return (out){.u = delta, .s0 = v, .s1 = d};
}

#define RULE adadelta
#define STATES 2
#define SQUARES 3
#include "../sweep.h"
