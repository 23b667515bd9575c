/* StableAdamW: Wortsman et al. (2023), Algorithm 2: AdamW (adam.h) that slows down, a tensor at a time, where gradients are
 * larger than v knows, as Adafactor does.
 *
 *     m ← b1 m + (1 − b1) g                              ck = 1 − bkᵗ
 *     v ← b2 v + (1 − b2) g²
 *     r = √(mean of g² / max(v / c2, ε²))
 *     η ← η / max(1, r)                                  before the decay and the step
 */
typedef struct {
    double b1, b2, eps;
} stable_adamw_hyper;
typedef struct {
    adam_step adam;
    real least; /* ε² c2 */
} stable_adamw_step;

PER_STEP stable_adamw_step stable_adamw_at(const stable_adamw_hyper *o, int64_t t, pace *x)
{
    const double c2 = complement(o->b2, t);
    if (x->sums && x->sums->n) {
        const double r = sqrt(c2 * x->sums->sum[0] / (double)x->sums->n), slower = r > 1 ? r : 1;
        x->rate /= slower;
        x->decay /= slower;
    }
    return (stable_adamw_step){adam_at(&(adam_hyper){o->b1, o->b2, o->eps, 0}, t, x), positive(o->eps * o->eps * c2)};
}

PER_ELEMENT out stable_adamw(real g, real m, real v, stable_adamw_step h)
{
    return adam(g, m, v, h.adam);
}

PER_ELEMENT sums stable_adamw_survey(real g, real m, real v, stable_adamw_step h)
{
    (void)m;
    v = average(v, square(g), h.adam.a2);
    return (sums){.t0 = (double)(square(g) / larger(v, h.least))};
}

#define RULE stable_adamw
#define STATES 2
#define SQUARES 2
#define SURVEY 1
#define READS 2
#define SCOPE FASTLR_TENSOR
#include "../sweep.h"
