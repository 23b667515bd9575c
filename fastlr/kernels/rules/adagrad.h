/* Adagrad: Duchi, Hazan & Singer (2011), diagonal form; torch's lr_decay λ.
 *
 *     s ← s + g²
 *     p ← p − η / (1 + (t − 1) λ) · g / (√s + ε)        or, as in Keras, g / √(s + ε)
 */
typedef struct {
    double lr_decay, eps, within;
} adagrad_hyper;
typedef struct {
    real inside, outside; /* ε is one of them, the other is 0 */
} adagrad_step;

PER_STEP adagrad_step adagrad_at(const adagrad_hyper *o, int64_t t, pace *x)
{
    x->rate /= 1 + (double)(t - 1) * o->lr_decay;
    const real eps = positive(o->eps);
    const bool within = o->within != 0;
    return (adagrad_step){within ? eps : 0, within ? 0 : eps};
}

PER_ELEMENT out adagrad(real g, real s, adagrad_step h)
{
    s = s + g * g;
    return (out){.u = g / (root(s + h.inside) + h.outside), .s0 = s};
}

#define RULE adagrad
#define STATES 1
#define PRECISE 1
#include "../sweep.h"
