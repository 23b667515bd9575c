/* Every rule on numbers in fewer bits, for the sanitizers: buffers of exact size, over ways of storage, instruction sets, threads
 * and spans; all must give the bits of the first run. Prints what it checked; exits with 1 at the first difference.
 * tools/sanitize.sh builds and runs it. */
#include "fastlr.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const fastlr_hyper HYPER = {
    .lr = 0.1, .scale = 0.5, .l2 = 0.01, .decay = 0.02, .rule = {0.9, 0.99, 1e-8, 0.5, 0.5, 0.5, 0.5, 0.5}};
enum { STEPS = 3, PIECES = 4 };

/* `s` of the states that may have it; FASTLR_INT8 stands for both kinds of 8 bits. */
typedef struct {
    fastlr_dtype dtype;
    fastlr_format p, g, s, copy[FASTLR_COPIES];
    bool ema;
    int copies;
    double most;
} way;

static const way ways[] = {
    {.p = FASTLR_OWN, .g = FASTLR_OWN, .s = FASTLR_INT8},
    {.p = FASTLR_BF16, .g = FASTLR_BF16, .s = FASTLR_BF16},
    {.p = FASTLR_BF16_BY_CHANCE, .g = FASTLR_BF16, .s = FASTLR_INT8, .most = 0.5},
    {.p = FASTLR_SPLIT, .g = FASTLR_OWN, .s = FASTLR_BF16_BY_CHANCE, .copies = 1, .copy = {FASTLR_F16}},
    {.p = FASTLR_BF16_KAHAN, .g = FASTLR_F16, .s = FASTLR_OWN, .ema = true},
    {.p = FASTLR_F16_KAHAN, .g = FASTLR_F16, .s = FASTLR_INT8, .copies = 1},
    {.p = FASTLR_F16_BY_CHANCE, .g = FASTLR_F16, .s = FASTLR_BF16, .ema = true, .copies = 1},
    {.p = FASTLR_OWN, .g = FASTLR_BF16, .s = FASTLR_OWN, .copies = 2, .copy = {FASTLR_BF16, FASTLR_F16}}, /* a master */
    {.dtype = FASTLR_F64, .g = FASTLR_SINGLE, .ema = true, .copies = 2, .copy = {FASTLR_SINGLE, FASTLR_BF16}},
    {.dtype = FASTLR_F64, .g = FASTLR_BF16, .copies = 2, .copy = {FASTLR_OWN, FASTLR_F16}, .most = 0.5},
    {.dtype = FASTLR_F64, .g = FASTLR_F16},
    {.dtype = FASTLR_F64, .g = FASTLR_OWN, .most = 0.5},
};
enum { WAYS = sizeof ways / sizeof *ways };

static size_t size_of(fastlr_dtype dtype, fastlr_format format)
{
    const size_t own = dtype == FASTLR_F64 ? sizeof(double) : sizeof(float);
    return format == FASTLR_OWN      ? own
           : format == FASTLR_SINGLE ? sizeof(float)
           : format < FASTLR_INT8    ? sizeof(uint16_t)
                                     : sizeof(uint8_t);
}

enum { P, LOW, EMA, COPY, G = COPY + FASTLR_COPIES, S, SCALE = S + FASTLR_STATES, BUFFERS = SCALE + FASTLR_STATES };

static long checked;

static void fail(const char *what, const char *rule, int at, size_t n)
{
    printf("FAILED: %s, rule %s, storage %d, %zu elements\n", what, rule, at, n);
    exit(1);
}

static fastlr_format format_of(const fastlr_rule *rule, const way *x, int state)
{
    if (state >= rule->states || rule->precise >> state & 1)
        return FASTLR_OWN;
    return x->s == FASTLR_INT8 && rule->squares >> state & 1 ? FASTLR_UINT8 : x->s;
}

static bool is_scaled(const fastlr_rule *rule, const way *x, int state)
{
    return format_of(rule, x, state) >= FASTLR_INT8;
}

/* Of n elements of a buffer; 0 where there is none. */
static size_t bytes_of(const fastlr_rule *rule, const way *x, int buffer, size_t n)
{
    const int state = buffer - (buffer < SCALE ? S : SCALE), given = rule->states + rule->inputs;
    switch (buffer) {
    case P:
        return n * size_of(x->dtype, x->p);
    case G:
        return n * size_of(x->dtype, x->g);
    case LOW:
        return x->p == FASTLR_SPLIT || x->p == FASTLR_BF16_KAHAN || x->p == FASTLR_F16_KAHAN ? 2 * n : 0;
    case EMA:
        return x->ema ? n * size_of(x->dtype, FASTLR_OWN) : 0;
    case COPY:
    case COPY + 1:
        return buffer - COPY < x->copies ? n * size_of(x->dtype, x->copy[buffer - COPY]) : 0;
    default:
        if (buffer < SCALE)
            return state < given ? n * size_of(x->dtype, format_of(rule, x, state)) : 0;
        return is_scaled(rule, x, state) ? n / FASTLR_QUANTUM * sizeof(float) : 0;
    }
}

static void fill(fastlr_dtype dtype, void *x, size_t n, unsigned which)
{
    for (size_t i = 0; i < n; i++) {
        const float value = (float)((i * 2654435761u + which * 97) % 1009) / 504 - 1.0001f;
        if (dtype == FASTLR_F64)
            ((double *)x)[i] = (double)value * (1 + 0x1p-40);
        else
            ((float *)x)[i] = value;
    }
}

static double number(fastlr_dtype dtype, const void *x, size_t i)
{
    return dtype == FASTLR_F64 ? ((const double *)x)[i] : (double)((const float *)x)[i];
}

/* Trains n elements cut into spans; the result is all buffers, one after the other, each from the first span to the last. */
static char *train(const char *name, int at_way, size_t n, size_t pieces, bool zero, int threads, size_t *bytes)
{
    const way *x = &ways[at_way];
    const fastlr_rule *rule = fastlr_find(name, x->dtype);
    const size_t own_size = size_of(x->dtype, FASTLR_OWN);
    fastlr_step step;
    fastlr_span spans[PIECES];
    fastlr_stored stored[PIECES];
    void *blocks[PIECES][BUFFERS];
    size_t start[PIECES + 1] = {0};
    char *p = malloc(n * own_size + 1), *g = malloc(n * own_size + 1);
    fill(x->dtype, p, n, 0), fill(x->dtype, g, n, 1);
    for (size_t k = 0; k < pieces; k++) {
        const size_t some = n / pieces / 2 / FASTLR_QUANTUM * FASTLR_QUANTUM; /* none has half a scale */
        start[k + 1] = k + 1 == pieces ? n : start[k] + some;
        const size_t m = start[k + 1] - start[k];
        for (int b = 0; b < BUFFERS; b++) {
            const size_t size = bytes_of(rule, x, b, m);
            blocks[k][b] = size ? calloc(size, 1) : NULL;
        }
        void **own = blocks[k];
        stored[k] = (fastlr_stored){.p = x->p, .g = x->g, .low = own[LOW], .ema = own[EMA]};
        stored[k].share = 0.25, stored[k].most = x->most, stored[k].first = start[k];
        for (int j = 0; j < FASTLR_COPIES; j++)
            stored[k].copy[j] = x->copy[j], stored[k].copied[j] = own[COPY + j];
        spans[k] = (fastlr_span){.n = m, .p = own[P], .g = own[G], .step = &step, .stored = &stored[k]};
        for (int j = 0; j < FASTLR_STATES; j++) {
            stored[k].s[j] = format_of(rule, x, j);
            stored[k].scale[j] = own[SCALE + j], spans[k].s[j] = own[S + j];
        }
        const fastlr_format plain = x->p == FASTLR_BF16_BY_CHANCE  ? FASTLR_BF16
                                    : x->p == FASTLR_F16_BY_CHANCE ? FASTLR_F16
                                                                   : x->p; /* a piece has no chance of its own */
        if (m)
            fastlr_narrow(x->dtype, plain, m, p + start[k] * own_size, own[P], own[LOW], 1);
    }
    fastlr_lay(spans, pieces);
    fastlr_partial *scratch = malloc(sizeof *scratch * (fastlr_blocks(spans, pieces) + 1));
    fastlr_sums *tally = malloc(sizeof *tally * (fastlr_blocks(spans, pieces) + 1)), found = {0};
    double carry[FASTLR_CARRY] = {0}, next[FASTLR_CARRY];
    for (int t = 1; t <= STEPS; t++) {
        for (size_t k = 0; k < pieces; k++) {
            stored[k].key = (uint64_t)t * 0x9e3779b97f4a7c15u;
            if (spans[k].n)
                fastlr_narrow(x->dtype, x->g, spans[k].n, g + start[k] * own_size, spans[k].g, NULL, 1);
        }
        const fastlr_stats stats = fastlr_measure(x->dtype, spans, pieces, scratch, threads);
        fastlr_hyper hyper = HYPER;
        hyper.scale /= 1 + stats.norm; /* so that its bits are compared too */
        memcpy(next, carry, sizeof carry);
        if (!stats.finite || !rule->prepare(&hyper, t, NULL, next, &step))
            fail("prepare", name, at_way, n);
        if (rule->survey && (!rule->asks || rule->asks(next))) {
            fastlr_survey(rule, spans, pieces, tally, &found, threads);
            memcpy(next, carry, sizeof carry);
            if (!rule->prepare(&hyper, t, &found, next, &step))
                fail("prepare with sums", name, at_way, n);
        }
        memcpy(carry, next, sizeof carry);
        fastlr_run(rule, spans, pieces, zero && t == STEPS, tally, &found, threads);
        if (rule->close)
            rule->close(&hyper, t, &found, carry);
    }
    *bytes = 0;
    for (int b = 0; b < BUFFERS; b++)
        *bytes += bytes_of(rule, x, b, n);
    char *result = malloc(*bytes + 1), *end = result;
    for (int b = 0; b < BUFFERS; end += bytes_of(rule, x, b++, n))
        for (size_t k = 0; k < pieces; k++) {
            const size_t size = bytes_of(rule, x, b, spans[k].n);
            for (size_t i = 0; b == G && i < size; i++) {
                if (zero && ((char *)blocks[k][b])[i])
                    fail("zero", name, at_way, n);
                ((char *)blocks[k][b])[i] = 0; /* the same, zeroed or not */
            }
            if (size)
                memcpy(end + bytes_of(rule, x, b, start[k]), blocks[k][b], size);
            free(blocks[k][b]);
        }
    free(p), free(g), free(scratch), free(tally);
    return result;
}

static void compare(const char *name, int at_way, size_t n)
{
    size_t bytes, also;
    fastlr_use_isa(0);
    char *expected = train(name, at_way, n, 1, false, 1, &bytes);
    for (int isa = 0; fastlr_isa_name(isa); isa++) {
        if (!fastlr_isa_runs(isa))
            continue;
        fastlr_use_isa(isa);
        for (int threads = 1; threads <= 3; threads++) {
            char *found = train(name, at_way, n, threads % 2 ? 1 : PIECES, threads == 3, threads, &also);
            if (also != bytes || memcmp(found, expected, bytes))
                fail(fastlr_isa_name(isa), name, at_way, n);
            free(found);
            checked++;
        }
    }
    free(expected);
}

/* Sums of gradients, in all formats that these have. */
static void accumulate(fastlr_dtype dtype, size_t n)
{
    const fastlr_format formats[] = {FASTLR_BF16, FASTLR_F16, dtype == FASTLR_F64 ? FASTLR_SINGLE : FASTLR_OWN};
    const size_t own = size_of(dtype, FASTLR_OWN);
    void *x = malloc(n * own + 1), *sum = malloc(n * own + 1);
    float *back = malloc(n * sizeof *back + 1);
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
        void *g = malloc(n * size_of(dtype, formats[f]) + 1);
        fill(dtype, x, n, 1);
        fastlr_narrow(dtype, formats[f], n, x, g, NULL, 1);
        fastlr_widen(formats[f] == FASTLR_SINGLE ? FASTLR_OWN : formats[f], n, g, NULL, back);
        const fastlr_stored stored = {.g = formats[f]};
        fastlr_span span = {.n = n, .p = sum, .g = g, .stored = &stored};
        fastlr_lay(&span, 1);
        fill(dtype, sum, n, 0);
        fastlr_accumulate(dtype, &span, 1, 2);
        fill(dtype, x, n, 0);
        for (size_t i = 0; i < n; i++) {
            const double exact = number(dtype, x, i) + (double)back[i];
            if (number(dtype, sum, i) != (dtype == FASTLR_F64 ? exact : (double)(float)exact))
                fail("accumulate", "none", (int)f, n);
        }
        free(g);
        checked++;
    }
    free(x), free(back), free(sum);
}

int main(void)
{
    const size_t lengths[] = {0, 1, 257, FASTLR_BLOCK + 3, 3 * FASTLR_BLOCK + FASTLR_QUANTUM + 7};
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
        accumulate(FASTLR_F32, lengths[l]);
        accumulate(FASTLR_F64, lengths[l]);
        for (int r = 0; fastlr_rule_name(r); r++)
            for (int at = 0; at < WAYS; at++) {
                const bool scaled = ways[at].s == FASTLR_INT8;
                compare(fastlr_rule_name(r), at, scaled ? lengths[l] / FASTLR_QUANTUM * FASTLR_QUANTUM : lengths[l]);
            }
    }
    printf("%ld runs, the same bits\n", checked);
    return 0;
}
