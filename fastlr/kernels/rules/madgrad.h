/* MADGRAD: Defazio & Jelassi (2021), Algorithm 1, in the form of the authors' code: dual averaging, whose step is always one
 * from x0, the parameter before its first step, over a cube root.
 *
 *     k = (η + ε) √t                                    0 where η is
 *     s ← s + k g
 *     v ← v + k g²
 *     z = x0 − s / (∛v + ε)
 *     p ← μ p + (1 − μ) z                               decoupled decay: − (η + ε) λ p
 */
typedef struct {
    double mu, eps;
} madgrad_hyper;
typedef struct {
    real a, k, eps, decay; /* a = 1 − μ */
} madgrad_step;

PER_STEP madgrad_step madgrad_at(const madgrad_hyper *o, int64_t t, pace *x)
{
    const double rate = x->rate > 0 ? x->rate + o->eps : 0;
    x->decay *= rate > 0 ? rate / x->rate : 0;
    x->rate = rate * sqrt((double)t);
    return (madgrad_step){(real)(1 - o->mu), (real)x->rate, positive(o->eps), (real)x->decay};
}

PER_ELEMENT out madgrad(real g, real p, real s, real v, real x0, madgrad_step h)
{
    s = s + h.k * g;
    v = v + h.k * square(g);
    const real moved = average(p, x0 - s / (cube_root(v) + h.eps), h.a);
    return (out){.p = h.decay != 0 ? moved - h.decay * p : moved, .s0 = s, .s1 = v};
}

#define RULE madgrad
#define STATES 2
#define PRECISE 3
#define ORIGIN
#define MOVES_P
#include "../sweep.h"
