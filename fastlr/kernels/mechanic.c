/* The scale that Mechanic finds: rules/mechanic.h. One for each factor β, which are added up.
 *
 *     h = ⟨δ, g⟩ + λ Σs ‖g‖ / (‖p‖ + ε) ⟨δ, p⟩
 *     m ← max(β m, |h|)                        m is 1e-6 before the first, all else 0
 *     v ← β² v + h²
 *     r ← max(0, β r − s h)
 *     s ← (m s0 / n + r) / (√v + ε)            n factors
 */
#include "fastlr.h"

#include <math.h>

fastlr_mechanic_state fastlr_mechanic_next(const fastlr_mechanic *o, fastlr_mechanic_state x, const fastlr_sums *sums)
{
    const double *q = sums->sum, pull = o->decay * fastlr_mechanic_scale(o, &x) * sqrt(q[2]) / (sqrt(q[3]) + o->eps);
    const double h = q[0] + pull * q[1];
    if (!isfinite(h * h)) /* it would never end */
        return x;
    for (int k = 0; k < o->count; k++) {
        const double b = o->beta[k], most = x.m[k] > 0 ? x.m[k] : 1e-6, faded = b * most,
                     reward = b * x.r[k] - x.s[k] * h;
        x.m[k] = faded > fabs(h) ? faded : fabs(h);
        x.v[k] = b * b * x.v[k] + h * h;
        x.r[k] = reward > 0 ? reward : 0;
        x.s[k] = (x.m[k] * o->s_init / o->count + x.r[k]) / (sqrt(x.v[k]) + o->eps);
    }
    return x;
}

double fastlr_mechanic_scale(const fastlr_mechanic *o, const fastlr_mechanic_state *x)
{
    double scale = 0;
    for (int k = 0; k < o->count; k++)
        scale += x->s[k];
    return scale;
}
