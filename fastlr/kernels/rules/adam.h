/* Adam: Kingma & Ba (2015), Algorithm 1, in the efficient order of its section 2 (one root, one division).
 *
 *     m ← b1 m + (1 − b1) g
 *     v ← b2 v + (1 − b2) g²
 *     p ← p − η (m / c1) / (√(v / c2) + ε)              ck = 1 − bkᵗ
 *       = p − (η √c2 / c1) m / (√v + ε √c2)
 *
 * or with ε in the place of ε √c2: epsilon-hat, as in Keras. AdamW is this rule with decoupled decay in the apply step.
 */
typedef struct {
    double b1, b2, eps, hat;
} adam_hyper;
typedef struct {
    real a1, a2, eps; /* ak = 1 − bk */
} adam_step;

PER_STEP adam_step adam_at(const adam_hyper *o, int64_t t, pace *x)
{
    const double c1 = complement(o->b1, t), c2 = complement(o->b2, t);
    x->rate *= sqrt(c2) / c1;
    return (adam_step){(real)(1 - o->b1), (real)(1 - o->b2), positive(o->hat != 0 ? o->eps : o->eps * sqrt(c2))};
}

PER_ELEMENT real adam_below(real v, adam_step h)
{
    return root(v) + h.eps;
}

PER_ELEMENT out adam(real g, real m, real v, adam_step h)
{
    m = average(m, g, h.a1);
    v = average(v, square(g), h.a2);
    return (out){.u = m / adam_below(v, h), .s0 = m, .s1 = v};
}

#define RULE adam
#define STATES 2
#define SQUARES 2
#define FUSED
#define BELOW
#include "../sweep.h"

#define RULE adam_cautious
#define OF adam
#define STATES 2
#define SQUARES 2
#define CAUTIOUS
#define HEADING s0
#include "../sweep.h"

/* AMSGrad: Reddi, Kale & Kumar (2018), with Adam's bias corrections as torch has them: the maximum is taken over the
 * uncorrected v.
 *
 *     x ← max(x, v)
 *     p ← p − (η √c2 / c1) m / (√x + ε √c2)
 */
typedef adam_hyper amsgrad_hyper;
typedef adam_step amsgrad_step;
#define amsgrad_at adam_at

PER_ELEMENT out amsgrad(real g, real m, real v, real x, amsgrad_step h)
{
    m = average(m, g, h.a1);
    v = average(v, square(g), h.a2);
    x = larger(x, v);
    return (out){.u = m / (root(x) + h.eps), .s0 = m, .s1 = v, .s2 = x};
}

#define RULE amsgrad
#define STATES 3
#define SQUARES 6
#include "../sweep.h"

#define RULE amsgrad_cautious
#define OF amsgrad
#define STATES 3
#define SQUARES 6
#define CAUTIOUS
#define HEADING s0
#include "../sweep.h"
