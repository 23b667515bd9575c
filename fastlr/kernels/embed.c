/* A step in one call: what Plan does in Python, for callers that own their buffers. Memory is the caller's `scratch`. */
#include "fastlr.h"

#include <float.h>
#include <math.h>
#include <string.h>

static const char *const MESSAGES[FASTLR_STATUSES] = {
    [FASTLR_OK] = "done",
    [FASTLR_SKIPPED] = "skipped: a gradient is not finite",
    [FASTLR_BAD_SIZE] = "size and stride must be sizeof(fastlr_call) and sizeof(fastlr_tensor), and a result's its own",
    [FASTLR_NO_RULE] = "rule must be one of fastlr_rule_name(), and dtype FASTLR_F32 or FASTLR_F64",
    [FASTLR_BAD_HYPERS] = "hypers must be as many as fastlr_describe() says, and hyper an array of these",
    [FASTLR_BAD_STEP] = "t must be >= 1, the number of this step",
    [FASTLR_BAD_BUFFER] = "every tensor must have p, g and the rule's states and inputs, aligned",
    [FASTLR_NO_CARRY] = "carry must be FASTLR_CARRY numbers for each tensor: the rule keeps some",
    [FASTLR_NO_SCRATCH] = "scratch must have fastlr_scratch() bytes, and room say so",
    [FASTLR_NOT_FINITE] = "lr, scale, l2, decay and clip_norm must be finite, also in the buffers' type",
};

const char *fastlr_message(fastlr_status status)
{
    return (unsigned)status < FASTLR_STATUSES ? MESSAGES[status] : "no such status";
}

/* The sizes of version 1, which every later library takes too; with the padding after the last member. */
#define SIZE_UP_TO(type, last) ((offsetof(type, last) | (_Alignof(type) - 1)) + 1)
enum { CALL_1 = SIZE_UP_TO(fastlr_call, skip), FOUND_1 = SIZE_UP_TO(fastlr_found, norm) };

/* What the caller knows of a structure, and 0 where it knows less. False if its size is no version's. */
static bool known(void *own, size_t own_size, const void *theirs, size_t least)
{
    const size_t size = *(const size_t *)theirs;
    memset(own, 0, own_size);
    if (size < least || size > own_size)
        return false;
    memcpy(own, theirs, size);
    return true;
}

static fastlr_tensor tensor_at(const fastlr_call *c, size_t k)
{
    fastlr_tensor t = {0};
    memcpy(&t, (const char *)c->tensors + k * c->stride, c->stride);
    return t;
}

static const fastlr_rule *rule_of(const char *name, fastlr_dtype dtype)
{
    const fastlr_rule *rule = name && (unsigned)dtype < FASTLR_DTYPES ? fastlr_find(name, dtype) : NULL;
    return rule && rule->sweep ? rule : NULL;
}

fastlr_status fastlr_describe(const char *name, fastlr_dtype dtype, fastlr_description *to)
{
    const fastlr_rule *rule = rule_of(name, dtype);
    if (!rule)
        return FASTLR_NO_RULE;
    if (to->size > sizeof *to || to->size < sizeof to->size)
        return FASTLR_BAD_SIZE;
    const fastlr_description full = {.size = to->size,
                                     .states = rule->states,
                                     .inputs = rule->inputs,
                                     .hypers = rule->hypers,
                                     .carry = rule->carry,
                                     .passes = rule->passes,
                                     .accesses = rule->accesses,
                                     .scope = rule->scope};
    memcpy(to, &full, to->size);
    return FASTLR_OK;
}

/* ---- scratch ---- */

typedef struct {
    fastlr_span *spans;
    fastlr_step *steps;
    fastlr_partial *partial;
    fastlr_sums *tally, *found;
    double *carry;
    size_t bytes;
} memory;

static void *take(char *start, size_t *at, size_t count, size_t size)
{
    void *p = start ? start + *at : NULL;
    *at += (count * size + 63) / 64 * 64;
    return p;
}

static memory divide(void *scratch, size_t count, size_t blocks)
{
    char *start = scratch ? (char *)scratch + (64 - (uintptr_t)scratch % 64) % 64 : NULL;
    memory m = {0};
    m.spans = take(start, &m.bytes, count, sizeof *m.spans);
    m.steps = take(start, &m.bytes, count, sizeof *m.steps);
    m.partial = take(start, &m.bytes, blocks, sizeof *m.partial);
    m.tally = take(start, &m.bytes, blocks, sizeof *m.tally);
    m.found = take(start, &m.bytes, count, sizeof *m.found);
    m.carry = take(start, &m.bytes, count * FASTLR_CARRY, sizeof *m.carry);
    m.bytes += 63; /* before `start` */
    return m;
}

/* Of the line of all tensors, at most: each may start a block of its own. */
static size_t most_blocks(const fastlr_call *c)
{
    size_t total = 0;
    for (size_t k = 0; k < c->count; k++)
        total += tensor_at(c, k).n;
    return total / FASTLR_BLOCK + c->count + 1;
}

static bool read_call(fastlr_call *own, const fastlr_call *theirs)
{
    return known(own, sizeof *own, theirs, CALL_1) && own->stride >= offsetof(fastlr_tensor, s) &&
           own->stride <= sizeof(fastlr_tensor);
}

size_t fastlr_scratch(const fastlr_call *call)
{
    fastlr_call c;
    return read_call(&c, call) ? divide(NULL, c.count, most_blocks(&c)).bytes : 0;
}

/* ---- the step ---- */

double fastlr_clip(double scale, double norm, double clip_norm)
{
    return norm + 1e-6 <= clip_norm ? scale : scale * (clip_norm / (norm + 1e-6));
}

static bool whole(const void *p, size_t size)
{
    return p && (uintptr_t)p % size == 0;
}

/* The spans, or false where a buffer is missing. Units are what the rule sums over. */
static bool lay(const fastlr_call *c, const fastlr_rule *rule, fastlr_span *spans)
{
    for (size_t k = 0; k < c->count; k++) {
        const fastlr_tensor x = tensor_at(c, k);
        bool good = !x.n || (whole(x.p, rule->size) && whole(x.g, rule->size));
        for (int j = 0; x.n && j < rule->states + rule->inputs; j++)
            good &= whole(x.s[j], rule->size);
        if (!good)
            return false;
        spans[k] = (fastlr_span){.n = x.n, .p = x.p, .g = x.g, .unit = rule->scope == FASTLR_TENSOR ? k : 0};
        memcpy(spans[k].s, x.s, sizeof x.s);
    }
    fastlr_lay(spans, c->count);
    return true;
}

/* Whether each tensor has scalars and numbers of its own. */
static bool apart(const fastlr_rule *rule)
{
    return rule->scope == FASTLR_TENSOR || (rule->scope == FASTLR_ALONE && rule->carry);
}

static bool prepare(const fastlr_call *c, const fastlr_rule *rule, const fastlr_hyper *hyper, const memory *m,
                    const fastlr_sums *sums)
{
    const size_t sets = apart(rule) ? c->count : 1;
    if (rule->carry)
        memcpy(m->carry, c->carry, sets * FASTLR_CARRY * sizeof *m->carry);
    for (size_t k = 0; k < sets; k++)
        if (!rule->prepare(hyper, c->t, sums ? &sums[m->spans[k].unit] : NULL, m->carry + k * FASTLR_CARRY,
                           &m->steps[k]))
            return false;
    for (size_t k = 0; k < c->count; k++)
        m->spans[k].step = &m->steps[sets > 1 ? k : 0];
    return true;
}

static bool asks(const fastlr_call *c, const fastlr_rule *rule, const memory *m)
{
    bool any = !rule->asks;
    for (size_t k = 0; !any && k < (apart(rule) ? c->count : 1); k++)
        any = rule->asks(m->carry + k * FASTLR_CARRY);
    return any && rule->survey;
}

static void close_step(const fastlr_call *c, const fastlr_rule *rule, const fastlr_hyper *hyper, const memory *m)
{
    const size_t sets = apart(rule) ? c->count : 1;
    if (rule->carry)
        memcpy(c->carry, m->carry, sets * FASTLR_CARRY * sizeof *m->carry);
    for (size_t k = 0; rule->close && k < sets; k++)
        rule->close(hyper, c->t, &m->found[m->spans[k].unit], c->carry + k * FASTLR_CARRY);
}

static fastlr_status check(const fastlr_call *c, const fastlr_rule *rule)
{
    if (!rule)
        return FASTLR_NO_RULE;
    if (c->hypers != (size_t)rule->hypers || (c->hypers && !c->hyper))
        return FASTLR_BAD_HYPERS;
    if (c->t < 1)
        return FASTLR_BAD_STEP;
    if (rule->carry && !c->carry)
        return FASTLR_NO_CARRY;
    if (!c->scratch || c->room < divide(NULL, c->count, most_blocks(c)).bytes)
        return FASTLR_NO_SCRATCH;
    return isfinite(c->lr) && isfinite(c->scale) && isfinite(c->l2) && isfinite(c->decay) && isfinite(c->clip_norm)
               ? FASTLR_OK
               : FASTLR_NOT_FINITE;
}

fastlr_status fastlr_update(const fastlr_call *call, fastlr_found *found)
{
    fastlr_call c;
    if (!read_call(&c, call) || (found && (found->size < FOUND_1 || found->size > sizeof *found)))
        return FASTLR_BAD_SIZE;
    const fastlr_rule *rule = rule_of(c.rule, c.dtype);
    const fastlr_status status = check(&c, rule);
    if (status != FASTLR_OK)
        return status;
    const memory m = divide(c.scratch, c.count, most_blocks(&c));
    if (!lay(&c, rule, m.spans))
        return FASTLR_BAD_BUFFER;
    fastlr_hyper hyper = {.lr = c.lr, .scale = c.scale, .l2 = c.l2, .decay = c.decay, .context = rule->context};
    for (size_t k = 0; k < c.hypers; k++)
        hyper.rule[k] = c.hyper[k];

    double norm = (double)NAN;
    bool skip = false;
    if (c.clip_norm > 0 || c.skip) {
        const fastlr_stats stats = fastlr_measure(c.dtype, m.spans, c.count, m.partial, c.threads);
        norm = fabs(c.scale) * stats.norm;
        if (c.clip_norm > 0)
            hyper.scale = fastlr_clip(c.scale, norm, c.clip_norm);
        skip = c.skip && !(stats.finite &&
                           fabs(hyper.scale) * stats.largest <= (c.dtype == FASTLR_F32 ? (double)FLT_MAX : DBL_MAX));
    }
    if (!skip) {
        if (!prepare(&c, rule, &hyper, &m, NULL))
            return FASTLR_NOT_FINITE;
        if (asks(&c, rule, &m)) {
            fastlr_survey(rule, m.spans, c.count, m.tally, m.found, c.threads);
            if (!prepare(&c, rule, &hyper, &m, m.found))
                return FASTLR_NOT_FINITE;
        }
        fastlr_run(rule, m.spans, c.count, c.zero, m.tally, m.found, c.threads);
        close_step(&c, rule, &hyper, &m);
    } else if (c.zero) {
        for (size_t k = 0; k < c.count; k++)
            if (m.spans[k].n)
                memset(m.spans[k].g, 0, m.spans[k].n * rule->size);
    }
    if (found)
        found->norm = norm;
    return skip ? FASTLR_SKIPPED : FASTLR_OK;
}

const fastlr_api *fastlr_get_api(void)
{
    static const fastlr_api api = {
        .abi = FASTLR_ABI,
        .size = sizeof api,
        .describe = fastlr_describe,
        .scratch = fastlr_scratch,
        .update = fastlr_update,
        .message = fastlr_message,
        .rule_name = fastlr_rule_name,
        .isa_name = fastlr_isa_name,
        .isa_runs = fastlr_isa_runs,
        .isa = fastlr_isa,
        .use_isa = fastlr_use_isa,
        .processors = fastlr_processors,
        .parallel = fastlr_parallel,
        .schedule = fastlr_schedule,
    };
    return &api;
}
