/* ADOPT: Taniguchi et al. (2024), Algorithm 2: the gradient is divided by the root of what v was before it, and averaged
 * after that. The first step sets v and moves nothing.
 *
 *     v ← g²                                            t = 1
 *
 *     d = g / max(√v, ε), clipped to ±(t − 1)^k         t > 1; k = ¼ in the paper
 *     m ← b1 m + (1 − b1) d
 *     p ← p − η m
 *     v ← b2 v + (1 − b2) g²
 */
typedef struct {
    double b1, b2, eps, clip; /* clip = k; below 0: none */
} adopt_hyper;
typedef struct {
    real a1, a2, eps, most; /* ak = 1 − bk, but a2 = 1 and most = 0 at the first step */
} adopt_step;

PER_STEP adopt_step adopt_at(const adopt_hyper *o, int64_t t, pace *x)
{
    const bool first = t == 1;
    if (first)
        x->rate = x->decay = 0;
    const double most = first ? 0 : o->clip < 0 ? (double)INFINITY : power((double)t - 1, o->clip);
    return (adopt_step){(real)(1 - o->b1), first ? 1 : (real)(1 - o->b2), positive(o->eps), (real)most};
}

PER_ELEMENT out adopt(real g, real m, real v, adopt_step h)
{
    const real d = g / larger(root(v), h.eps), clipped = d > h.most ? h.most : d < -h.most ? -h.most : d;
    m = average(m, clipped, h.a1);
    return (out){.u = m, .s0 = m, .s1 = average(v, square(g), h.a2)};
}

#define RULE adopt
#define STATES 2
#define SQUARES 2
#include "../sweep.h"

#define RULE adopt_cautious
#define OF adopt
#define STATES 2
#define SQUARES 2
#define CAUTIOUS
#define HEADING s0
#define READS 3
#include "../sweep.h"
