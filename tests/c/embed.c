/* fastlr_update() against the functions that it is made of, for every rule; and what it refuses, of which it changes nothing.
 * Prints what it checked; exits with 1 at the first difference. tests/test_embedding.py and tools/sanitize.sh build and run
 * it. */
#include "fastlr.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TENSORS = 3, BUFFERS = 2 + FASTLR_STATES, STEPS = 3 };

static const size_t LENGTHS[TENSORS] = {5000, 0, 7};
static const double RULE[FASTLR_HYPERS] = {0.9, 0.99, 1e-8, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5};

static void expect(bool good, const char *what, const char *rule)
{
    if (!good)
        exit(printf("FAILED: %s, rule %s\n", what, rule));
}

typedef struct {
    const fastlr_rule *rule;
    fastlr_dtype dtype;
    fastlr_tensor tensors[TENSORS];
    double carry[TENSORS * FASTLR_CARRY];
    fastlr_hyper hyper;
} model;

static model build(const char *name, fastlr_dtype dtype)
{
    model m = {.rule = fastlr_find(name, dtype), .dtype = dtype};
    m.hyper = (fastlr_hyper){.lr = 0.1, .scale = 0.5, .l2 = 0.01, .decay = 0.02, .context = m.rule->context};
    memcpy(m.hyper.rule, RULE, sizeof RULE);
    for (size_t k = 0; k < TENSORS; k++) {
        m.tensors[k].n = LENGTHS[k];
        for (int b = 0; b < BUFFERS; b++) {
            void *x = calloc(LENGTHS[k] + 1, m.rule->size);
            for (size_t i = 0; i < LENGTHS[k] && b < 2; i++) {
                const double y = (double)((i * 2654435761u + k * 31 + (size_t)b * 97) % 1009) / 504 - 1.0001;
                if (dtype == FASTLR_F32)
                    ((float *)x)[i] = (float)y;
                else
                    ((double *)x)[i] = y;
            }
            *(b == 0 ? &m.tensors[k].p : b == 1 ? &m.tensors[k].g : &m.tensors[k].s[b - 2]) = x;
        }
    }
    return m;
}

static void release(model *m)
{
    for (size_t k = 0; k < TENSORS; k++) {
        free(m->tensors[k].p), free(m->tensors[k].g);
        for (int j = 0; j < FASTLR_STATES; j++)
            free(m->tensors[k].s[j]);
    }
}

static bool same(const model *a, const model *b)
{
    bool equal = memcmp(a->carry, b->carry, sizeof a->carry) == 0;
    for (size_t k = 0; k < TENSORS; k++) {
        const size_t bytes = LENGTHS[k] * a->rule->size;
        const fastlr_tensor *x = &a->tensors[k], *y = &b->tensors[k];
        equal &= !memcmp(x->p, y->p, bytes) && !memcmp(x->g, y->g, bytes);
        for (int j = 0; j < FASTLR_STATES; j++)
            equal &= !memcmp(x->s[j], y->s[j], bytes);
    }
    return equal;
}

static fastlr_call call_of(model *m, int64_t t, int threads)
{
    const fastlr_hyper *o = &m->hyper;
    return (fastlr_call){.size = sizeof(fastlr_call),
                         .rule = m->rule->name,
                         .dtype = m->dtype,
                         .threads = threads,
                         .t = t,
                         .lr = o->lr,
                         .scale = o->scale,
                         .l2 = o->l2,
                         .decay = o->decay,
                         .hyper = o->rule,
                         .hypers = (size_t)m->rule->hypers,
                         .tensors = m->tensors,
                         .count = TENSORS,
                         .stride = sizeof(fastlr_tensor),
                         .carry = m->carry,
                         .zero = t == STEPS};
}

static fastlr_status update(fastlr_call *c, fastlr_found *found)
{
    c->room = fastlr_scratch(c);
    char *memory = malloc(c->room + 3);
    c->scratch = memory + 3; /* of no alignment */
    const fastlr_status status = fastlr_update(c, found);
    free(memory);
    return status;
}

/* The same steps by hand. */
static void run(model *m, double clip_norm)
{
    const fastlr_rule *rule = m->rule;
    fastlr_span spans[TENSORS];
    fastlr_step steps[TENSORS];
    fastlr_partial partial[16];
    fastlr_sums tally[16], found[TENSORS];
    const bool tensor = rule->scope == FASTLR_TENSOR, apart = tensor || (rule->scope == FASTLR_ALONE && rule->carry);
    const size_t sets = apart ? TENSORS : 1;
    for (size_t k = 0; k < TENSORS; k++) {
        spans[k] = (fastlr_span){.n = LENGTHS[k], .p = m->tensors[k].p, .g = m->tensors[k].g, .unit = tensor ? k : 0};
        memcpy(spans[k].s, m->tensors[k].s, sizeof spans[k].s);
        spans[k].step = &steps[apart ? k : 0];
    }
    fastlr_lay(spans, TENSORS);
    for (int64_t t = 1; t <= STEPS; t++) {
        double carry[TENSORS * FASTLR_CARRY];
        fastlr_hyper hyper = m->hyper;
        const fastlr_stats stats = fastlr_measure(m->dtype, spans, TENSORS, partial, 1);
        if (clip_norm > 0)
            hyper.scale *= clip_norm / (0.5 * stats.norm + 1e-6);
        bool asked = rule->survey;
        for (int again = 0; again <= asked; again++) {
            if (again)
                fastlr_survey(rule, spans, TENSORS, tally, found, 1);
            memcpy(carry, m->carry, sizeof carry);
            for (size_t k = 0; k < sets; k++)
                rule->prepare(&hyper, t, again ? &found[spans[k].unit] : NULL, carry + k * FASTLR_CARRY, &steps[k]);
            for (size_t k = 0; rule->asks && !again && k < sets; k++)
                asked = (k && asked) || rule->asks(carry + k * FASTLR_CARRY);
        }
        memcpy(m->carry, carry, rule->carry ? sizeof carry : 0);
        fastlr_run(rule, spans, TENSORS, t == STEPS, tally, found, 1);
        for (size_t k = 0; rule->close && k < sets; k++)
            rule->close(&hyper, t, &found[spans[k].unit], m->carry + k * FASTLR_CARRY);
    }
}

static int compare(const char *name, fastlr_dtype dtype, double clip_norm)
{
    model a = build(name, dtype), b = build(name, dtype);
    fastlr_found found = {.size = sizeof found};
    for (int64_t t = 1; t <= STEPS; t++) {
        fastlr_call c = call_of(&a, t, 3);
        c.clip_norm = clip_norm;
        expect(update(&c, &found) == FASTLR_OK, "update", name);
        expect(isnan(found.norm) == (clip_norm == 0), "norm", name);
    }
    run(&b, clip_norm);
    expect(same(&a, &b), "the same bits", name);
    fastlr_description d = {.size = sizeof d};
    expect(fastlr_describe(name, dtype, &d) == FASTLR_OK && d.states == a.rule->states && d.scope == a.rule->scope,
           "describe", name);
    release(&a), release(&b);
    return 1;
}

/* Calls that are wrong in one thing each. */
static int refuse(void)
{
    int checked = 0;
    model m = build("dadapt_sgd", FASTLR_F32), before = build("dadapt_sgd", FASTLR_F32);
    fastlr_tensor shifted[TENSORS];
    memcpy(shifted, m.tensors, sizeof shifted);
#define REFUSED(status, ...)                                                                                           \
    do {                                                                                                               \
        fastlr_call c = call_of(&m, 1, 1);                                                                             \
        __VA_ARGS__;                                                                                                   \
        expect(update(&c, NULL) == status, #status ": " #__VA_ARGS__, c.rule ? c.rule : "none");                       \
        expect(same(&m, &before), "changed by " #__VA_ARGS__, "dadapt_sgd");                                           \
        expect(fastlr_message(status)[0], "message", #status);                                                         \
        checked++;                                                                                                     \
    } while (0)
    REFUSED(FASTLR_BAD_SIZE, c.size--);
    REFUSED(FASTLR_BAD_SIZE, c.size *= 2); /* of a version that is not there yet */
    REFUSED(FASTLR_BAD_SIZE, c.stride = 8);
    REFUSED(FASTLR_NO_RULE, c.rule = NULL);
    REFUSED(FASTLR_NO_RULE, c.rule = "adamm");
    REFUSED(FASTLR_NO_RULE, c.rule = "adafactor"); /* no sweep */
    REFUSED(FASTLR_NO_RULE, c.dtype = FASTLR_DTYPES);
    REFUSED(FASTLR_BAD_HYPERS, c.hypers--);
    REFUSED(FASTLR_BAD_HYPERS, c.hyper = NULL);
    REFUSED(FASTLR_BAD_STEP, c.t = 0);
    REFUSED(FASTLR_NO_CARRY, c.carry = NULL);
    REFUSED(FASTLR_NOT_FINITE, c.lr = (double)NAN);
    REFUSED(FASTLR_NOT_FINITE, c.clip_norm = (double)INFINITY);
    REFUSED(FASTLR_NOT_FINITE, c.scale = 1e300); /* in float32 */
    REFUSED(FASTLR_BAD_BUFFER, c.tensors = shifted; shifted[0].p = NULL);
    REFUSED(FASTLR_BAD_BUFFER, c.tensors = shifted; shifted[0].p = (char *)m.tensors[0].p + 1);
    REFUSED(FASTLR_BAD_BUFFER, c.tensors = shifted; shifted[0].p = m.tensors[0].p; shifted[2].s[0] = NULL);
    fastlr_call c = call_of(&m, 1, 1);
    char memory[64];
    c.scratch = memory, c.room = sizeof memory;
    expect(fastlr_update(&c, NULL) == FASTLR_NO_SCRATCH, "too small", "dadapt_sgd");
    fastlr_found wrong = {.size = 1};
    expect(update(&c, &wrong) == FASTLR_BAD_SIZE, "found of no version", "dadapt_sgd");

    ((float *)m.tensors[2].g)[3] = ((float *)before.tensors[2].g)[3] = INFINITY;
    REFUSED(FASTLR_SKIPPED, c.skip = true);
    c = call_of(&m, 1, 1), c.skip = c.zero = true;
    expect(update(&c, NULL) == FASTLR_SKIPPED && ((float *)m.tensors[2].g)[3] == 0, "skipped and zeroed", "dadapt_sgd");
    release(&m), release(&before);
    return checked + 2;
}

int main(void)
{
    int checked = 0;
    const fastlr_api *api = fastlr_get_api();
    expect(api->abi == FASTLR_ABI && api->size == sizeof *api && api->update == fastlr_update, "table", "none");
    for (int r = 0; api->rule_name(r); r++)
        for (fastlr_dtype dtype = 0; dtype < FASTLR_DTYPES; dtype++)
            checked += compare(api->rule_name(r), dtype, 0) + compare(api->rule_name(r), dtype, 0.25);
    printf("%d updates, %d refused\n", checked, refuse());
    return 0;
}
