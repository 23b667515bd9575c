/* Schedule-Free: Defazio et al. (2024), in the order of the authors' code. The parameter is y, where gradients are taken;
 * z makes the steps, and the result x is their average, x = (y − (1 − β) z) / β, which is never kept.
 *
 *     η ← η min(1, t / W)                               W steps of warm-up
 *     w = t^r max(η so far)^q,  c = w / Σw
 *     y ← (1 − c) y + c z − η (1 − β (1 − c)) u
 *     z ← z − η u
 *
 *     u = g                                             schedule_free_sgd
 *     u = g / (√(v / c2) + ε) + λ y                     schedule_free_adamw: v ← b2 v + (1 − b2) g²,  c2 = 1 − b2ᵗ
 */
typedef struct {
    double beta, warmup, r, q;
} schedule_free;

/* c, with the rate as warm as it is, and what the next step must know: the largest rate and the sum of weights. */
PER_STEP double schedule_free_share(schedule_free o, int64_t t, pace *x)
{
    if ((double)t < o.warmup)
        x->rate *= (double)t / o.warmup;
    const double most = x->rate > x->carry[0] ? x->rate : x->carry[0];
    const double weight = power((double)t, o.r) * power(most, o.q), sum = x->carry[1] + weight;
    x->carry[0] = most;
    x->carry[1] = sum;
    return sum > 0 ? weight / sum : 0;
}

typedef schedule_free schedule_free_sgd_hyper;
typedef struct {
    real c, y, z; /* c, and the factors of u in the steps of y and z */
} schedule_free_sgd_step;

PER_STEP schedule_free_sgd_step schedule_free_sgd_at(const schedule_free_sgd_hyper *o, int64_t t, pace *x)
{
    const double c = schedule_free_share(*o, t, x);
    return (schedule_free_sgd_step){(real)c, (real)(x->rate * (1 - o->beta * (1 - c))), (real)x->rate};
}

PER_ELEMENT out schedule_free_sgd(real g, real y, real z, schedule_free_sgd_step h)
{
    return (out){.p = average(y, z, h.c) - h.y * g, .s0 = z - h.z * g};
}

#define RULE schedule_free_sgd
#define STATES 1
#define PRECISE 1
#define STARTS
#define MOVES_P
#define CARRY 2
#include "../sweep.h"

typedef struct {
    schedule_free free;
    double b2, eps, decay;
} schedule_free_adamw_hyper;
typedef struct {
    real a2, eps, c, y, z, y_decay, z_decay; /* a2 = 1 − b2 */
} schedule_free_adamw_step;

PER_STEP schedule_free_adamw_step schedule_free_adamw_at(const schedule_free_adamw_hyper *o, int64_t t, pace *x)
{
    const double c = schedule_free_share(o->free, t, x), c2 = sqrt(complement(o->b2, t));
    const double z = x->rate, y = z * (1 - o->free.beta * (1 - c));
    return (schedule_free_adamw_step){(real)(1 - o->b2),   positive(o->eps * c2), (real)c,
                                      (real)(y * c2),      (real)(z * c2),        (real)(y * o->decay),
                                      (real)(z * o->decay)};
}

PER_ELEMENT out schedule_free_adamw(real g, real y, real z, real v, schedule_free_adamw_step h)
{
    v = average(v, square(g), h.a2);
    const real u = g / (root(v) + h.eps);
    return (out){.p = average(y, z, h.c) - (h.y * u + h.y_decay * y), .s0 = z - (h.z * u + h.z_decay * y), .s1 = v};
}

#define RULE schedule_free_adamw
#define STATES 2
#define SQUARES 2
#define PRECISE 1
#define STARTS
#define MOVES_P
#define CARRY 2
#include "../sweep.h"

/* Not an optimizer: x, written to p, from y in the place of the gradient and z in that of the input. */
typedef struct {
    double beta;
} schedule_free_x_hyper;
typedef struct {
    real a, beta; /* a = 1 − β */
} schedule_free_x_step;

PER_STEP schedule_free_x_step schedule_free_x_at(const schedule_free_x_hyper *o, int64_t t, pace *x)
{
    (void)t, (void)x;
    return (schedule_free_x_step){(real)(1 - o->beta), (real)o->beta};
}

PER_ELEMENT out schedule_free_x(real y, real p, real z, schedule_free_x_step h)
{
    (void)p;
    return (out){.p = (y - h.a * z) / h.beta};
}

#define RULE schedule_free_x
#define STATES 0
#define MOVES_P
#define INPUT
#include "../sweep.h"
