/* Mechanic: Cutkosky, Defazio & Mehta (2023), Algorithm 1, about another rule: all that this one has moved since the parameter's
 * first step, δ, times a scale S that is found on the way. ../mechanic.c finds it.
 *
 *     before the other's step                 ⟨δ, g⟩, ⟨δ, p⟩, ‖g‖², ‖p‖²
 *     the other's step                        p → p'
 *     δ ← δ + (p' − p)                        p = x0 + S δ, to the bit, with the S of its last step
 *     p ← x0 + S' δ
 *
 * The sums are of all parameters, S of the last step is each one's own: one without a gradient keeps that with which it was made.
 */
typedef struct {
    double now;
} mechanic_hyper;
typedef struct {
    real was, now;
} mechanic_step;

PER_STEP mechanic_step mechanic_at(const mechanic_hyper *o, int64_t t, pace *x)
{
    (void)t;
    const mechanic_step h = {(real)x->carry[0], (real)o->now};
    x->carry[0] = o->now;
    return h;
}

PER_ELEMENT sums mechanic_survey(real g, real p, real d, real x0, mechanic_step h)
{
    (void)x0, (void)h;
    const double a = (double)g, b = (double)p, c = (double)d;
    return (sums){.t0 = c * a, .t1 = c * b, .t2 = a * a, .t3 = b * b};
}

PER_ELEMENT out mechanic(real g, real p, real d, real x0, mechanic_step h)
{
    (void)g;
    d = d + (p - (x0 + h.was * d));
    return (out){.p = x0 + h.now * d, .s0 = d, .s1 = x0};
}

#define RULE mechanic
#define STATES 2
#define MOVES_P
#define SURVEY 4
#define READS 3
#define BLIND
#define KEEPS 1
#define CARRY 1
#include "../sweep.h"
