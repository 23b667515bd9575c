/* Spans that are not stored as the arithmetic's type, and what is done in the same pass as the step.
 *
 * A tile of each buffer is widened to that in the first-level cache, the rule's own loop runs on it, and what it wrote is
 * narrowed again: the step uses the new state before it is rounded. A tile is short, so that the processor begins one while
 * the last is on its way (python -m bench.storage).
 */
#include "stored.h"

#include "prefetch.h"

#include <string.h>

enum { TILE = FASTLR_QUANTUM, AHEAD = 4, MEAN_AHEAD = 2 }; /* elements, tiles, tiles */

typedef struct {
    _Alignas(FASTLR_LINE) float p[TILE], g[TILE], s[FASTLR_STATES][TILE];
    double wide[2][TILE]; /* the same, where that is float64, of the gradients and the rule's input */
} tiles;

static const unsigned char SIZE[FASTLR_FORMATS] = {
    [FASTLR_SINGLE] = 4,        [FASTLR_BF16] = 2,  [FASTLR_F16] = 2,        [FASTLR_BF16_BY_CHANCE] = 2,
    [FASTLR_F16_BY_CHANCE] = 2, [FASTLR_SPLIT] = 2, [FASTLR_BF16_KAHAN] = 2, [FASTLR_F16_KAHAN] = 2,
    [FASTLR_INT8] = 1,          [FASTLR_UINT8] = 1};
static const unsigned char BESIDE[FASTLR_FORMATS] = {
    [FASTLR_SPLIT] = 2, [FASTLR_BF16_KAHAN] = 2, [FASTLR_F16_KAHAN] = 2}; /* bytes for an element */

static inline size_t own_size(fastlr_dtype dtype)
{
    return dtype == FASTLR_F64 ? sizeof(double) : sizeof(float);
}

static inline fastlr_dtype dtype_of(const fastlr_rule *rule)
{
    return rule->size == sizeof(double) ? FASTLR_F64 : FASTLR_F32;
}

/* One buffer of a span, at the tile under way. */
typedef struct {
    fastlr_format format;
    size_t size; /* bytes of an element */
    char *at, *beside;
    char *tile; /* where the rule finds it */
} buffer;

static inline buffer buffer_of(fastlr_dtype dtype, fastlr_format format, void *at, void *beside, size_t skip,
                               void *tile)
{
    buffer b = {format, format == FASTLR_OWN ? own_size(dtype) : SIZE[format], at, beside, tile};
    if (at)
        b.at += skip * b.size;
    if (beside)
        b.beside += BESIDE[format] ? skip * BESIDE[format] : skip / TILE * sizeof(float);
    if (format == FASTLR_OWN)
        b.tile = b.at;
    return b;
}

static inline void fetch(const fastlr_codec *codec, const buffer *b, size_t n)
{
    if (b->tile != b->at)
        codec->load[b->format](n, b->at, b->beside, b->tile);
}

static inline void put(const fastlr_codec *codec, const buffer *b, size_t n, fastlr_chance chance)
{
    if (b->tile != b->at)
        codec->save[b->format](n, b->tile, b->at, b->beside, chance);
}

static inline void advance(buffer *b, size_t n)
{
    if (!b->at) /* there is none */
        return;
    if (b->tile == b->at)
        b->tile += n * b->size;
    b->at += n * b->size;
    if (b->beside)
        b->beside += BESIDE[b->format] ? n * BESIDE[b->format] : n / TILE * sizeof(float);
}

static inline void ask_tile(const buffer *b, size_t ahead)
{
    ask(b->at, (ptrdiff_t)(ahead * TILE * b->size), TILE * b->size, TO_WRITE);
}

/* Asks for a later tile of what is widened, and of the mean: the processor's own guesses end where a loop does. What the rule's
 * loop itself goes over, where it lies, has no such ends, and asking costs time there; for copies, which are only written, it
 * gains nothing. A mean is looked at last in its tile, and needs less time ahead. */
static inline void ask_ahead(const buffer *all, size_t count, const buffer *mean)
{
    for (size_t j = 0; j < count; j++)
        if (all[j].at && all[j].tile != all[j].at)
            ask_tile(&all[j], AHEAD);
    if (mean->at)
        ask_tile(mean, MEAN_AHEAD);
}

static inline size_t tile_at(size_t skip, size_t end)
{
    const size_t n = TILE - skip % TILE;
    return n < end - skip ? n : end - skip;
}

/* The gradients of a tile as the rule sees them: limited ones are a copy. */
static inline buffer gradients(fastlr_dtype dtype, const fastlr_span *span, size_t skip, tiles *t)
{
    void *tile = dtype == FASTLR_F64 ? (void *)t->wide[0] : t->g;
    buffer b = buffer_of(dtype, span->stored->g, span->g, NULL, skip, tile);
    if (span->stored->most > 0)
        b.tile = tile;
    return b;
}

static inline void fetch_gradients(const fastlr_codec *codec, const fastlr_span *span, const buffer *b, size_t n)
{
    fetch(codec, b, n);
    if (span->stored->most > 0)
        codec->limit(n, b->tile, span->stored->most);
}

static size_t buffers_of(const fastlr_rule *rule, const fastlr_span *span, size_t skip, tiles *t, buffer *all)
{
    const fastlr_stored *x = span->stored;
    const size_t states = (size_t)rule->states + (size_t)rule->inputs;
    const fastlr_dtype dtype = dtype_of(rule);
    all[0] = buffer_of(dtype, x->p, span->p, x->low, skip, t->p);
    all[1] = gradients(dtype, span, skip, t);
    for (size_t j = 0; j < states; j++) {
        void *tile = dtype == FASTLR_F64 ? (void *)t->wide[1] : t->s[j];
        all[2 + j] = buffer_of(dtype, x->s[j], span->s[j], x->scale[j], skip, tile);
    }
    return 2 + states;
}

enum { BUFFERS = 2 + FASTLR_STATES };

/* Whether the rule has a loop with just this storage inlined. */
static bool is_fused(const fastlr_rule *rule, const fastlr_stored *x)
{
    const bool half_p = x->p == FASTLR_BF16, half_g = x->g == FASTLR_BF16, scaled = x->scale[0] != NULL;
    bool same = rule->fused && !x->ema && !x->copied[0] && !x->copied[1] && x->most == 0 && !x->low;
    same = same && (half_p || x->p == FASTLR_OWN) && (half_g || x->g == FASTLR_OWN) && half_g >= half_p;
    for (int j = 0; same && j < rule->states; j++)
        same = scaled ? x->scale[j] != NULL : x->s[j] == FASTLR_BF16;
    return same;
}

/* Elements after which gradients are zeroed, while they are in the first-level cache. */
enum { TOGETHER = 4 * FASTLR_QUANTUM };

/* n is whole quanta. */
static void sweep_fused(const fastlr_rule *rule, const fastlr_span *span, size_t skip, size_t n, bool zero)
{
    const fastlr_stored *x = span->stored;
    for (const size_t end = skip + n; skip < end; skip += n) {
        n = zero && end - skip > TOGETHER ? TOGETHER : end - skip;
        void *s[FASTLR_STATES] = {NULL}, *scale[FASTLR_STATES] = {NULL};
        for (int j = 0; j < rule->states; j++) {
            const buffer b = buffer_of(FASTLR_F32, x->s[j], span->s[j], x->scale[j], skip, NULL);
            s[j] = b.at, scale[j] = b.beside;
        }
        const buffer p = buffer_of(FASTLR_F32, x->p, span->p, NULL, skip, NULL);
        const buffer g = buffer_of(FASTLR_F32, x->g, span->g, NULL, skip, NULL);
        rule->fused(n, x->p == FASTLR_BF16, p.at, x->g == FASTLR_BF16, g.at, s, x->scale[0] ? scale : NULL, span->step);
        if (zero)
            memset(g.at, 0, n * g.size);
    }
}

void fastlr_sweep_stored(const fastlr_rule *rule, const fastlr_span *span, size_t skip, size_t n, bool zero, size_t k,
                         fastlr_lanes *lanes)
{
    if (n >= FASTLR_QUANTUM && is_fused(rule, span->stored)) { /* what is left of the last quantum is a tile */
        const size_t whole = n - n % FASTLR_QUANTUM;
        sweep_fused(rule, span, skip, whole, zero);
        skip += whole, k += whole, n -= whole;
    }
    const fastlr_dtype dtype = dtype_of(rule);
    const fastlr_codec *codec = fastlr_codec_of(dtype);
    const fastlr_stored *x = span->stored;
    tiles t;
    buffer all[BUFFERS], mean, copies[FASTLR_COPIES];
    const size_t count = buffers_of(rule, span, skip, &t, all), written = count - (size_t)rule->inputs;
    mean = buffer_of(dtype, FASTLR_OWN, x->ema, NULL, skip, NULL);
    for (int j = 0; j < FASTLR_COPIES; j++)
        copies[j] = buffer_of(dtype, x->copy[j], x->copied[j], NULL, skip, NULL);
    const bool own = zero && all[1].tile == all[1].at; /* then the rule zeroes them */
    for (const size_t end = skip + n; skip < end; skip += n, k += n) {
        n = tile_at(skip, end);
        fastlr_chance chance = {x->key, x->first + skip};
        void *s[FASTLR_STATES] = {NULL};
        if (skip + (AHEAD + 1) * TILE <= end)
            ask_ahead(all, count, &mean);
        for (size_t j = 0; j < count; j++)
            if (j != 1)
                fetch(codec, &all[j], n);
        fetch_gradients(codec, span, &all[1], n);
        for (size_t j = 2; j < count; j++)
            s[j - 2] = all[j].tile;
        rule->sweep(n, all[0].tile, all[1].tile, s, span->step, own, k, lanes);
        if (x->ema)
            codec->follow(n, mean.at, all[0].tile, x->share);
        for (int j = 0; j < FASTLR_COPIES; j++)
            if (x->copied[j])
                codec->save[x->copy[j]](n, all[0].tile, copies[j].at, NULL, chance);
        for (size_t j = 0; j < written; j++)
            if (j != 1)
                put(codec, &all[j], n, chance);
        if (zero && !own)
            memset(all[1].at, 0, n * all[1].size);
        for (size_t j = 0; j < count; j++)
            advance(&all[j], n);
        advance(&mean, n);
        for (int j = 0; j < FASTLR_COPIES; j++)
            advance(&copies[j], n);
    }
}

void fastlr_survey_stored(const fastlr_rule *rule, const fastlr_span *span, size_t skip, size_t n, size_t k,
                          fastlr_lanes *lanes)
{
    const fastlr_codec *codec = fastlr_codec_of(dtype_of(rule));
    tiles t;
    buffer all[BUFFERS];
    const size_t count = buffers_of(rule, span, skip, &t, all);
    for (const size_t end = skip + n; skip < end; skip += n, k += n) {
        n = tile_at(skip, end);
        void *s[FASTLR_STATES] = {NULL};
        for (size_t j = 0; j < count; j++)
            if (j != 1)
                fetch(codec, &all[j], n);
        fetch_gradients(codec, span, &all[1], n);
        for (size_t j = 2; j < count; j++)
            s[j - 2] = all[j].tile;
        rule->survey(n, all[0].tile, all[1].tile, s, span->step, k, lanes);
        for (size_t j = 0; j < count; j++)
            advance(&all[j], n);
    }
}

/* The gradients of a tile as they are given. */
static inline buffer given(fastlr_dtype dtype, const fastlr_span *span, size_t skip, double *tile)
{
    return buffer_of(dtype, span->stored->g, span->g, NULL, skip, tile);
}

/* Not limited: what is infinite is found. */
void fastlr_gauge_stored(fastlr_dtype dtype, const fastlr_span *span, size_t skip, size_t n, double scale, size_t k,
                         fastlr_gauge *total)
{
    const fastlr_codec *codec = fastlr_codec_of(dtype);
    const fastlr_table *table = fastlr_table_of(dtype);
    _Alignas(FASTLR_LINE) double tile[TILE];
    buffer g = given(dtype, span, skip, tile);
    for (const size_t end = skip + n; skip < end; skip += n, k += n) {
        n = tile_at(skip, end);
        fetch(codec, &g, n);
        table->gauge(n, g.tile, scale, k, total);
        advance(&g, n);
    }
}

void fastlr_add_stored(fastlr_dtype dtype, const fastlr_span *span, size_t skip, size_t n)
{
    const fastlr_codec *codec = fastlr_codec_of(dtype);
    _Alignas(FASTLR_LINE) double tile[TILE];
    buffer g = given(dtype, span, skip, tile);
    for (const size_t end = skip + n; skip < end; skip += n) {
        n = tile_at(skip, end);
        fetch(codec, &g, n);
        codec->add(n, (char *)span->p + skip * own_size(dtype), g.tile);
        advance(&g, n);
    }
}

void fastlr_widen(fastlr_format format, size_t n, const void *codes, const void *beside, float *x)
{
    fastlr_codec_of(FASTLR_F32)->load[format](n, codes, beside, x);
}

void fastlr_narrow(fastlr_dtype dtype, fastlr_format format, size_t n, const void *x, void *codes, void *beside,
                   uint64_t key)
{
    fastlr_codec_of(dtype)->save[format](n, x, codes, beside, (fastlr_chance){.key = key});
}
