/* Whole steps of rules that keep means of rows and columns instead of a number for each element.
 *
 * Every plane (the last two dimensions) is cut into tiles, by its shape alone; small ones share a tile. The threads share
 * the tiles, and what is summed over several is added in their order: so results depend neither on threads nor on what lies
 * beside a tensor. One tensor after another goes through the passes, small ones together, so that what fits in the cache
 * is read from memory once.
 *
 *     gather    reads p, g     sums of g² of each row and column of a tile, and of p²
 *     fold      –              the new means
 *     judge     reads g        sum of u²
 *     apply     reads p, g     the step
 */
#include "table.h"

enum { WIDTH = FASTLR_TILE_WIDTH, TILE = 16 * FASTLR_BLOCK, TOGETHER = 64 * FASTLR_BLOCK }; /* elements */

typedef struct {
    const fastlr_span *span;
    size_t planes, rows, cols;
    size_t width, height, stack;            /* a tile: part of a plane, or `stack` whole planes */
    size_t wide, high, deep;                /* tiles in each direction */
    size_t first, weight;                   /* the tiles' place on the line that the threads share */
    double *row, *col, *mean, *of_p, *of_u; /* planes x rows x wide, planes x high x cols, planes x high; a tile each */
    double p2, u2;
} tensor;

typedef struct {
    tensor *tensors;
    size_t count, size;
    const fastlr_factored *kernels;
    bool zero;
    void (*visit)(const void *, const tensor *, size_t tile);
} work;

static size_t parts(size_t n, size_t size)
{
    return (n + size - 1) / size;
}

static size_t less(size_t a, size_t b)
{
    return a < b ? a : b;
}

static bool factors(const tensor *x)
{
    return x->rows > 0;
}

static tensor tensor_of(const fastlr_span *span, fastlr_planes shape)
{
    if (span->n == 0)
        return (tensor){.span = span, .weight = 1};
    tensor x = {.span = span, .planes = shape.planes, .rows = shape.rows, .cols = shape.cols, .height = 1, .stack = 1};
    if (factors(&x)) {
        x.width = less(x.cols, WIDTH);
        x.height = less(x.rows, TILE / x.width / 4 * 4);
        x.wide = parts(x.cols, x.width), x.high = parts(x.rows, x.height);
        if (x.wide == 1 && x.high == 1)
            x.stack = less(x.planes, TILE / (x.width * x.height));
    } else {
        x.width = TILE;
        x.wide = parts(x.cols, TILE), x.high = 1;
    }
    x.deep = parts(x.planes, x.stack);
    x.weight = parts(x.stack * x.height * less(x.width, x.cols), FASTLR_BLOCK);
    return x;
}

static size_t tiles(const tensor *x)
{
    return x->deep * x->high * x->wide;
}

/* Gives a tensor its part of the scratch, if there is one; returns how many numbers that is. */
static size_t place(tensor *x, double *scratch)
{
    const size_t high = factors(x) ? x->planes * x->high : 0;
    const size_t sizes[] = {tiles(x), tiles(x), high, x->planes * x->rows * x->wide, high * x->cols};
    double **const arrays[] = {&x->of_p, &x->of_u, &x->mean, &x->row, &x->col};
    size_t used = 0;
    for (int k = 0; k < 5; used += sizes[k++])
        if (scratch)
            *arrays[k] = scratch + used;
    return used;
}

/* How many tensors from the first on take their passes together. */
static size_t together(const fastlr_span *spans, size_t count)
{
    size_t k = 0, n = 0;
    while (k < count && (k == 0 || n + spans[k].n <= TOGETHER))
        n += spans[k++].n;
    return k;
}

size_t fastlr_factored_scratch(const fastlr_span *spans, const fastlr_planes *shapes, size_t count)
{
    size_t most = 0;
    for (size_t k = 0, some; k < count; k += some) {
        size_t bytes = 0;
        some = together(spans + k, count - k);
        for (size_t j = 0; j < some; j++) {
            tensor x = tensor_of(&spans[k + j], shapes[k + j]);
            bytes += sizeof x + sizeof(double) * place(&x, NULL);
        }
        if (bytes > most)
            most = bytes;
    }
    return most;
}

/* ---- what is done to a tile ---- */

/* Where a tile is: `stack` planes from `plane` on, of each of which `rows` from `row` on and `cols` from `col` on. */
typedef struct {
    size_t plane, stack, row, rows, col, cols, down, across;
} place_of;

static place_of place_in(const tensor *x, size_t tile)
{
    place_of c = {.across = tile % x->wide, .down = tile / x->wide % x->high};
    c.plane = tile / x->wide / x->high * x->stack, c.stack = less(x->stack, x->planes - c.plane);
    c.row = c.down * x->height, c.rows = less(x->height, x->rows - c.row);
    c.col = c.across * x->width, c.cols = less(x->width, x->cols - c.col);
    return c;
}

static inline void *shift(void *p, size_t elements, size_t size)
{
    return (char *)p + elements * size;
}

static size_t element(const tensor *x, const place_of *c, size_t plane)
{
    return (plane * x->rows + c->row) * x->cols + c->col;
}

static void gather(const void *ctx, const tensor *x, size_t tile)
{
    const work *w = ctx;
    const fastlr_span *s = x->span;
    const place_of c = place_in(x, tile);
    if (!factors(x)) {
        w->kernels->gather_vector(c.cols, shift(s->p, c.col, w->size), shift(s->g, c.col, w->size),
                                  shift(s->s[2], c.col, w->size), s->step, &x->of_p[tile], &x->of_u[tile]);
        return;
    }
    x->of_p[tile] = 0;
    for (size_t plane = c.plane; plane < c.plane + c.stack; plane++) {
        const size_t at = element(x, &c, plane);
        x->of_p[tile] += w->kernels->gather(c.rows, c.cols, x->cols, shift(s->p, at, w->size), shift(s->g, at, w->size),
                                            s->step, x->row + (plane * x->rows + c.row) * x->wide + c.across, x->wide,
                                            x->col + (plane * x->high + c.down) * x->cols + c.col);
    }
}

static void fold(const void *ctx, const tensor *x, size_t tile)
{
    const work *w = ctx;
    const fastlr_span *s = x->span;
    const place_of c = place_in(x, tile);
    if (!factors(x))
        return;
    for (size_t plane = c.plane; plane < c.plane + c.stack; plane++) {
        if (c.across == 0) {
            const size_t row = plane * x->rows + c.row;
            x->mean[plane * x->high + c.down] =
                w->kernels->fold(c.rows, shift(s->s[0], row, w->size), x->row + row * x->wide, x->wide, x->wide, 1,
                                 (double)x->cols, s->step);
        }
        if (c.down == 0)
            w->kernels->fold(c.cols, shift(s->s[1], plane * x->cols + c.col, w->size),
                             x->col + plane * x->high * x->cols + c.col, 1, x->high, x->cols, (double)x->rows, s->step);
    }
}

static double mean_of(const tensor *x, size_t plane)
{
    double sum = 0;
    for (size_t k = 0; k < x->high; k++)
        sum += x->mean[plane * x->high + k];
    return sum / (double)x->rows;
}

static void judge(const void *ctx, const tensor *x, size_t tile)
{
    const work *w = ctx;
    const fastlr_span *s = x->span;
    const place_of c = place_in(x, tile);
    if (!factors(x))
        return;
    x->of_u[tile] = 0;
    for (size_t plane = c.plane; plane < c.plane + c.stack; plane++)
        x->of_u[tile] +=
            w->kernels->judge(c.rows, c.cols, x->cols, shift(s->g, element(x, &c, plane), w->size),
                              shift(s->s[0], plane * x->rows + c.row, w->size),
                              shift(s->s[1], plane * x->cols + c.col, w->size), mean_of(x, plane), s->step);
}

static void apply(const void *ctx, const tensor *x, size_t tile)
{
    const work *w = ctx;
    const fastlr_span *s = x->span;
    const place_of c = place_in(x, tile);
    if (!factors(x)) {
        w->kernels->apply_vector(c.cols, shift(s->p, c.col, w->size), shift(s->g, c.col, w->size),
                                 shift(s->s[2], c.col, w->size), x->p2, x->u2, (double)s->n, s->step, w->zero);
        return;
    }
    for (size_t plane = c.plane; plane < c.plane + c.stack; plane++) {
        const size_t at = element(x, &c, plane);
        w->kernels->apply(c.rows, c.cols, x->cols, shift(s->p, at, w->size), shift(s->g, at, w->size),
                          shift(s->s[0], plane * x->rows + c.row, w->size),
                          shift(s->s[1], plane * x->cols + c.col, w->size), mean_of(x, plane), x->p2, x->u2,
                          (double)s->n, s->step, w->zero);
    }
}

/* ---- the passes ---- */

/* The tiles whose first place on the line is in [first, last). */
static void visit_range(void *ctx, size_t first, size_t last)
{
    const work *w = ctx;
    size_t low = 0, high = w->count;
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        if (w->tensors[middle].first <= first)
            low = middle;
        else
            high = middle;
    }
    for (const tensor *x = &w->tensors[low]; x < w->tensors + w->count && x->first < last; x++)
        for (size_t tile = first > x->first ? parts(first - x->first, x->weight) : 0;
             tile < tiles(x) && x->first + tile * x->weight < last; tile++)
            w->visit(w, x, tile);
}

static void pass(work *w, void (*visit)(const void *, const tensor *, size_t), int threads)
{
    const tensor *end = &w->tensors[w->count - 1];
    w->visit = visit;
    fastlr_parallel(end->first + tiles(end) * end->weight, threads, visit_range, w);
}

static double sum(const double *x, size_t n)
{
    double all = 0;
    for (size_t k = 0; k < n; k++)
        all += x[k];
    return all;
}

void fastlr_factored_run(const fastlr_rule *rule, const fastlr_span *spans, const fastlr_planes *shapes, size_t count,
                         bool zero, void *scratch, int threads)
{
    const fastlr_dtype dtype = rule->size == sizeof(float) ? FASTLR_F32 : FASTLR_F64;
    work w = {.size = rule->size, .zero = zero, .kernels = fastlr_table_of(dtype)->factored, .tensors = scratch};
    for (size_t k = 0; k < count; k += w.count) {
        w.count = together(spans + k, count - k);
        double *rest = (double *)(w.tensors + w.count);
        size_t first = 0;
        for (size_t j = 0; j < w.count; j++) {
            tensor *x = &w.tensors[j];
            *x = tensor_of(&spans[k + j], shapes[k + j]);
            rest += place(x, rest);
            x->first = first, first += tiles(x) * x->weight;
        }
        const int useful = first / 2 < (size_t)threads ? (int)(first / 2) : threads;
        pass(&w, gather, useful);
        pass(&w, fold, useful);
        for (size_t j = 0; j < w.count; j++)
            w.tensors[j].p2 = sum(w.tensors[j].of_p, tiles(&w.tensors[j]));
        pass(&w, judge, useful);
        for (size_t j = 0; j < w.count; j++)
            w.tensors[j].u2 = sum(w.tensors[j].of_u, tiles(&w.tensors[j]));
        pass(&w, apply, useful);
    }
}
