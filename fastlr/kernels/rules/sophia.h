/* Sophia: Liu et al. (2024), Algorithm 3: momentum over a running mean of Hessian diagonals, no farther than 1.
 *
 *     m ← b1 m + (1 − b1) g                             c1 = 1, or with bias correction 1 − b1ᵗ
 *     h ← b2 h + (1 − b2) D                             where there is a new diagonal D: sophia_informed
 *     p ← p − η clip((m / c1) / max(ρ h, ε), ±1)
 *       = p − η clip(m / max(c1 ρ h, c1 ε), ±1)
 */
typedef struct {
    double b1, b2, rho, eps, corrected;
} sophia_hyper;
typedef struct {
    real a1, a2, rho, eps; /* ak = 1 − bk */
} sophia_step;

PER_STEP sophia_step sophia_at(const sophia_hyper *o, int64_t t, pace *x)
{
    (void)x;
    const double c1 = o->corrected != 0 ? complement(o->b1, t) : 1;
    return (sophia_step){(real)(1 - o->b1), (real)(1 - o->b2), (real)(c1 * o->rho), positive(c1 * o->eps)};
}

PER_ELEMENT out sophia(real g, real m, real s, sophia_step h)
{
    m = average(m, g, h.a1);
    const real u = m / larger(h.rho * s, h.eps);
    return (out){.u = u > 1 ? 1 : u < -1 ? -1 : u, .s0 = m, .s1 = s};
}

#define RULE sophia
#define STATES 2
#include "../sweep.h"

typedef sophia_hyper sophia_informed_hyper;
typedef sophia_step sophia_informed_step;
#define sophia_informed_at sophia_at

PER_ELEMENT out sophia_informed(real g, real m, real s, real diagonal, sophia_informed_step h)
{
    return sophia(g, m, average(s, diagonal, h.a2), h);
}

#define RULE sophia_informed
#define STATES 2
#define INPUT
#include "../sweep.h"
