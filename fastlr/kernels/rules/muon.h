/* Muon: Jordan et al. (2024), as torch has it: momentum, and a step along the orthogonal matrix that is nearest to it.
 *
 *     b ← μ b + (1 − μ) g
 *     p ← p − η (o + λ p)                               o = ratio · orthogonal(b, or with Nesterov (1 − μ) g + μ b)
 *
 * The input is o: muon.py makes it of g and the old b, by products of matrices.
 */
typedef struct {
    double momentum;
} muon_hyper;
typedef struct {
    real a; /* 1 − μ */
} muon_step;

PER_STEP muon_step muon_at(const muon_hyper *o, int64_t t, pace *x)
{
    (void)t, (void)x;
    return (muon_step){(real)(1 - o->momentum)};
}

PER_ELEMENT out muon(real g, real b, real o, muon_step h)
{
    return (out){.u = o, .s0 = average(b, g, h.a)};
}

#define RULE muon
#define STATES 1
#define INPUT
#include "../sweep.h"
