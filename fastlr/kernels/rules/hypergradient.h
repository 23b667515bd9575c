/* Rates that follow their own gradient: Baydin et al. (2018). Where the new gradient g has the direction u of the last
 * step, that step was too short, and the rate grows; over the group.
 *
 *     h = ⟨g, u⟩                 u of the last step, 0 at t = 1
 *     α ← α (1 + β h / (‖g‖ ‖u‖))        or        α ← α + β h        (additive), not below 0
 *     p ← p − α u
 *
 *     b ← μ b + g,   u = b                               sgd_hd
 *     Adam's u, remade from m and v for the last step    adam_hd
 *
 * The rate is η (1 + x), or η + x; carried are x, and the rate. A product that is not finite changes neither.
 */
typedef struct {
    double beta, additive;
} pull;

/* The rate of this step, by the sums of g u, g² and u². */
PER_STEP void follow(pull o, pace *x)
{
    if (!x->sums)
        return;
    const double dot = x->sums->sum[0], g = sqrt(x->sums->sum[1]), u = sqrt(x->sums->sum[2]), lr = x->rate;
    if (o.additive != 0) {
        x->rate = lr + (isfinite(dot) ? x->carry[0] + o.beta * dot : x->carry[0]);
        if (x->rate < 0)
            x->rate = 0;
        x->carry[0] = x->rate - lr;
    } else {
        const double angle = dot / g / u; /* its cosine */
        if (isfinite(angle))
            x->carry[0] += o.beta * angle * (1 + x->carry[0]);
        x->rate = lr * (1 + x->carry[0]);
    }
    x->carry[1] = x->rate;
}

typedef struct {
    double mu, beta, additive;
} sgd_hd_hyper;
typedef struct {
    real mu;
} sgd_hd_step;

PER_STEP sgd_hd_step sgd_hd_at(const sgd_hd_hyper *o, int64_t t, pace *x)
{
    (void)t;
    follow((pull){o->beta, o->additive}, x);
    return (sgd_hd_step){(real)o->mu};
}

PER_ELEMENT out sgd_hd(real g, real b, sgd_hd_step h)
{
    b = h.mu * b + g;
    return (out){.u = b, .s0 = b};
}

PER_ELEMENT sums sgd_hd_survey(real g, real b, sgd_hd_step h)
{
    (void)h;
    const double x = (double)g, y = (double)b;
    return (sums){.t0 = x * y, .t1 = x * x, .t2 = y * y};
}

#define RULE sgd_hd
#define STATES 1
#define SURVEY 3
#define READS 2
#define SCOPE FASTLR_GROUP
#define CARRY 2
#include "../sweep.h"

typedef struct {
    double b1, b2, eps, beta, additive;
} adam_hd_hyper;
typedef struct {
    adam_step now;
    real gain, eps; /* of the last step: √c2 / c1 and ε √c2 */
} adam_hd_step;

enum { FIRST = 1 }; /* t of the first step */

PER_STEP adam_hd_step adam_hd_at(const adam_hd_hyper *o, int64_t t, pace *x)
{
    const adam_hyper adam = {o->b1, o->b2, o->eps, 0};
    pace last = {.rate = 1};
    const adam_step before = adam_at(&adam, t > FIRST ? t - 1 : FIRST, &last); /* at first m is 0, and so is u */
    follow((pull){o->beta, o->additive}, x);
    return (adam_hd_step){adam_at(&adam, t, x), (real)last.rate, before.eps};
}

PER_ELEMENT out adam_hd(real g, real m, real v, adam_hd_step h)
{
    return adam(g, m, v, h.now);
}

PER_ELEMENT sums adam_hd_survey(real g, real m, real v, adam_hd_step h)
{
    const double x = (double)g, u = (double)(h.gain * (m / (root(v) + h.eps)));
    return (sums){.t0 = x * u, .t1 = x * x, .t2 = u * u};
}

#define RULE adam_hd
#define STATES 2
#define SQUARES 2
#define SURVEY 3
#define READS 3
#define SCOPE FASTLR_GROUP
#define CARRY 2
#include "../sweep.h"
