/* Gradient descent, and with momentum: the heavy ball (Polyak, 1964), and Nesterov's look ahead in the form of Sutskever
 * et al. (2013) that torch uses. A parameter's first step starts the buffer at g, undamped.
 *
 *     p ← p − η g                                                 sgd
 *
 *     b ← μ b + (1 − τ) g            (b ← g at t = 1, and where μ = 0)
 *     p ← p − η b      or      p ← p − η (g + μ b)   (Nesterov)   momentum
 */
typedef struct {
    double mu, dampening, nesterov;
} momentum_hyper;
typedef struct {
    real mu, gain;        /* gain = 1 − τ */
    bits fresh, nesterov; /* not bool: gcc has no vectors of these to choose by */
} momentum_step;
typedef momentum_hyper sgd_hyper;
typedef momentum_step sgd_step;

PER_STEP momentum_step momentum_at(const momentum_hyper *o, int64_t t, pace *x)
{
    (void)x;
    return (momentum_step){(real)o->mu, (real)(1 - o->dampening), t == 1 || o->mu == 0, o->nesterov != 0};
}
#define sgd_at momentum_at

PER_ELEMENT out sgd(real g, sgd_step h)
{
    (void)h;
    return (out){.u = g};
}

#define RULE sgd
#define STATES 0
#include "../sweep.h"

PER_ELEMENT out momentum(real g, real b, momentum_step h)
{
    b = h.fresh ? g : h.mu * b + h.gain * g;
    return (out){.u = h.nesterov ? g + h.mu * b : b, .s0 = b};
}

#define RULE momentum
#define STATES 1
#define FUSED
#include "../sweep.h"

#define RULE momentum_cautious
#define OF momentum
#define STATES 1
#define CAUTIOUS
#include "../sweep.h"
