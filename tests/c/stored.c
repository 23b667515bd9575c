/* Every rule on numbers in fewer bits, for the sanitizers: buffers of exact size, over ways of storage, instruction sets, threads
 * and spans; all must give the bits of the first run. Prints what it checked; exits with 1 at the first difference.
 * tools/sanitize.sh builds and runs it. */
#include "fastlr.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const fastlr_hyper HYPER = {
    .lr = 0.1, .scale = 0.5, .l2 = 0.01, .decay = 0.02, .rule = {0.9, 0.99, 1e-8, 0.5, 0.5, 0.5, 0.5, 0.5}};
static const size_t SIZE[FASTLR_FORMATS] = {4, 2, 2, 2, 2, 2, 2, 1, 1};
enum { STEPS = 3, WAYS = 6, PIECES = 4 };

/* `s` of the states that may have it; FASTLR_INT8 stands for both kinds of 8 bits. */
typedef struct {
    fastlr_format p, g, s, copy;
    bool ema, copied;
    float most;
} way;

static const way ways[WAYS] = {
    {.p = FASTLR_OWN, .g = FASTLR_OWN, .s = FASTLR_INT8},
    {.p = FASTLR_BF16, .g = FASTLR_BF16, .s = FASTLR_BF16},
    {.p = FASTLR_BF16_BY_CHANCE, .g = FASTLR_BF16, .s = FASTLR_INT8, .most = 0.5f},
    {.p = FASTLR_SPLIT, .g = FASTLR_OWN, .s = FASTLR_BF16_BY_CHANCE, .copied = true, .copy = FASTLR_F16},
    {.p = FASTLR_KAHAN, .g = FASTLR_F16, .s = FASTLR_OWN, .ema = true},
    {.p = FASTLR_F16_BY_CHANCE, .g = FASTLR_F16, .s = FASTLR_BF16, .ema = true, .copied = true, .copy = FASTLR_OWN},
};

enum { P, LOW, EMA, COPY, G, S, SCALE = S + FASTLR_STATES, BUFFERS = SCALE + FASTLR_STATES };

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
        return n * SIZE[x->p];
    case G:
        return n * SIZE[x->g];
    case LOW:
        return x->p == FASTLR_SPLIT || x->p == FASTLR_KAHAN ? 2 * n : 0;
    case EMA:
        return x->ema ? n * sizeof(float) : 0;
    case COPY:
        return x->copied ? n * SIZE[x->copy] : 0;
    default:
        if (buffer < SCALE)
            return state < given ? n * SIZE[format_of(rule, x, state)] : 0;
        return is_scaled(rule, x, state) ? n / FASTLR_QUANTUM * sizeof(float) : 0;
    }
}

static void fill(float *x, size_t n, unsigned which)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)((i * 2654435761u + which * 97) % 1009) / 504 - 1.0001f;
}

/* Trains n elements cut into spans; the result is all buffers, one after the other, each from the first span to the last. */
static char *train(const char *name, int at_way, size_t n, size_t pieces, bool zero, int threads, size_t *bytes)
{
    const fastlr_rule *rule = fastlr_find(name, FASTLR_F32);
    const way *x = &ways[at_way];
    fastlr_step step;
    fastlr_span spans[PIECES];
    fastlr_stored stored[PIECES];
    void *blocks[PIECES][BUFFERS];
    size_t start[PIECES + 1] = {0};
    float *p = malloc(n * sizeof *p + 1), *g = malloc(n * sizeof *g + 1);
    fill(p, n, 0), fill(g, n, 1);
    for (size_t k = 0; k < pieces; k++) {
        const size_t some = n / pieces / 2 / FASTLR_QUANTUM * FASTLR_QUANTUM; /* none has half a scale */
        start[k + 1] = k + 1 == pieces ? n : start[k] + some;
        const size_t m = start[k + 1] - start[k];
        for (int b = 0; b < BUFFERS; b++) {
            const size_t size = bytes_of(rule, x, b, m);
            blocks[k][b] = size ? calloc(size, 1) : NULL;
        }
        void **own = blocks[k];
        stored[k] = (fastlr_stored){.p = x->p, .g = x->g, .copy = x->copy, .low = own[LOW], .ema = own[EMA]};
        stored[k].share = 0.25f, stored[k].copied = own[COPY], stored[k].most = x->most;
        stored[k].first = start[k];
        spans[k] = (fastlr_span){.n = m, .p = own[P], .g = own[G], .step = &step, .stored = &stored[k]};
        for (int j = 0; j < FASTLR_STATES; j++) {
            stored[k].s[j] = format_of(rule, x, j);
            stored[k].scale[j] = own[SCALE + j], spans[k].s[j] = own[S + j];
        }
        const fastlr_format plain = x->p == FASTLR_BF16_BY_CHANCE  ? FASTLR_BF16
                                    : x->p == FASTLR_F16_BY_CHANCE ? FASTLR_F16
                                                                   : x->p; /* a piece has no chance of its own */
        if (m)
            fastlr_narrow(plain, m, p + start[k], own[P], own[LOW], 1);
    }
    fastlr_lay(spans, pieces);
    fastlr_partial *scratch = malloc(sizeof *scratch * (fastlr_blocks(spans, pieces) + 1));
    fastlr_sums *tally = malloc(sizeof *tally * (fastlr_blocks(spans, pieces) + 1)), found = {0};
    double carry[FASTLR_CARRY] = {0}, next[FASTLR_CARRY];
    for (int t = 1; t <= STEPS; t++) {
        for (size_t k = 0; k < pieces; k++) {
            stored[k].key = (uint64_t)t * 0x9e3779b97f4a7c15u;
            if (spans[k].n)
                fastlr_narrow(x->g, spans[k].n, g + start[k], spans[k].g, NULL, 1);
        }
        const fastlr_stats stats = fastlr_measure(FASTLR_F32, spans, pieces, scratch, threads);
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
static void accumulate(size_t n)
{
    const fastlr_format formats[] = {FASTLR_OWN, FASTLR_BF16, FASTLR_F16};
    float *x = malloc(n * sizeof *x + 1), *back = malloc(n * sizeof *back + 1), *sum = malloc(n * sizeof *sum + 1);
    fill(x, n, 1);
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
        void *g = malloc(n * SIZE[formats[f]] + 1);
        fastlr_narrow(formats[f], n, x, g, NULL, 1);
        fastlr_widen(formats[f], n, g, NULL, back);
        const fastlr_stored stored = {.g = formats[f]};
        fastlr_span span = {.n = n, .p = sum, .g = g, .stored = &stored};
        fastlr_lay(&span, 1);
        fill(sum, n, 0);
        fastlr_accumulate(&span, 1, 2);
        fill(x, n, 0);
        for (size_t i = 0; i < n; i++)
            if (sum[i] != x[i] + back[i])
                fail("accumulate", "none", (int)f, n);
        fill(x, n, 1);
        free(g);
        checked++;
    }
    free(x), free(back), free(sum);
}

int main(void)
{
    const size_t lengths[] = {0, 1, 257, FASTLR_BLOCK + 3, 3 * FASTLR_BLOCK + FASTLR_QUANTUM + 7};
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
        accumulate(lengths[l]);
        for (int r = 0; fastlr_rule_name(r); r++)
            for (int at = 0; at < WAYS; at++) {
                const bool scaled = ways[at].s == FASTLR_INT8;
                compare(fastlr_rule_name(r), at, scaled ? lengths[l] / FASTLR_QUANTUM * FASTLR_QUANTUM : lengths[l]);
            }
    }
    printf("%ld runs, the same bits\n", checked);
    return 0;
}
