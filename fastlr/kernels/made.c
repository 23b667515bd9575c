/* Rules made at run time: two functions in the places of RULE_at() and of the loop of sweep.h.
 *
 * They are kept in a list that only grows, so that a rule which was found stays valid.
 */
#include "fastlr.h"

#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum { SCALE, L2, DECAY, RATE, APPLIED };

typedef struct {
    const fastlr_made *made;
    double numbers[APPLIED + FASTLR_SCALARS]; /* in the elements' type */
} block;

static _Atomic(fastlr_made *) newest;

static bool prepare(const fastlr_hyper *o, int64_t t, const fastlr_sums *sums, double *carry, fastlr_step *step)
{
    _Static_assert(sizeof(block) <= sizeof *step, "FASTLR_STEP_SLOTS");
    (void)sums;
    const fastlr_made *made = o->context;
    const bool single = made->dtype == FASTLR_F32;
    double x[APPLIED + FASTLR_SCALARS + FASTLR_CARRY] = {[SCALE] = o->scale, [L2] = o->l2, [DECAY] = o->lr * o->decay};
    double given[FASTLR_HYPERS + FASTLR_CARRY];
    const size_t carried = (size_t)made->carry * sizeof *carry;
    block *b = (block *)step;
    memcpy(given, o->rule, sizeof o->rule);
    if (carried)
        memcpy(given + made->hypers, t > 1 ? carry : made->first, carried);
    made->at(t, o->lr, given, &x[RATE]);
    if (carried)
        memcpy(carry, &x[APPLIED + made->scalars], carried);
    b->made = made;
    bool finite = true;
    for (int k = 0; k < APPLIED + made->scalars; k++) {
        const float narrowed = (float)x[k];
        finite &= (single ? isfinite(narrowed) : isfinite(x[k])) || (k == SCALE && isnan(x[k])); /* as in sweep.h */
        if (single)
            ((float *)b->numbers)[k] = narrowed;
        else
            b->numbers[k] = x[k];
    }
    return finite;
}

static void sweep(size_t n, void *p, void *g, void *const *s, const fastlr_step *step, bool zero, size_t k,
                  fastlr_lanes *lanes)
{
    const block *b = (const block *)step;
    (void)k, (void)lanes;
    b->made->chunk((int64_t)n, p, g, s, b->numbers, zero);
}

void fastlr_add(fastlr_made *made)
{
    made->rule = (fastlr_rule){
        .name = made->name,
        .size = made->dtype == FASTLR_F32 ? sizeof(float) : sizeof(double),
        .states = made->states,
        .hypers = made->hypers,
        .carry = made->carry,
        .squares = made->squares,
        .passes = 1,
        .accesses = 3 + 2 * made->states,
        .prepare = prepare,
        .context = made,
    };
    made->next = atomic_load(&newest);
    while (!atomic_compare_exchange_weak(&newest, &made->next, made))
        ;
}

void fastlr_use_made(fastlr_made *made, fastlr_made_at at, fastlr_made_chunk chunk)
{
    made->at = at, made->chunk = chunk;
    atomic_thread_fence(memory_order_release);
    made->rule.sweep = sweep; /* last: whoever sees it may call both */
}

const fastlr_rule *fastlr_find_made(const char *name, fastlr_dtype dtype)
{
    for (const fastlr_made *made = atomic_load(&newest); made; made = made->next)
        if (made->dtype == dtype && strcmp(made->name, name) == 0)
            return &made->rule;
    return NULL;
}
