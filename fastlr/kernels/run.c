/* Whole steps: many spans as one range.
 *
 * The spans are laid end to end and the range is cut into blocks of FASTLR_BLOCK elements, which the threads share. So a
 * model of a thousand small tensors and one flat buffer cost the same, and one call is one parallel region.
 */
#include "table.h"

#include <math.h>

static size_t total(const fastlr_span *spans, size_t count)
{
    return count ? spans[count - 1].start + spans[count - 1].n : 0;
}

void fastlr_lay(fastlr_span *spans, size_t count)
{
    for (size_t k = 0, start = 0; k < count; start += spans[k++].n)
        spans[k].start = start;
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
    return (total(spans, count) + FASTLR_BLOCK - 1) / FASTLR_BLOCK;
}

static inline void *shift(void *p, size_t elements, size_t size)
{
    return p ? (char *)p + elements * size : NULL;
}

/* After a backward pass other cores have had the parameters and written the gradients. The processor fetches ahead what is
 * read in order, but only to be read: to be written, such a line must be asked for again, and then late. So a step that comes
 * after other work asks for the lines of a later tile as it comes to each (python -m bench.torch_loop). Where the caches are
 * still the last step's own that would cost more than it brings. */
enum { TILE = 1024, AHEAD = 2 * TILE, LINE = 64 }; /* elements, elements, bytes */

static void will_write(const void *buffer, size_t bytes)
{
    for (size_t k = 0; k < bytes; k += LINE)
#ifdef __x86_64__
        __asm__ volatile("prefetchw %0" : : "m"(((const char *)buffer)[k])); /* does nothing where it is not known */
#else
        __builtin_prefetch((const char *)buffer + k, 1);
#endif
}

typedef struct {
    const fastlr_rule *rule;
    const fastlr_span *spans;
    size_t count, size;
    bool zero, cold;
} update;

static void sweep(const update *u, const fastlr_span *s, size_t skip, size_t n)
{
    u->rule->sweep(n, shift(s->p, skip, u->size), shift(s->g, skip, u->size), shift(s->s[0], skip, u->size),
                   shift(s->s[1], skip, u->size), shift(s->s[2], skip, u->size), s->step, u->zero);
}

static void sweep_cold(const update *u, const fastlr_span *s, size_t skip, size_t n)
{
    for (size_t end = skip + n; skip < end; skip += TILE) {
        if (s->n - skip >= AHEAD + TILE) {
            will_write(shift(s->p, skip + AHEAD, u->size), TILE * u->size);
            if (u->zero)
                will_write(shift(s->g, skip + AHEAD, u->size), TILE * u->size);
        }
        sweep(u, s, skip, end - skip < TILE ? end - skip : TILE);
    }
}

static void update_blocks(void *ctx, size_t first, size_t last)
{
    const update *u = ctx;
    size_t at = first * FASTLR_BLOCK, end = last * FASTLR_BLOCK;
    if (end > total(u->spans, u->count))
        end = total(u->spans, u->count);
    for (const fastlr_span *s = span_at(u->spans, u->count, at); at < end; s++) {
        const size_t skip = at - s->start, left = s->n - skip, n = left < end - at ? left : end - at;
        (u->cold ? sweep_cold : sweep)(u, s, skip, n);
        at += n;
    }
}

void fastlr_run(const fastlr_rule *rule, const fastlr_span *spans, size_t count, bool zero, int threads)
{
    update u = {rule, spans, count, rule->size, zero, fastlr_idle()};
    const size_t blocks = fastlr_blocks(spans, count);
    fastlr_parallel(blocks, useful(threads, blocks), update_blocks, &u);
}

typedef struct {
    const fastlr_table *table;
    const fastlr_span *spans;
    size_t count, size;
    double scale;
    fastlr_partial *partial;
} survey;

static void survey_blocks(void *ctx, size_t first, size_t last)
{
    const survey *y = ctx;
    for (size_t block = first; block < last; block++) {
        fastlr_gauge gauge = {0};
        size_t at = block * FASTLR_BLOCK, end = at + FASTLR_BLOCK;
        if (end > total(y->spans, y->count))
            end = total(y->spans, y->count);
        for (const fastlr_span *s = span_at(y->spans, y->count, at); at < end; s++) {
            const size_t skip = at - s->start, left = s->n - skip, n = left < end - at ? left : end - at;
            y->table->gauge(n, shift(s->g, skip, y->size), y->scale, at % FASTLR_BLOCK, &gauge);
            at += n;
        }
        double square = 0;
        for (int j = 0; j < FASTLR_LANES; j++)
            square += gauge.lane[j];
        y->partial[block] = (fastlr_partial){square, gauge.largest};
    }
}

static fastlr_stats survey_all(survey *y, int threads)
{
    const size_t blocks = fastlr_blocks(y->spans, y->count);
    fastlr_parallel(blocks, useful(threads, blocks), survey_blocks, y);
    double square = 0;
    uint64_t largest = 0;
    for (size_t k = 0; k < blocks; k++) {
        square += y->partial[k].square;
        if (y->partial[k].largest > largest)
            largest = y->partial[k].largest;
    }
    const double most = y->table->number(largest);
    return (fastlr_stats){.norm = sqrt(square), .largest = most, .finite = isfinite(most)};
}

/* Squares beyond these leave double's range: then the gradients are read again, scaled by a power of two. */
static const double LEAST = 0x1p-500, MOST = 0x1p500;

fastlr_stats fastlr_measure(fastlr_dtype dtype, const fastlr_span *spans, size_t count, fastlr_partial *scratch,
                            int threads)
{
    const fastlr_table *table = fastlr_table_of(dtype);
    survey y = {table, spans, count, table->rules[0]->size, 1, scratch};
    fastlr_stats stats = survey_all(&y, threads);
    if (stats.finite && stats.largest != 0 && (stats.largest < LEAST || stats.largest > MOST)) {
        y.scale = stats.largest < LEAST ? 0x1p540 : 0x1p-540;
        stats.norm = survey_all(&y, threads).norm / y.scale;
    }
    return stats;
}
