/* Not optimizers: the least work that a rule with k state buffers can be. They read and write the same bytes in the same
 * loop on the same threads, with one addition for each state. bench/ quotes every rule as a fraction of its floor.
 */
typedef struct {
    char none;
} floor_hyper;
typedef struct {
    char none;
} floor_step;
typedef floor_hyper floor_0_hyper, floor_1_hyper, floor_2_hyper, floor_3_hyper, floor_4_hyper, floor_5_hyper;
typedef floor_step floor_0_step, floor_1_step, floor_2_step, floor_3_step, floor_4_step, floor_5_step;
typedef floor_hyper floor_stored_hyper;
typedef floor_step floor_stored_step;

typedef floor_hyper floor_0_origin_hyper, floor_1_origin_hyper, floor_2_origin_hyper, floor_3_origin_hyper;
typedef floor_step floor_0_origin_step, floor_1_origin_step, floor_2_origin_step, floor_3_origin_step;

PER_STEP floor_step floor_at(const floor_hyper *o, int64_t t, pace *x)
{
    (void)o, (void)t, (void)x;
    return (floor_step){0};
}
#define floor_0_at floor_at
#define floor_1_at floor_at
#define floor_2_at floor_at
#define floor_stored_at floor_at
#define floor_3_at floor_at
#define floor_4_at floor_at
#define floor_5_at floor_at
#define floor_0_origin_at floor_at
#define floor_1_origin_at floor_at
#define floor_2_origin_at floor_at
#define floor_3_origin_at floor_at

PER_ELEMENT out floor_0(real g, floor_step h)
{
    (void)h;
    return (out){.u = g};
}

#define RULE floor_0
#define STATES 0
#include "sweep.h"

PER_ELEMENT out floor_1(real g, real a, floor_step h)
{
    (void)h;
    return (out){.u = g, .s0 = a + g};
}

#define RULE floor_1
#define STATES 1
#include "sweep.h"

PER_ELEMENT out floor_2(real g, real a, real b, floor_step h)
{
    (void)h;
    return (out){.u = g, .s0 = a + g, .s1 = b + g};
}

#define RULE floor_2
#define STATES 2
#include "sweep.h"

/* What the storages of AdamW's state take by themselves (python -m bench.storage): their loops expect that the second state is never
 * negative, and that where a state is NaN, the parameter is. */
PER_ELEMENT out floor_stored(real g, real a, real b, floor_step h)
{
    (void)h;
    a += g, b += modulus(g);
    return (out){.u = a + b, .s0 = a, .s1 = b};
}

#define RULE floor_stored
#define STATES 2
#define SQUARES 2
#define FUSED
#include "sweep.h"

PER_ELEMENT out floor_3(real g, real a, real b, real c, floor_step h)
{
    (void)h;
    return (out){.u = g, .s0 = a + g, .s1 = b + g, .s2 = c + g};
}

#define RULE floor_3
#define STATES 3
#include "sweep.h"

PER_ELEMENT out floor_4(real g, real a, real b, real c, real d, floor_step h)
{
    (void)h;
    return (out){.u = g, .s0 = a + g, .s1 = b + g, .s2 = c + g, .s3 = d + g};
}

#define RULE floor_4
#define STATES 4
#include "sweep.h"

PER_ELEMENT out floor_5(real g, real a, real b, real c, real d, real e, floor_step h)
{
    (void)h;
    return (out){.u = g, .s0 = a + g, .s1 = b + g, .s2 = c + g, .s3 = d + g, .s4 = e + g};
}

#define RULE floor_5
#define STATES 5
#include "sweep.h"

PER_ELEMENT out floor_0_origin(real g, real from, floor_step h)
{
    (void)h;
    return (out){.u = g + 0 * from};
}

#define RULE floor_0_origin
#define STATES 0
#define ORIGIN
#include "sweep.h"

PER_ELEMENT out floor_1_origin(real g, real a, real from, floor_step h)
{
    (void)h;
    return (out){.u = g, .s0 = a + from};
}

#define RULE floor_1_origin
#define STATES 1
#define ORIGIN
#include "sweep.h"

PER_ELEMENT out floor_2_origin(real g, real a, real b, real from, floor_step h)
{
    (void)h;
    return (out){.u = g, .s0 = a + from, .s1 = b + g};
}

#define RULE floor_2_origin
#define STATES 2
#define ORIGIN
#include "sweep.h"

PER_ELEMENT out floor_3_origin(real g, real a, real b, real c, real from, floor_step h)
{
    (void)h;
    return (out){.u = g, .s0 = a + from, .s1 = b + g, .s2 = c + g};
}

#define RULE floor_3_origin
#define STATES 3
#define ORIGIN
#include "sweep.h"
