/* Adagrad: Duchi, Hazan & Singer (2011), diagonal form; torch's lr_decay λ.
 *
 *     s ← s + g²
 *     p ← p − η / (1 + (t − 1) λ) · g / (√s + ε)
 */
typedef struct {
    double lr_decay, eps;
} adagrad_hyper;
typedef struct {
    real eps;
} adagrad_step;

PER_STEP adagrad_step adagrad_at(const adagrad_hyper *o, int64_t t, double *rate)
{
    *rate /= 1 + (double)(t - 1) * o->lr_decay;
    return (adagrad_step){positive(o->eps)};
}

PER_ELEMENT out adagrad(real g, real s, adagrad_step h)
{
    s = s + g * g;
    return (out){.u = g / (root(s) + h.eps), .s0 = s};
}

#define RULE adagrad
#define STATES 1
#include "../sweep.h"
