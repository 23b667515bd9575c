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

/* Two radix sorts. Many gradients are first dealt into buckets by the highest digit of their rows: each part of them counts its
 * digits and then moves its pairs, so that parts can be a thread's each. Then each bucket, most of which fit into a cache,
 * is sorted by the other digits, the lowest first. */
enum { DIGIT = 8, PARTS = 8 };
enum { NEAR = 2048 }; /* up to here a bucket is sorted by way of the stack, not of memory another core has */
static const size_t SHARED = 8192; /* from here on the threads share the work */

static inline uint32_t row_of(uint64_t pair)
{
    return (uint32_t)(pair >> 32);
}

typedef struct {
    const void *index;
    bool wide;
    size_t count, rows, parts;
    uint64_t *from, *to;
    int bits;            /* of a row that its bucket's number does not have */
    size_t wrong[PARTS]; /* the first place whose row does not exist, or count */
    bool descends[PARTS];
    uint32_t counts[PARTS][1 << DIGIT]; /* later where each part's next pair goes */
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
        uint32_t *counts = s->counts[part];
        memset(counts, 0, sizeof s->counts[part]);
        s->wrong[part] = s->count;
        for (size_t k = start_of(s, part), end = start_of(s, part + 1); k < end; k++) {
            const uint64_t row =
                s->wide ? (uint64_t)((const int64_t *)s->index)[k] : (uint64_t)((const int32_t *)s->index)[k];
            if (row >= s->rows) { /* negative ones too: as unsigned numbers they are the largest */
                s->wrong[part] = k;
                break;
            }
            if (k % 8 == 0) /* a line: pairs are dealt to them in an order that no processor foresees */
                ask(&s->to[k], 0, FASTLR_LINE, TO_WRITE);
            s->from[k] = row << 32 | k;
            descents += row < before;
            before = row;
            counts[row >> s->bits]++;
        }
        s->descends[part] = descents > 0;
    }
}

static void deal_parts(void *ctx, size_t first, size_t last)
{
    sorting *s = ctx;
    for (size_t part = first; part < last; part++)
        for (size_t k = start_of(s, part), end = start_of(s, part + 1); k < end; k++)
            s->to[s->counts[part][row_of(s->from[k]) >> s->bits]++] = s->from[k];
}

/* Sorts `count` pairs by the lowest `bits` bits of their rows; the result is in `from`.
 *
 * A counter waits for its last change, and of a row that occurs often the pairs have one: so they are taken from both ends at
 * once, with counters of their own. */
static void sort_pairs(uint64_t *restrict from, uint64_t *restrict to, size_t count, int bits)
{
    uint32_t up[1 << DIGIT], down[1 << DIGIT];
    const int passes = (bits + DIGIT - 1) / DIGIT, digit = passes ? (bits + passes - 1) / passes : 0;
    const size_t values = (size_t)1 << digit, half = count / 2;
    uint64_t *const result = from;
    for (int pass = 0, shift = 32; pass < passes; pass++, shift += digit) {
#define VALUE(k) (from[k] >> shift & (values - 1))
        memset(up, 0, values * sizeof *up);
        memset(down, 0, values * sizeof *down);
        for (size_t k = 0; k < half; k++) {
            up[VALUE(k)]++;
            down[VALUE(count - 1 - k)]++;
        }
        if (count % 2)
            up[VALUE(half)]++;
        uint32_t next = 0;
        for (size_t value = 0; value < values; value++) {
            const uint32_t here = up[value] + down[value];
            up[value] = next;
            next += here;
            down[value] = next;
        }
        for (size_t k = 0; k < half; k++) {
            to[up[VALUE(k)]++] = from[k];
            to[--down[VALUE(count - 1 - k)]] = from[count - 1 - k];
        }
        if (count % 2)
            to[up[VALUE(half)]] = from[half];
#undef VALUE
        uint64_t *swap = from;
        from = to;
        to = swap;
    }
    if (from != result)
        memcpy(result, from, count * sizeof *from);
}

/* A bucket ends where the last part's next pair would go. */
static void sort_buckets(void *ctx, size_t first, size_t last)
{
    const sorting *s = ctx;
    uint64_t near[NEAR];
    for (size_t bucket = first; bucket < last; bucket++) {
        const uint32_t *ends = s->counts[s->parts - 1];
        const size_t start = bucket ? ends[bucket - 1] : 0, count = ends[bucket] - start;
        sort_pairs(s->to + start, count <= NEAR ? near : s->from + start, count, s->bits);
    }
}

size_t fastlr_order_rows(const void *index, bool wide, size_t count, size_t rows, uint64_t *scratch[2],
                         const uint64_t **pairs, int threads)
{
    sorting s; /* its counts are set where they are used */
    s.index = index, s.wide = wide, s.count = count, s.rows = rows, s.from = scratch[0], s.to = scratch[1];
    s.parts = count < SHARED ? 1 : threads < PARTS ? (size_t)threads : PARTS;
    int bits = 1;
    while (bits < 32 && (rows - 1) >> bits)
        bits++;
    const int dealt = count < SHARED ? 0 : bits < DIGIT ? bits : DIGIT;
    s.bits = bits - dealt;
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
    if (!dealt) {
        sort_pairs(s.from, s.to, count, bits);
        return count;
    }
    const size_t buckets = ((rows - 1) >> s.bits) + 1;
    uint32_t next = 0;
    for (size_t bucket = 0; bucket < buckets; bucket++)
        for (size_t part = 0; part < s.parts; part++) {
            const uint32_t here = s.counts[part][bucket];
            s.counts[part][bucket] = next;
            next += here;
        }
    fastlr_parallel(s.parts, threads, deal_parts, &s);
    fastlr_parallel(buckets, threads, sort_buckets, &s);
    *pairs = s.to;
    return count;
}

/* ---- one row after the other ---- */

/* How far ahead is asked for, pairs: all first into the second level, which has more on their way at a time, and gradients, of
 * which a row may have many, once more into the first. Measured with python -m bench.rows. */
enum { AHEAD = 6, FAR_AHEAD = 24 };

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

/* All lines of a row, which may begin within one. To read, what is then written too: no other core has it, and asking for lines
 * to write took a tenth longer. */
static void ask_whole(const void *row, size_t bytes, fastlr_use use)
{
    const size_t skew = (uintptr_t)row % FASTLR_LINE;
    ask(row, -(ptrdiff_t)skew, bytes + skew, use);
}

static void ask_gradient(const walk *w, size_t at, fastlr_use use)
{
    const size_t bytes = w->r->width * w->size;
    ask_whole((const char *)w->r->g + (uint32_t)w->r->pairs[at] * bytes, bytes, use);
}

static void ask_row(const walk *w, uint32_t row)
{
    const fastlr_rows *r = w->r;
    const size_t bytes = r->width * w->size;
    ask_whole((const char *)r->p + row * bytes, bytes, TO_READ_LATER);
    for (int j = 0; j < w->rule->states; j++)
        ask_whole((const char *)r->s[j] + row * w->strides[j], w->strides[j], TO_READ_LATER);
}

/* Pair `at` is AHEAD of what is made. */
static void ask_for(const walk *w, size_t at)
{
    const uint64_t *pairs = w->r->pairs;
    const size_t later = at + (FAR_AHEAD - AHEAD);
    ask_gradient(w, at, TO_READ);
    if (later >= w->r->count)
        return;
    ask_gradient(w, later, TO_READ_LATER);
    if (w->rule && row_of(pairs[later]) != row_of(pairs[later - 1]))
        ask_row(w, row_of(pairs[later]));
}

/* The summed gradient of the pairs [at, end), which are one row's; `asked` is how far the prefetching is. */
static const void *summed(const walk *w, size_t at, size_t end, size_t *asked, double *sum)
{
    const fastlr_rows *r = w->r;
    const size_t single = end - at == 1;
    for (bool first = true; at < end; first = false) {
        const size_t some = end - at < FASTLR_TOGETHER ? end - at : FASTLR_TOGETHER;
        for (; *asked < r->count && *asked < at + some + AHEAD; ++*asked)
            ask_for(w, *asked);
        if (single)
            return (const char *)r->g + (uint32_t)r->pairs[at] * r->width * w->size;
        w->table->add_rows(r->width, r->g, r->pairs + at, some, first, sum);
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
