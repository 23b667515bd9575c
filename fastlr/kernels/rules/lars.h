/* LARS: You, Gitman & Ginsburg (2017), as timm has it: the gradient of a tensor, with decay, as long as a fixed share of
 * the tensor, and then momentum; in sgd.h's words.
 *
 *     d = r (g + λ p)                r = κ ‖p‖ / (‖g‖ + λ ‖p‖ + ε), or 1 where either norm is 0 or nothing adapts
 *     p ← p − η d                                                     lars
 *
 *     b ← μ b + (1 − τ) d            (b ← d at t = 1, and where μ = 0)
 *     p ← p − η b      or      p ← p − η (d + μ b)   (Nesterov)       lars_momentum
 *
 * Clipped, r is min(r / η, 1).
 */
typedef struct {
    double mu, dampening, nesterov, decay, trust, eps, always, clip;
} lars_hyper;
typedef struct {
    real ratio, decay, mu, gain; /* gain = 1 − τ */
    bits fresh, nesterov;        /* not bool: see sgd.h */
} lars_step;

PER_STEP lars_step lars_at(const lars_hyper *o, int64_t t, pace *x)
{
    double ratio = 1;
    if (x->sums && (o->decay != 0 || o->always != 0)) {
        const double p = sqrt(x->sums->sum[0]), g = sqrt(x->sums->sum[1]);
        if (p > 0 && g > 0)
            ratio = o->trust * p / (g + o->decay * p + o->eps);
        if (o->clip != 0)
            ratio = ratio < x->rate ? ratio / x->rate : 1;
    }
    return (lars_step){.ratio = (real)within(ratio),
                       .decay = (real)o->decay,
                       .mu = (real)o->mu,
                       .gain = (real)(1 - o->dampening),
                       .fresh = t == 1 || o->mu == 0,
                       .nesterov = o->nesterov != 0};
}

PER_ELEMENT out lars(real g, real p, lars_step h)
{
    return (out){.u = h.ratio * (h.decay != 0 ? g + h.decay * p : g)};
}

PER_ELEMENT sums lars_survey(real g, real p, lars_step h)
{
    (void)h;
    const double x = (double)p, y = (double)g;
    return (sums){.t0 = x * x, .t1 = y * y};
}

#define RULE lars
#define STATES 0
#define SEES_P
#define SURVEY 2
#define READS 2
#define SCOPE FASTLR_TENSOR
#include "../sweep.h"

typedef lars_hyper lars_momentum_hyper;
typedef lars_step lars_momentum_step;
#define lars_momentum_at lars_at

PER_ELEMENT out lars_momentum(real g, real p, real b, lars_step h)
{
    const real d = lars(g, p, h).u;
    b = h.fresh ? d : h.mu * b + h.gain * d;
    return (out){.u = h.nesterov ? d + h.mu * b : b, .s0 = b};
}

PER_ELEMENT sums lars_momentum_survey(real g, real p, real b, lars_step h)
{
    (void)b;
    return lars_survey(g, p, h);
}

#define RULE lars_momentum
#define STATES 1
#define SEES_P
#define SURVEY 2
#define READS 2
#define SCOPE FASTLR_TENSOR
#include "../sweep.h"
