/* Whole steps: many spans as one line.
 *
 * The spans are laid end to end and the line is cut into blocks of FASTLR_BLOCK elements, which the threads share. So a
 * model of a thousand small tensors and one flat buffer cost the same, and one call is one parallel region. What is summed by
 * itself starts on a block of its own, so that its sums do not depend on its neighbours.
 */
#include "stored.h"

#include <math.h>

static size_t length(const fastlr_span *spans, size_t count)
{
    return count ? spans[count - 1].start + spans[count - 1].n : 0;
}

static size_t up_to(size_t multiple, size_t x)
{
    return (x + multiple - 1) / multiple * multiple;
}

static bool in_quanta(const fastlr_span *s)
{
    bool found = false;
    for (int j = 0; s->stored && j < FASTLR_STATES; j++)
        found |= s->stored->scale[j] != NULL;
    return found;
}

void fastlr_lay(fastlr_span *spans, size_t count)
{
    for (size_t k = 0, start = 0; k < count; start += spans[k++].n) {
        if (k && spans[k].unit != spans[k - 1].unit)
            start = up_to(FASTLR_BLOCK, start);
        if (in_quanta(&spans[k]))
            start = up_to(FASTLR_QUANTUM, start);
        spans[k].start = start;
    }
}

/* The last span that starts at or before `at`; empty ones share their start with the one after them. */
static const fastlr_span *span_at(const fastlr_span *spans, size_t count, size_t at)
{
    size_t low = 0;
    while (count - low > 1) {
        const size_t middle = low + (count - low) / 2;
        if (spans[middle].start <= at)
            low = middle;
        else
            count = middle;
    }
    return &spans[low];
}

/* A thread asked to start for fewer blocks than this would come too late: see bench/threads.py. */
enum { BLOCKS_PER_THREAD = 2 };

static int useful(int threads, size_t blocks)
{
    const size_t most = blocks / BLOCKS_PER_THREAD;
    return (size_t)threads > most ? (int)most : threads;
}

size_t fastlr_blocks(const fastlr_span *spans, size_t count)
{
    return (length(spans, count) + FASTLR_BLOCK - 1) / FASTLR_BLOCK;
}

/* ---- what is done to the pieces of a block ---- */

typedef struct work work;
typedef struct {
    const fastlr_span *span;
    size_t skip, n; /* elements skip to skip + n of the span */
    size_t k;       /* the place of the first in its block */
} piece;

struct work {
    const fastlr_span *spans;
    size_t count, size;
    fastlr_dtype dtype; /* of what has no rule */
    const fastlr_rule *rule;
    bool zero;
    fastlr_sums *sums; /* a block each */

    const fastlr_table *table;
    double scale;
    fastlr_partial *partial; /* a block each */
};

static inline void *shift(void *p, size_t elements, size_t size)
{
    return p ? (char *)p + elements * size : NULL;
}

static void shift_states(const work *w, const piece *c, void *s[FASTLR_STATES])
{
    for (int j = 0; j < FASTLR_STATES; j++)
        s[j] = shift(c->span->s[j], c->skip, w->size);
}

static void sweep(const work *w, piece c, void *sums)
{
    if (c.span->stored) {
        fastlr_sweep_stored(w->rule, c.span, c.skip, c.n, w->zero, c.k, sums);
        return;
    }
    void *s[FASTLR_STATES];
    shift_states(w, &c, s);
    w->rule->sweep(c.n, shift(c.span->p, c.skip, w->size), shift(c.span->g, c.skip, w->size), s, c.span->step, w->zero,
                   c.k, sums);
}

static void survey(const work *w, piece c, void *sums)
{
    if (c.span->stored) {
        fastlr_survey_stored(w->rule, c.span, c.skip, c.n, c.k, sums);
        return;
    }
    void *s[FASTLR_STATES];
    shift_states(w, &c, s);
    w->rule->survey(c.n, shift(c.span->p, c.skip, w->size), shift(c.span->g, c.skip, w->size), s, c.span->step, c.k,
                    sums);
}

/* Calls visit() for what lies in [at, end) of the line, in order. Returns how many elements that were. */
static inline size_t walk(const work *w, size_t at, size_t end, void *sums, void (*visit)(const work *, piece, void *))
{
    size_t seen = 0;
    if (end > length(w->spans, w->count))
        end = length(w->spans, w->count);
    for (const fastlr_span *s = span_at(w->spans, w->count, at); at < end; s++) {
        const size_t next =
            s + 1 < w->spans + w->count && s[1].start < end ? s[1].start : end; /* a gap may precede it */
        const size_t skip = at - s->start, left = skip < s->n ? s->n - skip : 0, n = left < end - at ? left : end - at;
        if (n)
            visit(w, (piece){s, skip, n, at % FASTLR_BLOCK}, sums);
        seen += n;
        at = next;
    }
    return seen;
}

/* One block after another, with the sums of each. */
static inline void walk_blocks(const work *w, size_t first, size_t last, void (*visit)(const work *, piece, void *))
{
    for (size_t block = first; block < last; block++) {
        fastlr_lanes lanes = {0};
        fastlr_sums *sums = &w->sums[block];
        sums->n = walk(w, block * FASTLR_BLOCK, (block + 1) * FASTLR_BLOCK, &lanes, visit);
        for (int q = 0; q < FASTLR_SUMS; q++) {
            sums->sum[q] = 0;
            for (int j = 0; j < FASTLR_LANES; j++)
                sums->sum[q] += lanes.lane[q][j];
        }
    }
}

/* From a block each to a unit each, in order. */
static void add_up(const work *w, fastlr_sums *found)
{
    size_t block = 0;
    for (size_t k = 0; k < w->count; k++) {
        const fastlr_span *s = &w->spans[k];
        if (k == 0 || s->unit != s[-1].unit)
            found[s->unit] = (fastlr_sums){0};
        for (; block * FASTLR_BLOCK < s->start + s->n; block++) {
            for (int q = 0; q < FASTLR_SUMS; q++)
                found[s->unit].sum[q] += w->sums[block].sum[q];
            found[s->unit].n += w->sums[block].n;
        }
    }
}

/* ---- the step ---- */

static void update_range(void *ctx, size_t first, size_t last)
{
    const work *w = ctx;
    walk(w, first * FASTLR_BLOCK, last * FASTLR_BLOCK, NULL, sweep);
}

static void update_blocks(void *ctx, size_t first, size_t last)
{
    const work *w = ctx;
    walk_blocks(w, first, last, sweep);
}

void fastlr_run(const fastlr_rule *rule, const fastlr_span *spans, size_t count, bool zero, fastlr_sums *scratch,
                fastlr_sums *found, int threads)
{
    work w = {.spans = spans, .count = count, .size = rule->size, .rule = rule, .zero = zero};
    w.sums = scratch;
    const size_t blocks = fastlr_blocks(spans, count);
    fastlr_parallel(blocks, useful(threads, blocks), rule->close ? update_blocks : update_range, &w);
    if (rule->close)
        add_up(&w, found);
}

/* ---- the sums that it needs ---- */

static void survey_blocks(void *ctx, size_t first, size_t last)
{
    walk_blocks(ctx, first, last, survey);
}

void fastlr_survey(const fastlr_rule *rule, const fastlr_span *spans, size_t count, fastlr_sums *scratch,
                   fastlr_sums *found, int threads)
{
    work w = {.spans = spans, .count = count, .size = rule->size, .rule = rule, .sums = scratch};
    const size_t blocks = fastlr_blocks(spans, count);
    fastlr_parallel(blocks, useful(threads, blocks), survey_blocks, &w);
    add_up(&w, found);
}

/* ---- sums of gradients ---- */

static void accumulate(const work *w, piece c, void *sums)
{
    (void)sums;
    fastlr_add_stored(w->dtype, c.span, c.skip, c.n);
}

static void accumulate_range(void *ctx, size_t first, size_t last)
{
    walk(ctx, first * FASTLR_BLOCK, last * FASTLR_BLOCK, NULL, accumulate);
}

void fastlr_accumulate(fastlr_dtype dtype, const fastlr_span *spans, size_t count, int threads)
{
    work w = {.spans = spans, .count = count, .dtype = dtype};
    const size_t blocks = fastlr_blocks(spans, count);
    fastlr_parallel(blocks, useful(threads, blocks), accumulate_range, &w);
}

/* ---- the gradients by themselves ---- */

static void gauge(const work *w, piece c, void *sums)
{
    if (c.span->stored)
        fastlr_gauge_stored(w->dtype, c.span, c.skip, c.n, w->scale, c.k, sums);
    else
        w->table->gauge(c.n, shift(c.span->g, c.skip, w->size), w->scale, c.k, sums);
}

static void gauge_blocks(void *ctx, size_t first, size_t last)
{
    const work *w = ctx;
    for (size_t block = first; block < last; block++) {
        fastlr_gauge sums = {0};
        walk(w, block * FASTLR_BLOCK, (block + 1) * FASTLR_BLOCK, &sums, gauge);
        double square = 0;
        for (int j = 0; j < FASTLR_LANES; j++)
            square += sums.lane[j];
        w->partial[block] = (fastlr_partial){square, sums.largest};
    }
}

static fastlr_stats gauge_all(work *w, int threads)
{
    const size_t blocks = fastlr_blocks(w->spans, w->count);
    fastlr_parallel(blocks, useful(threads, blocks), gauge_blocks, w);
    double square = 0;
    uint64_t largest = 0;
    for (size_t k = 0; k < blocks; k++) {
        square += w->partial[k].square;
        if (w->partial[k].largest > largest)
            largest = w->partial[k].largest;
    }
    const double most = w->table->number(largest);
    return (fastlr_stats){.norm = sqrt(square), .largest = most, .finite = isfinite(most)};
}

/* Squares beyond these leave double's range: then the gradients are read again, scaled by a power of two. */
static const double LEAST = 0x1p-500, MOST = 0x1p500;

fastlr_stats fastlr_measure(fastlr_dtype dtype, const fastlr_span *spans, size_t count, fastlr_partial *scratch,
                            int threads)
{
    work w = {.spans = spans, .count = count, .dtype = dtype, .scale = 1, .partial = scratch};
    w.table = fastlr_table_of(dtype);
    w.size = w.table->rules[0]->size;
    fastlr_stats stats = gauge_all(&w, threads);
    if (stats.finite && stats.largest != 0 && (stats.largest < LEAST || stats.largest > MOST)) {
        w.scale = stats.largest < LEAST ? 0x1p540 : 0x1p-540;
        stats.norm = gauge_all(&w, threads).norm / w.scale;
    }
    return stats;
}
