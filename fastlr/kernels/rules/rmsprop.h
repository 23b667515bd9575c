/* RMSprop: Tieleman & Hinton (2012), ε outside the root as in torch; centered: Graves (2013), not clamped, as in torch.
 *
 *     v ← α v + (1 − α) g²
 *     a ← α a + (1 − α) g                                    (centered)
 *     d = g / (√v + ε)        or   g / (√(v − a²) + ε)       (centered)
 *     p ← p − η d             or   b ← μ b + d, p ← p − η b  (momentum)
 *
 * or with ε inside the root, as in Keras: g / √(v + ε), g / √(v − a² + ε).
 * A rule for each set of buffers, so that no step moves bytes that it does not need.
 */
typedef struct {
    double alpha, eps, mu, within;
} rmsprop_hyper;
typedef struct {
    real a1, inside, outside, mu; /* a1 = 1 − α; ε is inside or outside, the other is 0 */
} rmsprop_step;
typedef rmsprop_hyper rmsprop_momentum_hyper, rmsprop_centered_hyper, rmsprop_centered_momentum_hyper;
typedef rmsprop_step rmsprop_momentum_step, rmsprop_centered_step, rmsprop_centered_momentum_step;

PER_STEP rmsprop_step rmsprop_at(const rmsprop_hyper *o, int64_t t, pace *x)
{
    (void)t, (void)x;
    const real eps = positive(o->eps);
    const bool within = o->within != 0;
    return (rmsprop_step){(real)(1 - o->alpha), within ? eps : 0, within ? 0 : eps, (real)o->mu};
}
#define rmsprop_momentum_at rmsprop_at
#define rmsprop_centered_at rmsprop_at
#define rmsprop_centered_momentum_at rmsprop_at

PER_ELEMENT out rmsprop(real g, real v, rmsprop_step h)
{
    v = average(v, square(g), h.a1);
    return (out){.u = g / (root(v + h.inside) + h.outside), .s0 = v};
}

#define RULE rmsprop
#define STATES 1
#define SQUARES 1
#include "../sweep.h"

PER_ELEMENT out rmsprop_momentum(real g, real v, real b, rmsprop_step h)
{
    const out o = rmsprop(g, v, h);
    b = h.mu * b + o.u;
    return (out){.u = b, .s0 = o.s0, .s1 = b};
}

#define RULE rmsprop_momentum
#define STATES 2
#define SQUARES 1
#include "../sweep.h"

PER_ELEMENT out rmsprop_centered(real g, real v, real a, rmsprop_step h)
{
    v = average(v, square(g), h.a1);
    a = average(a, g, h.a1);
    return (out){.u = g / (root(v - a * a + h.inside) + h.outside), .s0 = v, .s1 = a};
}

#define RULE rmsprop_centered
#define STATES 2
#define PRECISE 3
#include "../sweep.h"

PER_ELEMENT out rmsprop_centered_momentum(real g, real v, real a, real b, rmsprop_step h)
{
    const out o = rmsprop_centered(g, v, a, h);
    b = h.mu * b + o.u;
    return (out){.u = b, .s0 = o.s0, .s1 = o.s1, .s2 = b};
}

#define RULE rmsprop_centered_momentum
#define STATES 3
#define PRECISE 3
#include "../sweep.h"
