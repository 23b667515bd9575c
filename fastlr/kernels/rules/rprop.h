/* Rprop: Riedmiller & Braun (1993), without backtracking (iRprop−: Igel & Hüsken, 2000), as in torch. Each parameter has a
 * step of its own, η at first, that grows while its gradient keeps the sign and shrinks where it changes.
 *
 *     s ← clamp(s f)         f = f+ where sign(g) = sign(l) ≠ 0, f− where they differ, 1 where either is 0
 *     g ← 0                  where they differ: no step, and none is compared with it
 *     p ← p − s sign(g)
 *     l ← g
 *
 * The signs are multiplied, not the gradients: their product could underflow.
 */
typedef struct {
    double less, more, least, most;
} rprop_hyper;
typedef struct {
    real less, more, least, most, start; /* start = η, 0 after the first step */
} rprop_step;

PER_STEP rprop_step rprop_at(const rprop_hyper *o, int64_t t, pace *x)
{
    const real start = t == 1 ? (real)x->rate : 0;
    x->rate = 1;
    return (rprop_step){(real)o->less, (real)o->more, (real)o->least, (real)o->most, start};
}

PER_ELEMENT out rprop(real g, real s, real l, rprop_step h)
{
    const real same = sign(g) * sign(l);
    s = (s + h.start) * (same > 0 ? h.more : same < 0 ? h.less : same + 1);
    s = s > h.most ? h.most : s < h.least ? h.least : s;
    g = same < 0 ? 0 : g;
    return (out){.u = s * sign(g), .s0 = s, .s1 = g};
}

#define RULE rprop
#define STATES 2
#define PRECISE 3
#include "../sweep.h"
