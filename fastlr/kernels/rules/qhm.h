/* QHM: Ma & Yarats (2019), section 3: a step between that of gradient descent and that of (dampened) momentum.
 *
 *     b ← μ b + (1 − μ) g
 *     p ← p − η ((1 − ν) g + ν b)
 */
typedef struct {
    double mu, nu;
} qhm_hyper;
typedef struct {
    real a, n; /* a = 1 − μ, n = 1 − ν */
} qhm_step;

PER_STEP qhm_step qhm_at(const qhm_hyper *o, int64_t t, pace *x)
{
    (void)t, (void)x;
    return (qhm_step){(real)(1 - o->mu), (real)(1 - o->nu)};
}

PER_ELEMENT out qhm(real g, real b, qhm_step h)
{
    b = average(b, g, h.a);
    return (out){.u = average(b, g, h.n), .s0 = b};
}

#define RULE qhm
#define STATES 1
#include "../sweep.h"

#define RULE qhm_cautious
#define OF qhm
#define STATES 1
#define CAUTIOUS
#include "../sweep.h"
