/* Row-sparse steps: a table of which few rows have a gradient, each any number of times.
 *
 *  1. The gradients are sorted by row, stably, as pairs (row, place) of four bytes each. A stable sort has one result, so what
 *     follows cannot depend on how it was made. Rows then come in ascending order: near each other in memory, and a
 *     gradient's own place decides nothing but the order in which its row's are added.
 *  2. The pairs are cut into units, which the threads share. A row belongs to the unit where its first pair lies.
 *  3. A row that occurs once is updated from its gradient where that is; else from the sum, made in the cache. The sums of
 *     all rows are never in memory.
 *  4. Rows lie anywhere, and no processor guesses where: so those to come are asked for some pairs ahead.
 */
#include "prefetch.h"
#include "table.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

/* ---- order ---- */

/* Radix sort, the lowest digit first. Each part of the gradients counts its digits and then moves its pairs, so that parts can
 * be a thread's each; where a pair goes depends on neither. */
enum { DIGIT = 11, SHORT_DIGIT = 8, PARTS = 4 };
static const size_t SHORT = 2048;  /* up to here a pass over 2^11 counts would cost more than the gradients */
static const size_t SHARED = 8192; /* from here on the threads share the work */

static inline uint32_t row_of(uint64_t pair)
{
    return (uint32_t)(pair >> 32);
}

typedef struct {
    const void *index;
    bool wide;
    size_t count, rows, parts;
    uint64_t *from, *to, mask;
    int shift;
    size_t wrong[PARTS]; /* the first place whose row does not exist, or count */
    bool descends[PARTS];
    uint32_t counts[PARTS][1 << DIGIT];
} sorting;

static size_t start_of(const sorting *s, size_t part)
{
    return s->count * part / s->parts;
}

/* The index is read once: what another thread may write there meanwhile must not matter. */
static void pack_parts(void *ctx, size_t first, size_t last)
{
    sorting *s = ctx;
    for (size_t part = first; part < last; part++) {
        uint64_t before = 0, descents = 0;
        s->wrong[part] = s->count;
        for (size_t k = start_of(s, part), end = start_of(s, part + 1); k < end; k++) {
            const uint64_t row =
                s->wide ? (uint64_t)((const int64_t *)s->index)[k] : (uint64_t)((const int32_t *)s->index)[k];
            if (row >= s->rows) { /* negative ones too: as unsigned numbers they are the largest */
                s->wrong[part] = k;
                break;
            }
            s->from[k] = row << 32 | k;
            descents += row < before;
            before = row;
        }
        s->descends[part] = descents > 0;
    }
}

static void count_parts(void *ctx, size_t first, size_t last)
{
    sorting *s = ctx;
    for (size_t part = first; part < last; part++) {
        uint32_t *counts = s->counts[part];
        memset(counts, 0, (s->mask + 1) * sizeof *counts);
        for (size_t k = start_of(s, part), end = start_of(s, part + 1); k < end; k++)
            counts[s->from[k] >> s->shift & s->mask]++;
    }
}

static void move_parts(void *ctx, size_t first, size_t last)
{
    sorting *s = ctx;
    for (size_t part = first; part < last; part++) {
        uint32_t *at = s->counts[part];
        for (size_t k = start_of(s, part), end = start_of(s, part + 1); k < end; k++)
            s->to[at[s->from[k] >> s->shift & s->mask]++] = s->from[k];
    }
}

size_t fastlr_order_rows(const void *index, bool wide, size_t count, size_t rows, uint64_t *scratch[2],
                         const uint64_t **pairs, int threads)
{
    sorting s; /* its counts are set where they are used */
    s.index = index, s.wide = wide, s.count = count, s.rows = rows, s.from = scratch[0], s.to = scratch[1];
    s.parts = count < SHARED ? 1 : threads < PARTS ? (size_t)threads : PARTS;
    fastlr_parallel(s.parts, threads, pack_parts, &s);
    *pairs = s.from;
    bool sorted = true;
    for (size_t part = 0; part < s.parts; part++) {
        if (s.wrong[part] < count)
            return s.wrong[part];
        const size_t start = start_of(&s, part);
        sorted &= !s.descends[part] && (part == 0 || s.from[start - 1] < s.from[start]);
    }
    if (sorted)
        return count;
    int bits = 1;
    while (bits < 32 && (rows - 1) >> bits)
        bits++;
    const int most = count > SHORT ? DIGIT : SHORT_DIGIT, passes = (bits + most - 1) / most;
    const int digit = (bits + passes - 1) / passes;
    s.mask = ((uint64_t)1 << digit) - 1;
    for (s.shift = 32; s.shift < 32 + bits; s.shift += digit) {
        fastlr_parallel(s.parts, threads, count_parts, &s);
        uint32_t next = 0;
        for (size_t value = 0; value <= s.mask; value++)
            for (size_t part = 0; part < s.parts; part++) {
                const uint32_t here = s.counts[part][value];
                s.counts[part][value] = next;
                next += here;
            }
        fastlr_parallel(s.parts, threads, move_parts, &s);
        uint64_t *swap = s.from;
        s.from = s.to;
        s.to = swap;
    }
    *pairs = s.from;
    return count;
}

/* ---- one row after the other ---- */

/* How far ahead rows are asked for, gradients into the second level, of whose first a row with its state is half. */
enum { AHEAD = 16 }; /* pairs, measured with python -m bench.rows */

/* What one thread has: the sum of a row's gradients in double, then narrowed. */
size_t fastlr_rows_scratch(size_t width, fastlr_dtype dtype)
{
    const size_t bytes = width * (sizeof(double) + (dtype == FASTLR_F32 ? sizeof(float) : sizeof(double)));
    return (bytes + FASTLR_LINE - 1) / FASTLR_LINE * FASTLR_LINE;
}

typedef struct {
    const fastlr_table *table;
    const fastlr_rule *rule; /* NULL to measure */
    const fastlr_rows *r;
    size_t size, strides[FASTLR_STATES];
    double scale;
    fastlr_partial *partial;
    char *scratch; /* a part for each thread */
    size_t part;
    atomic_bool taken[FASTLR_MAX_THREADS];
} walk;

static void ask_for(const walk *w, size_t at)
{
    const fastlr_rows *r = w->r;
    const uint32_t row = row_of(r->pairs[at]);
    const size_t bytes = r->width * w->size;
    ask((const char *)r->g + (uint32_t)r->pairs[at] * bytes, 0, bytes, TO_READ_LATER);
    if (!w->rule || (at > 0 && row_of(r->pairs[at - 1]) == row))
        return;
    ask((char *)r->p + row * bytes, 0, bytes, TO_WRITE);
    for (int j = 0; j < w->rule->states; j++)
        ask((char *)r->s[j] + row * w->strides[j], 0, w->strides[j], TO_WRITE);
}

/* The summed gradient of the pairs [at, end), which are one row's; `asked` is how far the prefetching is. */
static const void *summed(const walk *w, size_t at, size_t end, size_t *asked, double *sum)
{
    const fastlr_rows *r = w->r;
    const size_t single = end - at == 1;
    for (bool first = true; at < end; first = false) {
        const size_t some = end - at < AHEAD ? end - at : AHEAD, until = at + some + AHEAD;
        for (; *asked < r->count && *asked < until; ++*asked)
            ask_for(w, *asked);
        if (single)
            return (const char *)r->g + (uint32_t)r->pairs[at] * r->width * w->size;
        w->table->sum_row(r->width, r->g, r->pairs + at, some, first, sum);
        at += some;
    }
    w->table->narrow_row(r->width, sum, sum + r->width);
    return sum + r->width;
}

static void update(const walk *w, uint32_t row, const void *g)
{
    const fastlr_rows *r = w->r;
    void *s[FASTLR_STATES] = {NULL};
    for (int j = 0; j < w->rule->states; j++)
        s[j] = (char *)r->s[j] + row * w->strides[j];
    /* The gradient is written by no rule unless it is asked to zero it. */
    w->rule->sweep(r->width, (char *)r->p + row * r->width * w->size, (void *)(uintptr_t)g, s, r->step, false, 0, NULL);
}

static void survey(const walk *w, size_t at, const void *g)
{
    fastlr_gauge gauge = {0};
    double square = 0;
    w->table->gauge(w->r->width, g, w->scale, 0, &gauge);
    for (int j = 0; j < FASTLR_LANES; j++)
        square += gauge.lane[j];
    w->partial[at] = (fastlr_partial){square, gauge.largest};
}

static void walk_units(void *ctx, size_t first, size_t last)
{
    walk *w = ctx;
    const fastlr_rows *r = w->r;
    size_t at = first * FASTLR_ROWS_UNIT, end = last * FASTLR_ROWS_UNIT;
    if (end > r->count)
        end = r->count;
    int part = 0;
    while (atomic_exchange_explicit(&w->taken[part], true, memory_order_acquire))
        part++; /* there is one for each thread */
    double *sum = (double *)(void *)(w->scratch + (size_t)part * w->part);
    for (; at < end && at > 0 && row_of(r->pairs[at]) == row_of(r->pairs[at - 1]); at++)
        if (!w->rule)
            w->partial[at] = (fastlr_partial){0};
    for (size_t asked = at; at < end;) {
        const uint32_t row = row_of(r->pairs[at]);
        size_t next = at + 1;
        for (; next < r->count && row_of(r->pairs[next]) == row; next++)
            if (!w->rule && next < end)
                w->partial[next] = (fastlr_partial){0};
        const void *g = summed(w, at, next, &asked, sum);
        if (w->rule)
            update(w, row, g);
        else
            survey(w, at, g);
        at = next;
    }
    atomic_store_explicit(&w->taken[part], false, memory_order_release);
}

static void walk_all(walk *w, fastlr_dtype dtype, int threads)
{
    const size_t units = (w->r->count + FASTLR_ROWS_UNIT - 1) / FASTLR_ROWS_UNIT;
    w->table = fastlr_table_of(dtype);
    w->size = w->table->rules[0]->size;
    w->part = fastlr_rows_scratch(w->r->width, dtype);
    for (int j = 0; w->rule && j < w->rule->states; j++)
        w->strides[j] = (size_t[]){w->r->width * w->size, w->size, sizeof(int64_t)}[w->rule->extent[j]];
    fastlr_parallel(units, (size_t)threads > units / 2 ? (int)(units / 2) : threads, walk_units, w);
}

void fastlr_run_rows(const fastlr_rule *rule, fastlr_dtype dtype, const fastlr_rows *r, size_t tables, void *scratch,
                     int threads)
{
    for (size_t k = 0; k < tables; k++) {
        walk w = {.rule = rule, .r = &r[k], .scratch = scratch};
        walk_all(&w, dtype, threads);
    }
}

static fastlr_stats survey_all(fastlr_dtype dtype, const fastlr_rows *r, size_t tables, fastlr_partial *partial,
                               void *scratch, double scale, int threads)
{
    double square = 0;
    uint64_t largest = 0;
    for (size_t k = 0; k < tables; k++) {
        walk w = {.r = &r[k], .scratch = scratch, .scale = scale, .partial = partial};
        walk_all(&w, dtype, threads);
        for (size_t i = 0; i < r[k].count; i++) { /* all but the first of a row are 0 */
            square += partial[i].square;
            if (partial[i].largest > largest)
                largest = partial[i].largest;
        }
    }
    const double most = fastlr_table_of(dtype)->number(largest);
    return (fastlr_stats){.norm = sqrt(square), .largest = most, .finite = isfinite(most)};
}

/* Squares beyond these leave double's range: then the gradients are read again, scaled by a power of two. */
static const double LEAST = 0x1p-500, MOST = 0x1p500;

fastlr_stats fastlr_measure_rows(fastlr_dtype dtype, const fastlr_rows *r, size_t tables, fastlr_partial *partial,
                                 void *scratch, int threads)
{
    fastlr_stats stats = survey_all(dtype, r, tables, partial, scratch, 1, threads);
    if (stats.finite && stats.largest != 0 && (stats.largest < LEAST || stats.largest > MOST)) {
        const double scale = stats.largest < LEAST ? 0x1p540 : 0x1p-540;
        stats.norm = survey_all(dtype, r, tables, partial, scratch, scale, threads).norm / scale;
    }
    return stats;
}
