/* Rules that move every parameter by the same amount, in the direction of a sign; sign(0) = 0, sign(NaN) = NaN.
 *
 *     p ← p − η sign(g)                          sign_sgd: Bernstein et al. (2018)
 *
 *     m ← β m + (1 − β) g
 *     p ← p − η sign(m)                          signum: the same paper
 *
 *     p ← p − η sign(b1 m + (1 − b1) g)
 *     m ← b2 m + (1 − b2) g                      lion: Chen et al. (2023), Algorithm 2
 */
typedef struct {
    double b1, b2;
} lion_hyper;
typedef struct {
    real a1, a2; /* ak = 1 − bk */
} lion_step;

PER_STEP lion_step lion_at(const lion_hyper *o, int64_t t, pace *x)
{
    (void)t, (void)x;
    return (lion_step){(real)(1 - o->b1), (real)(1 - o->b2)};
}

PER_ELEMENT out lion(real g, real m, lion_step h)
{
    const real c = average(m, g, h.a1);
    return (out){.u = sign(c), .s0 = average(m, g, h.a2), .way = c};
}

#define RULE lion
#define STATES 1
#define FUSED
#include "../sweep.h"

#define RULE lion_cautious
#define OF lion
#define STATES 1
#define CAUTIOUS
#define HEADING way
#include "../sweep.h"

typedef struct {
    double beta;
} signum_hyper;
typedef struct {
    real a; /* 1 − β */
} signum_step;

PER_STEP signum_step signum_at(const signum_hyper *o, int64_t t, pace *x)
{
    (void)t, (void)x;
    return (signum_step){(real)(1 - o->beta)};
}

PER_ELEMENT out signum(real g, real m, signum_step h)
{
    m = average(m, g, h.a);
    return (out){.u = sign(m), .s0 = m};
}

#define RULE signum
#define STATES 1
#include "../sweep.h"

#define RULE signum_cautious
#define OF signum
#define STATES 1
#define CAUTIOUS
#define HEADING s0
#include "../sweep.h"

typedef signum_hyper sign_sgd_hyper;
typedef signum_step sign_sgd_step;
#define sign_sgd_at signum_at

PER_ELEMENT out sign_sgd(real g, sign_sgd_step h)
{
    (void)h;
    return (out){.u = sign(g)};
}

#define RULE sign_sgd
#define STATES 0
#include "../sweep.h"
