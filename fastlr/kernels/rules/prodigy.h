/* Prodigy: Mishchenko & Defazio (2024), Algorithm 4. As D-Adaptation, which it grew from: d is the rate, a lower bound of
 * the distance from x0, and what a step finds out about it is for the next one.
 *
 *     λ = η d                                     or η d √c2 / c1, with bias correction; ck = 1 − bkᵗ
 *     r ← b3 r + Σ λ (d / d0) g (x0 − p)
 *     m ← b1 m + (1 − b1) d g
 *     v ← b2 v + (1 − b2) d² g²
 *     s ← b3 s + λ (d / d0) g                     d in the place of λ, to safeguard a warm-up
 *     p ← p − λ m / (√v + d ε)
 *     d ← min(max(every estimate yet), d growth), where the estimate is k r / Σ|s|
 */
typedef struct {
    double b1, b2, b3, eps, d0, k, growth, corrected, safeguard;
} prodigy_hyper;
typedef struct {
    real a1, a2, a3, eps, d, ahead, paced; /* ak = 1 − bk */
} prodigy_step;

PER_STEP prodigy_step prodigy_at(const prodigy_hyper *o, int64_t t, pace *x)
{
    const double by = paced(&x->carry[0], o->d0, o->b1, o->b2, o->corrected != 0, t), d = x->carry[0];
    x->rate *= by;
    x->decay *= by;
    return (prodigy_step){(real)(1 - o->b1),
                          (real)(1 - o->b2),
                          (real)(1 - o->b3),
                          positive(d * o->eps),
                          (real)d,
                          (real)(d / o->d0 * x->rate),
                          (real)(d / o->d0 * (o->safeguard != 0 ? d : x->rate))};
}

PER_STEP void prodigy_after(const prodigy_hyper *o, int64_t t, pace *x)
{
    (void)t;
    double *d = &x->carry[0], *r = &x->carry[1], *most = &x->carry[2];
    const double new_r = o->b3 * *r + x->sums->sum[0], estimate = o->k * new_r / x->sums->sum[1];
    if (!isfinite(estimate))
        return;
    *r = new_r;
    if (*d == o->d0 && estimate > *d)
        *d = estimate;
    if (*most < o->d0)
        *most = o->d0;
    if (estimate > *most)
        *most = estimate;
    const double grown = *d * o->growth;
    *d = grown < *most ? grown : *most;
}

PER_ELEMENT out prodigy(real g, real p, real m, real v, real s, real x0, prodigy_step h)
{
    const double ahead = (double)(h.ahead * g) * ((double)x0 - (double)p);
    m = average(m, h.d * g, h.a1);
    v = average(v, square(h.d * g), h.a2);
    s = (s - h.a3 * s) + h.paced * g;
    return (out){
        .u = m / (root(v) + h.eps), .s0 = m, .s1 = v, .s2 = s, .sums = {.t0 = ahead, .t1 = (double)modulus(s)}};
}

#define RULE prodigy
#define STATES 3
#define SQUARES 2
#define PRECISE 4
#define ORIGIN
#define SEES_P
#define TRAIL 2
#define CARRY 3
#define SCOPE FASTLR_MODEL
#include "../sweep.h"
