/* FTRL-proximal: McMahan et al. (2013), Algorithm 1. The parameter is where the sum of all linear losses so far, each
 * held near its own point, with l1 |p| + ½ l2 p² on top, is least: exactly 0 while |z| ≤ l1.
 *
 *     σ = (√(n + g²) − √n) / η
 *     z ← z + g − σ p
 *     n ← n + g²
 *     p ← 0 where |z| ≤ l1, else (sign(z) l1 − z) / ((β + √n) / η + l2)
 *
 * A step with η = 0 changes nothing.
 */
typedef struct {
    double beta, l1, l2;
} ftrl_hyper;
typedef struct {
    real beta, l1, l2, inverse, on, off; /* inverse = 1 / η; on = 1 and off = 0, exchanged where η is 0 */
} ftrl_step;

PER_STEP ftrl_step ftrl_at(const ftrl_hyper *o, int64_t t, pace *x)
{
    (void)t;
    const bool on = x->rate > 0;
    const double inverse = on ? 1 / x->rate : 1;
    return (ftrl_step){positive(o->beta), (real)o->l1, (real)o->l2, (real)inverse, on, !on};
}

PER_ELEMENT out ftrl(real g, real p, real z, real n, ftrl_step h)
{
    g = h.on * g;
    const real before = root(n);
    n = n + g * g;
    const real after = root(n);
    z = z + (g - (after - before) * h.inverse * p);
    const real less = z > 0 ? h.l1 - z : -h.l1 - z, shrunk = modulus(z) <= h.l1 ? 0 : less;
    return (out){.p = h.off * p + h.on * (shrunk / ((h.beta + after) * h.inverse + h.l2)), .s0 = z, .s1 = n};
}

#define RULE ftrl
#define STATES 2
#define PRECISE 3
#define MOVES_P
#include "../sweep.h"
