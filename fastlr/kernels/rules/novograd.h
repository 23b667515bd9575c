/* NovoGrad: Ginsburg et al. (2019), Algorithm 1, as NVIDIA has it: momentum of gradients that are as long in each tensor; v
 * is one number a tensor, and starts at the first ‖g‖² that is not 0.
 *
 *     v ← b2 v + (1 − b2) ‖g‖²
 *     m ← b1 m + a (g / (√v + ε) + λ p)                  a = 1, or 1 − b1 with averaging
 *     p ← p − η m
 */
typedef struct {
    double b1, b2, eps, decay, averaging;
} novograd_hyper;
typedef struct {
    real a1, weight, length, decay; /* a1 = 1 − b1; weight = a; length = √v + ε */
} novograd_step;

PER_STEP novograd_step novograd_at(const novograd_hyper *o, int64_t t, pace *x)
{
    (void)t;
    double *v = &x->carry[0];
    if (x->sums)
        *v = *v == 0 ? x->sums->sum[0] : o->b2 * *v + (1 - o->b2) * x->sums->sum[0];
    const real a1 = (real)(1 - o->b1);
    return (novograd_step){a1, o->averaging != 0 ? a1 : 1, positive(sqrt(*v) + o->eps), (real)o->decay};
}

PER_ELEMENT out novograd(real g, real p, real m, novograd_step h)
{
    const real d = g / h.length;
    m = (m - h.a1 * m) + h.weight * (h.decay != 0 ? d + h.decay * p : d);
    return (out){.u = m, .s0 = m};
}

PER_ELEMENT sums novograd_survey(real g, real p, real m, novograd_step h)
{
    (void)p, (void)m, (void)h;
    const double x = (double)g;
    return (sums){.t0 = x * x};
}

#define RULE novograd
#define STATES 1
#define SEES_P
#define SURVEY 1
#define READS 1
#define SCOPE FASTLR_TENSOR
#define CARRY 1
#include "../sweep.h"
