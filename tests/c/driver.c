/* The C core without Python, for the sanitizers: every rule on buffers of exact size, over instruction sets, threads, spans,
 * offsets and lengths; all must give the bits of the first run. Also two threads stepping at once, and a forked child.
 * Prints what it checked; exits with 1 at the first difference. tools/sanitize.sh builds and runs it. */
#define _GNU_SOURCE
#include "fastlr.h"
#include "schedule.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const fastlr_hyper HYPER = {
    .lr = 0.1, .scale = 0.5, .l2 = 0.01, .decay = 0.02, .rule = {0.9, 0.99, 1e-8, 0.5, 0.5, 0.5, 0.5, 0.5}};
enum { BUFFERS = 2 + FASTLR_STATES, STEPS = 3 };

static long checked;

static void fail(const char *what, const char *rule, size_t n)
{
    printf("FAILED: %s, rule %s, %zu elements\n", what, rule, n);
    exit(1);
}

static void fill(void *x, fastlr_dtype dtype, size_t n, int which)
{
    for (size_t i = 0; i < n; i++) {
        const double y = which < 2 ? (double)((i * 2654435761u + (size_t)which * 97) % 1009) / 504 - 1.0001 : 0;
        if (dtype == FASTLR_F32)
            ((float *)x)[i] = (float)y;
        else
            ((double *)x)[i] = y;
    }
}

/* Trains `n` elements cut into `pieces` spans, each at `offset` elements into an allocation that ends with it; the result
 * is p and the state, one after the other. */
static char *train(const char *name, fastlr_dtype dtype, size_t n, size_t pieces, size_t offset, bool zero, int threads)
{
    const fastlr_rule *rule = fastlr_find(name, dtype);
    const size_t size = rule->size;
    fastlr_step step;
    fastlr_span *spans = calloc(pieces, sizeof *spans);
    char **blocks = calloc(pieces * BUFFERS, sizeof *blocks);
    char *result = malloc(n * size * BUFFERS + 1), *whole = malloc(n * size + 1);
    for (size_t k = 0, at = 0; k < pieces; k++) {
        const size_t m = k + 1 == pieces ? n - at : n / pieces / 2;
        void *buffers[BUFFERS];
        for (int b = 0; b < BUFFERS; b++) {
            char *block = blocks[k * BUFFERS + (size_t)b] = malloc((offset + m) * size + (offset + m == 0));
            fill(whole, dtype, n, b);
            memcpy(block + offset * size, whole + at * size, m * size);
            buffers[b] = block + offset * size;
        }
        spans[k] = (fastlr_span){.n = m, .p = buffers[0], .g = buffers[1], .step = &step};
        memcpy(spans[k].s, buffers + 2, sizeof spans[k].s);
        at += m;
    }
    fastlr_lay(spans, pieces);
    fastlr_partial *scratch = malloc(sizeof *scratch * (fastlr_blocks(spans, pieces) + 1));
    fastlr_sums *tally = malloc(sizeof *tally * (fastlr_blocks(spans, pieces) + 1)), found = {0};
    double carry[FASTLR_CARRY] = {0}, next[FASTLR_CARRY];
    for (int t = 1; t <= STEPS; t++) {
        const fastlr_stats stats = fastlr_measure(dtype, spans, pieces, scratch, threads);
        fastlr_hyper hyper = HYPER;
        hyper.scale /= 1 + stats.norm; /* so that its bits are compared too */
        hyper.context = rule->context;
        memcpy(next, carry, sizeof carry);
        if (!stats.finite || !rule->prepare(&hyper, t, NULL, next, &step))
            fail("prepare", name, n);
        if (rule->survey && (!rule->asks || rule->asks(next))) {
            fastlr_survey(rule, spans, pieces, tally, &found, threads);
            memcpy(next, carry, sizeof carry);
            if (!rule->prepare(&hyper, t, &found, next, &step))
                fail("prepare with sums", name, n);
        }
        memcpy(carry, next, sizeof carry);
        fastlr_run(rule, spans, pieces, zero && t == STEPS, tally, &found, threads);
        if (rule->close)
            rule->close(&hyper, t, &found, carry);
    }
    for (size_t k = 0, at = 0; k < pieces; at += spans[k++].n) {
        void *buffers[BUFFERS] = {spans[k].p, [BUFFERS - 1] = spans[k].g};
        memcpy(buffers + 1, spans[k].s, sizeof spans[k].s);
        for (int b = 0; b < BUFFERS; b++)
            memcpy(result + ((size_t)b * n + at) * size, buffers[b], spans[k].n * size);
        for (size_t i = 0; zero && i < spans[k].n * size; i++)
            if (((char *)spans[k].g)[i])
                fail("zero", name, n);
    }
    for (size_t k = 0; k < pieces * BUFFERS; k++)
        free(blocks[k]);
    free(blocks), free(spans), free(scratch), free(tally), free(whole);
    return result;
}

static void compare(const char *name, fastlr_dtype dtype, size_t n)
{
    fastlr_use_isa(0);
    char *expected = train(name, dtype, n, 1, 0, false, 1);
    const size_t bytes = n * fastlr_find(name, dtype)->size * (BUFFERS - 1);
    for (int isa = 0; fastlr_isa_name(isa); isa++) {
        if (!fastlr_isa_runs(isa))
            continue;
        fastlr_use_isa(isa);
        for (int threads = 1; threads <= 3; threads++)
            for (size_t pieces = 1; pieces <= 7; pieces += 3)
                for (size_t offset = 0; offset <= 3; offset += 3) {
                    char *found = train(name, dtype, n, pieces, offset, threads == 2, threads);
                    if (memcmp(found, expected, bytes))
                        fail(fastlr_isa_name(isa), name, n);
                    free(found);
                    checked++;
                }
    }
    free(expected);
}

/* Some rows of a table, each any number of times: p and the states, one after the other. */
static char *train_rows(const char *name, fastlr_dtype dtype, size_t rows, size_t width, size_t count, int threads,
                        size_t *all)
{
    const fastlr_rule *rule = fastlr_find_rows(name, dtype);
    const size_t size = rule->size, whole = rows * width * size;
    fastlr_rows r = {.rows = rows, .width = width, .count = count, .p = malloc(whole + 1)};
    void *g = malloc(count * width * size + 1);
    char *result = calloc(whole * (1 + FASTLR_STATES) + rows * 8, 1), *end = result;
    size_t bytes[FASTLR_STATES] = {0};
    fill(r.p, dtype, rows * width, 0);
    fill(g, dtype, count * width, 1);
    r.g = g;
    for (int j = 0; j < rule->states; j++) {
        bytes[j] = rule->extent[j] == FASTLR_ELEMENTS ? whole : rows * (rule->extent[j] == FASTLR_PER_ROW ? size : 8);
        r.s[j] = calloc(bytes[j] + 1, 1);
    }
    int32_t *narrow = malloc(count * 4 + 1);
    int64_t *wide = malloc(count * 8 + 1);
    uint64_t *scratch[2] = {malloc(count * 8 + 1), malloc(count * 8 + 1)};
    fastlr_partial *partial = malloc(count * sizeof *partial + 1);
    void *sums = malloc(fastlr_rows_scratch(width, dtype) * (size_t)threads + 1);
    fastlr_step step;
    r.step = &step;
    for (int t = 1; t <= STEPS; t++) {
        for (size_t k = 0; k < count; k++) /* a third of them one row's */
            wide[k] = narrow[k] = (int32_t)(k % 3 ? (k * 2654435761u + (size_t)t) % rows : rows / 2);
        if (fastlr_order_rows(t % 2 ? (void *)wide : narrow, t % 2, count, rows, scratch, &r.pairs, threads) != count)
            fail("order", name, count);
        const fastlr_stats stats = fastlr_measure_rows(dtype, &r, 1, partial, sums, threads);
        fastlr_hyper hyper = HYPER;
        hyper.scale /= 1 + stats.norm;
        if (!stats.finite || !rule->prepare(&hyper, t, NULL, NULL, &step))
            fail("prepare", name, count);
        fastlr_run_rows(rule, dtype, &r, 1, sums, threads);
    }
    if (count) {
        wide[count - 1] = count % 2 ? -1 : (int64_t)rows;
        if (fastlr_order_rows(wide, true, count, rows, scratch, &r.pairs, threads) != count - 1)
            fail("a row that does not exist", name, count);
    }
    memcpy(end, r.p, whole), end += whole;
    for (int j = 0; j < rule->states; end += bytes[j++])
        memcpy(end, r.s[j], bytes[j]), free(r.s[j]);
    *all = (size_t)(end - result);
    free(r.p), free(g), free(narrow), free(wide), free(scratch[0]), free(scratch[1]), free(partial), free(sums);
    return result;
}

static void compare_rows(const char *name, fastlr_dtype dtype, size_t rows, size_t width, size_t count)
{
    size_t all;
    fastlr_use_isa(0);
    char *expected = train_rows(name, dtype, rows, width, count, 1, &all);
    for (int isa = 0; fastlr_isa_name(isa); isa++) {
        if (!fastlr_isa_runs(isa))
            continue;
        fastlr_use_isa(isa);
        for (int threads = 1; threads <= 3; threads++, checked++) {
            char *found = train_rows(name, dtype, rows, width, count, threads, &all);
            if (memcmp(found, expected, all))
                fail("rows", name, count);
            free(found);
        }
    }
    free(expected);
}

/* Adafactor, whose buffers are of other sizes: a vector, small planes and a matrix of several tiles in one call. */
static char *train_factored(fastlr_dtype dtype, bool zero, size_t *bytes, int threads)
{
    enum { TENSORS = 4 };
    const fastlr_planes shapes[TENSORS] = {{1, 0, 70001}, {90, 3, 5}, {2, 70, 1030}, {1, 1, 7}};
    const fastlr_rule *rule = fastlr_find("adafactor", dtype);
    fastlr_hyper hyper = {.lr = 0.1, .scale = 0.5, .decay = 0.02, .rule = {-0.8, 0, 1e-3, 1, 0, 1, 1}};
    fastlr_step step;
    fastlr_span spans[TENSORS];
    size_t sizes[TENSORS][5], all = 0;
    for (int k = 0; k < TENSORS; k++) {
        const fastlr_planes s = shapes[k];
        const size_t n = s.planes * (s.rows ? s.rows : 1) * s.cols;
        const size_t own[5] = {n, n, s.planes * s.rows, s.rows ? s.planes * s.cols : 0, s.rows ? 0 : n};
        void *buffers[5];
        for (int b = 0; b < 5; b++) {
            sizes[k][b] = own[b] * rule->size, all += sizes[k][b];
            fill(buffers[b] = malloc(sizes[k][b] + 1), dtype, own[b], b);
        }
        spans[k] = (fastlr_span){.n = n, .p = buffers[0], .g = buffers[1], .step = &step};
        memcpy(spans[k].s, buffers + 2, 3 * sizeof *buffers);
    }
    void *scratch = malloc(fastlr_factored_scratch(spans, shapes, TENSORS));
    for (int t = 1; t <= STEPS; t++) {
        if (!rule->prepare(&hyper, t, NULL, NULL, &step))
            fail("prepare", "adafactor", 0);
        fastlr_factored_run(rule, spans, shapes, TENSORS, zero && t == STEPS, scratch, threads);
    }
    free(scratch);
    char *result = malloc(*bytes = all), *at = result;
    for (int k = 0; k < TENSORS; k++) {
        void *buffers[5] = {spans[k].p, spans[k].g};
        memcpy(buffers + 2, spans[k].s, 3 * sizeof *buffers);
        for (size_t i = 0; zero && i < sizes[k][1]; i++)
            if (((char *)buffers[1])[i])
                fail("zero", "adafactor", 0);
        fill(buffers[1], dtype, spans[k].n, 1); /* the same, zeroed or not */
        for (int b = 0; b < 5; at += sizes[k][b++])
            memcpy(at, buffers[b], sizes[k][b]), free(buffers[b]);
    }
    return result;
}

static void compare_factored(fastlr_dtype dtype)
{
    size_t bytes;
    fastlr_use_isa(0);
    char *expected = train_factored(dtype, false, &bytes, 1);
    for (int isa = 0; fastlr_isa_name(isa); isa++) {
        if (!fastlr_isa_runs(isa))
            continue;
        fastlr_use_isa(isa);
        for (int threads = 1; threads <= 3; threads++) {
            char *found = train_factored(dtype, threads == 2, &bytes, threads);
            if (memcmp(found, expected, bytes))
                fail(fastlr_isa_name(isa), "adafactor", 0);
            free(found);
            checked++;
        }
    }
    free(expected);
}

/* Momentum as a rule made at run time, which carries a number: the steps made. */
static void made_at(int64_t t, double lr, const double *hyper, double *out)
{
    out[0] = lr / (double)t, out[1] = hyper[0] + hyper[1] / 10, out[2] = hyper[1] + 1;
}

#define CHUNK(name, real)                                                                                              \
    static void name(int64_t n, void *params, void *gradients, void *const *s, const void *numbers, int64_t zero)      \
    {                                                                                                                  \
        real *p = params, *g = gradients, *b = s[0];                                                                   \
        const real *x = numbers; /* scale, l2, decay, rate and the scalar */                                           \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            b[i] = x[4] * b[i] + (x[0] * g[i] + x[1] * p[i]);                                                          \
            p[i] -= x[3] * b[i] + x[2] * p[i];                                                                         \
            g[i] = zero ? 0 : g[i];                                                                                    \
        }                                                                                                              \
    }
CHUNK(made_f32, float)
CHUNK(made_f64, double)

static void compare_made(size_t n)
{
    static fastlr_made made[FASTLR_DTYPES] = {{.dtype = FASTLR_F32}, {.dtype = FASTLR_F64}};
    for (fastlr_dtype dtype = 0; dtype < FASTLR_DTYPES; dtype++) {
        if (!made[dtype].name) {
            made[dtype].name = "made here", made[dtype].states = made[dtype].hypers = 1;
            made[dtype].scalars = made[dtype].carry = 1;
            fastlr_add(&made[dtype]);
            fastlr_use_made(&made[dtype], made_at, dtype == FASTLR_F32 ? made_f32 : made_f64);
        }
        compare("made here", dtype, n);
    }
}

static void *alongside(void *expected)
{
    for (int k = 0; k < 20; k++) {
        char *found = train("adam", FASTLR_F32, 40000, 3, 0, false, 3);
        if (memcmp(found, expected, 40000 * sizeof(float) * (BUFFERS - 1)))
            fail("two callers", "adam", 40000);
        free(found);
    }
    return NULL;
}

/* A schedule with every kind of child: two cosines, of which the second repeats, times a staircase, from step 10 on. */
static void follow(size_t n)
{
    const fastlr_segment table[] = {
        {.kind = KIND_SEQUENCE, .first = 1, .count = 2},
        {.kind = KIND_INTERPOLATE, .shape = SHAPE_COSINE, .p = {1, 10, [9] = 0.5}},
        {.kind = KIND_PRODUCT, .start = 10, .first = 3, .count = 2},
        {.kind = KIND_REPEAT, .p = {7, 1, -0.1}, .first = 5, .count = 1},
        {.kind = KIND_EXPONENTIAL, .p = {-0.2, 0, 50, 0, 1, [9] = 2}},
        {.kind = KIND_INTERPOLATE, .shape = SHAPE_COSINE, .p = {0, 7, [9] = 1}},
    };
    double *t = malloc(n * sizeof *t + 1), *whole = malloc(n * sizeof *whole + 1), *part = malloc(n * sizeof *part + 1);
    int64_t *k = malloc(n * sizeof *k + 1);
    for (size_t i = 0; i < n; i++)
        t[i] = (double)(k[i] = (int64_t)(i % 5 ? i : i * 7919 % 977));
    for (int isa = 0; fastlr_isa_name(isa); isa++) {
        if (!fastlr_isa_runs(isa))
            continue;
        fastlr_use_isa(isa);
        if (fastlr_schedule(table, n, t, isa ? part : whole) || memcmp(isa ? part : whole, whole, n * sizeof *whole))
            fail("instruction set", "schedule", n);
        if (fastlr_schedule_ints(table, n, k, part) || memcmp(part, whole, n * sizeof *whole))
            fail("integers", "schedule", n);
        for (size_t i = 0; i < n; i++)
            if (fastlr_schedule(table, 1, t + i, part + i) || memcmp(part + i, whole + i, sizeof *whole))
                fail("one by one", "schedule", n);
        checked++;
    }
    free(t), free(k), free(whole), free(part);
}

int main(void)
{
    const size_t lengths[] = {
        0, 1, 3, 15, 16, 17, 63, 65, 127, FASTLR_BLOCK - 1, FASTLR_BLOCK, FASTLR_BLOCK + 1, 5 * FASTLR_BLOCK + 7};
    for (int r = 0; fastlr_rule_name(r); r++)
        for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
            compare(fastlr_rule_name(r), FASTLR_F32, lengths[l]);
            compare(fastlr_rule_name(r), FASTLR_F64, lengths[l]);
        }
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
        compare_made(lengths[l]), follow(lengths[l]);
    const char *const by_rows[] = {"sgd", "momentum", "adagrad", "adam", "lazy_adam", "row_adagrad", "ftrl"};
    const size_t tables[][3] = {{1, 1, 0}, {1, 3, 700}, {300, 33, 5}, {5000, 7, 9000}, {9000, 64, 1500}};
    for (size_t r = 0; r < sizeof by_rows / sizeof *by_rows; r++)
        for (size_t l = 0; l < sizeof tables / sizeof *tables; l++) {
            compare_rows(by_rows[r], FASTLR_F32, tables[l][0], tables[l][1], tables[l][2]);
            compare_rows(by_rows[r], FASTLR_F64, tables[l][0], tables[l][1], tables[l][2]);
        }
    compare_factored(FASTLR_F32);
    compare_factored(FASTLR_F64);
    char *expected = train("adam", FASTLR_F32, 40000, 1, 0, false, 1);
    pthread_t threads[3];
    for (int k = 0; k < 3; k++)
        pthread_create(&threads[k], NULL, alongside, expected);
    for (int k = 0; k < 3; k++)
        pthread_join(threads[k], NULL);
    if (!getenv("DRIVER_NO_FORK")) {
        const pid_t child = fork();
        int status;
        if (child == 0)
            alongside(expected), _exit(0);
        if (waitpid(child, &status, 0) != child || status)
            fail("fork", "adam", 40000);
    }
    free(expected);
    if (fastlr_find("no such rule", FASTLR_F32))
        fail("find", "none", 0);
    printf("%ld runs, the same bits\n", checked);
    return 0;
}
