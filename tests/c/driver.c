/* The C core without Python, for the sanitizers: every rule on buffers of exact size, over instruction sets, threads, spans,
 * offsets and lengths; all must give the bits of the first run. Also two threads stepping at once, and a forked child.
 * Prints what it checked; exits with 1 at the first difference. tools/sanitize.sh builds and runs it. */
#define _GNU_SOURCE
#include "fastlr.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const fastlr_hyper HYPER = {.lr = 0.1, .scale = 0.5, .l2 = 0.01, .decay = 0.02, .rule = {0.9, 0.99, 1e-8}};
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
        spans[k] = (fastlr_span){
            .n = m, .p = buffers[0], .g = buffers[1], .s = {buffers[2], buffers[3], buffers[4]}, .step = &step};
        at += m;
    }
    fastlr_lay(spans, pieces);
    fastlr_partial *scratch = malloc(sizeof *scratch * (fastlr_blocks(spans, pieces) + 1));
    for (int t = 1; t <= STEPS; t++) {
        const fastlr_stats stats = fastlr_measure(dtype, spans, pieces, scratch, threads);
        fastlr_hyper hyper = HYPER;
        hyper.scale /= 1 + stats.norm; /* so that its bits are compared too */
        if (!stats.finite || !rule->prepare(&hyper, t, &step))
            fail("prepare", name, n);
        fastlr_run(rule, spans, pieces, zero && t == STEPS, threads);
    }
    for (size_t k = 0, at = 0; k < pieces; at += spans[k++].n) {
        void *buffers[BUFFERS] = {spans[k].p, spans[k].s[0], spans[k].s[1], spans[k].s[2], spans[k].g};
        for (int b = 0; b < BUFFERS; b++)
            memcpy(result + ((size_t)b * n + at) * size, buffers[b], spans[k].n * size);
        for (size_t i = 0; zero && i < spans[k].n * size; i++)
            if (((char *)spans[k].g)[i])
                fail("zero", name, n);
    }
    for (size_t k = 0; k < pieces * BUFFERS; k++)
        free(blocks[k]);
    free(blocks), free(spans), free(scratch), free(whole);
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

int main(void)
{
    const size_t lengths[] = {
        0, 1, 3, 15, 16, 17, 63, 65, 127, FASTLR_BLOCK - 1, FASTLR_BLOCK, FASTLR_BLOCK + 1, 5 * FASTLR_BLOCK + 7};
    for (int r = 0; fastlr_rule_name(r); r++)
        for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
            compare(fastlr_rule_name(r), FASTLR_F32, lengths[l]);
            compare(fastlr_rule_name(r), FASTLR_F64, lengths[l]);
        }
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
