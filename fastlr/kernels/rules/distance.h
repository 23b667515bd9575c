/* Steps of gradient descent whose length is learnt from the way that was made: x0 is where it began.
 *
 *     r ← max(r, ‖p − x0‖)                               r starts at ρ (1 + ‖x0‖)
 *     G ← G + ‖g‖²                                       G starts at ε
 *     p ← p − η r / √G g                                 dog, over the group; ldog, over the tensor: Ivgi et al. (2023)
 *
 *     a ← a + (1 + γ) / (t + γ) (p − a)                  and an average of p: dog_averaged, ldog_averaged
 *
 *     r² ← max(r², ‖p − x0‖²)                            r² starts at ε
 *     G ← G + r² ‖g‖²                                    G starts at 0
 *     p ← p − η r² / (√G + ε) g                          dowg, over the group: Khaled, Mishchenko & Jin (2023)
 *
 * The step adds up ‖p − x0‖² of the p that it writes, for the next, so that the read before a step is one of g alone; the
 * first needs ‖x0‖ too. Carried are r or r², G, and the rate.
 */
typedef struct {
    double rho, eps, gamma;
} dog_hyper;
typedef struct {
    real rate, weight; /* weight = (1 + γ) / (t + γ) */
    bool first;
} dog_step;

PER_STEP dog_step dog_at(const dog_hyper *o, int64_t t, pace *x)
{
    const bool first = x->carry[0] == 0;
    if (x->sums) {
        if (first) {
            x->carry[0] = o->rho * (1 + sqrt(x->sums->sum[1]));
            x->carry[1] = o->eps;
        }
        x->carry[1] += x->sums->sum[0];
        x->rate *= x->carry[0] / sqrt(x->carry[1]);
        x->carry[2] = x->rate;
    }
    return (dog_step){(real)x->rate, (real)((1 + o->gamma) / ((double)t + o->gamma)), first};
}

PER_STEP void dog_after(const dog_hyper *o, int64_t t, pace *x)
{
    (void)o, (void)t;
    const double way = sqrt(x->sums->sum[0]);
    if (way > x->carry[0])
        x->carry[0] = way;
}

PER_ELEMENT out dog(real g, real p, real x0, dog_step h)
{
    p = p - h.rate * g;
    const double way = (double)p - (double)x0;
    return (out){.p = p, .sums = {.t0 = way * way}};
}

/* The parameter is where it started when its size is asked for. */
PER_ELEMENT sums dog_survey(real g, real p, real start, dog_step h)
{
    (void)start;
    const double y = (double)g, x = (double)p;
    return (sums){.t0 = y * y, .t1 = h.first ? x * x : 0};
}

#define RULE dog
#define STATES 0
#define ORIGIN
#define MOVES_P
#define SURVEY 2
#define READS 1
#define TRAIL 1
#define SCOPE FASTLR_GROUP
#define CARRY 3
#include "../sweep.h"

typedef dog_hyper dog_averaged_hyper;
typedef dog_step dog_averaged_step;
#define dog_averaged_at dog_at
#define dog_averaged_after dog_after

PER_ELEMENT out dog_averaged(real g, real p, real a, real x0, dog_step h)
{
    out o = dog(g, p, x0, h);
    o.s0 = average(a, o.p, h.weight);
    return o;
}

PER_ELEMENT sums dog_averaged_survey(real g, real p, real a, real start, dog_step h)
{
    (void)a;
    return dog_survey(g, p, start, h);
}

#define RULE dog_averaged
#define STATES 1
#define PRECISE 1
#define ORIGIN
#define MOVES_P
#define SURVEY 2
#define READS 1
#define TRAIL 1
#define SCOPE FASTLR_GROUP
#define CARRY 3
#include "../sweep.h"

typedef dog_hyper ldog_hyper;
typedef dog_step ldog_step;
#define ldog_at dog_at
#define ldog_after dog_after
#define ldog_survey dog_survey

PER_ELEMENT out ldog(real g, real p, real x0, ldog_step h)
{
    return dog(g, p, x0, h);
}

#define RULE ldog
#define STATES 0
#define ORIGIN
#define MOVES_P
#define SURVEY 2
#define READS 1
#define TRAIL 1
#define SCOPE FASTLR_TENSOR
#define CARRY 3
#include "../sweep.h"

typedef dog_hyper ldog_averaged_hyper;
typedef dog_step ldog_averaged_step;
#define ldog_averaged_at dog_at
#define ldog_averaged_after dog_after
#define ldog_averaged_survey dog_averaged_survey

PER_ELEMENT out ldog_averaged(real g, real p, real a, real x0, ldog_averaged_step h)
{
    return dog_averaged(g, p, a, x0, h);
}

#define RULE ldog_averaged
#define STATES 1
#define PRECISE 1
#define ORIGIN
#define MOVES_P
#define SURVEY 2
#define READS 1
#define TRAIL 1
#define SCOPE FASTLR_TENSOR
#define CARRY 3
#include "../sweep.h"

typedef struct {
    double eps;
} dowg_hyper;
typedef dog_step dowg_step;

PER_STEP dowg_step dowg_at(const dowg_hyper *o, int64_t t, pace *x)
{
    (void)t;
    if (x->sums) {
        if (x->carry[0] == 0)
            x->carry[0] = o->eps;
        x->carry[1] += x->carry[0] * x->sums->sum[0];
        x->rate *= x->carry[0] / (sqrt(x->carry[1]) + o->eps);
        x->carry[2] = x->rate;
    }
    return (dowg_step){.rate = (real)x->rate};
}

PER_STEP void dowg_after(const dowg_hyper *o, int64_t t, pace *x)
{
    (void)o, (void)t;
    if (x->sums->sum[0] > x->carry[0])
        x->carry[0] = x->sums->sum[0];
}

PER_ELEMENT out dowg(real g, real p, real x0, dowg_step h)
{
    return dog(g, p, x0, h);
}

PER_ELEMENT sums dowg_survey(real g, real p, real x0, dowg_step h)
{
    (void)p, (void)x0, (void)h;
    const double y = (double)g;
    return (sums){.t0 = y * y};
}

#define RULE dowg
#define STATES 0
#define ORIGIN
#define MOVES_P
#define SURVEY 1
#define READS 1
#define TRAIL 1
#define SCOPE FASTLR_GROUP
#define CARRY 3
#include "../sweep.h"
