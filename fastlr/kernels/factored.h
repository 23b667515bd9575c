/* The loops of rules that keep, of squared gradients, means of rows and columns: Adafactor.
 *
 * A template, included after the rule. Each function is given a part of one matrix: `rows` by `cols` elements, one row
 * `stride` elements after the other; factored.c says which parts, and adds up what they return. Sums are of doubles; which
 * element goes to which of them, and in what order they are added, depends on the part's shape alone.
 */
enum { LANES = FASTLR_LANES, MEANS = 8 };

PER_ELEMENT double squared(real x)
{
    return (double)x * (double)x;
}

/* Of n terms, term k added to lane k mod LANES. */
INLINED double total(const double *lane, size_t n)
{
    double sum = 0;
    for (size_t k = 0; k < LANES && k < n; k++)
        sum += lane[k];
    return sum;
}

/* How far off is what a part will come to: further on in it, or in its next row where rows are longer than that. */
INLINED ptrdiff_t later_in(size_t cols, size_t stride)
{
    return (ptrdiff_t)(cols * sizeof(real) < LATER ? LATER : stride * sizeof(real));
}

/* Sums of g² of each row and column; returns that of p². */
static double gather(size_t rows, size_t cols, size_t stride, const void *params, const void *grads,
                     const fastlr_step *step, double *row, size_t apart, double *restrict col)
{
    const real *restrict p = params, *restrict g = grads;
    const real scale = ((const adafactor_step *)step)->scale;
    double of_p[LANES] = {0};
    const ptrdiff_t later = later_in(cols, stride);
    memset(col, 0, cols * sizeof *col);
    for (size_t i = 0; i < rows; i++, p += stride, g += stride) {
        double lane[LANES] = {0};
#define ADD(j, k)                                                                                                      \
    do {                                                                                                               \
        const double x = squared(scale * g[j]);                                                                        \
        lane[k] += x;                                                                                                  \
        col[j] += x;                                                                                                   \
        of_p[k] += squared(p[j]);                                                                                      \
    } while (0)
        size_t j = 0;
        for (; j + LANES <= cols; j += LANES) {
            ask(p + j, later, LANES * sizeof(real), TO_READ);
            ask(g + j, later, LANES * sizeof(real), TO_READ);
            for (size_t k = 0; k < LANES; k++)
                ADD(j + k, k);
        }
        for (size_t k = 0; j < cols; j++, k++)
            ADD(j, k);
#undef ADD
        row[i * apart] = total(lane, cols);
    }
    return total(of_p, cols);
}

/* Replaces n means by those with the new gradients: mean k is of `over` elements, whose squares sum to
 * sums[k item], sums[k item + part], …, `parts` of them. Returns the sum of the means. */
static double fold(size_t n, void *state, const double *sums, size_t item, size_t parts, size_t part, double over,
                   const fastlr_step *step)
{
    real *restrict mean = state;
    const adafactor_step h = *(const adafactor_step *)step;
    double lane[MEANS] = {0};
    for (size_t k = 0; k < n; k += MEANS) {
        const size_t some = n - k < MEANS ? n - k : MEANS;
        double sum[MEANS] = {0};
        for (size_t j = 0; j < parts; j++)
            for (size_t q = 0; q < some; q++)
                sum[q] += sums[(k + q) * item + j * part];
        for (size_t q = 0; q < some; q++) {
            mean[k + q] = average(mean[k + q], adafactor_mean(sum[q], over, h), h.weight);
            lane[q] += (double)mean[k + q];
        }
    }
    return total(lane, MEANS);
}

static void columns_of(size_t cols, const real *c, real *column)
{
    for (size_t j = 0; j < cols; j++)
        column[j] = adafactor_column(c[j]);
}

/* The sum of u². */
static double judge(size_t rows, size_t cols, size_t stride, const void *grads, const void *row_means,
                    const void *column_means, double mean, const fastlr_step *step)
{
    const real *restrict g = grads, *r = row_means;
    const adafactor_step h = *(const adafactor_step *)step;
    real column[FASTLR_TILE_WIDTH];
    columns_of(cols, column_means, column);
    const ptrdiff_t later = later_in(cols, stride);
    double lane[LANES] = {0};
    for (size_t i = 0; i < rows; i++, g += stride) {
        const real row = adafactor_row(r[i], (real)mean, h);
        size_t j = 0;
#define ADD(j, k) lane[k] += squared(adafactor_direction(h.scale * g[j], row, column[j], h))
        for (; j + LANES <= cols; j += LANES) {
            ask(g + j, later, LANES * sizeof(real), TO_READ);
            for (size_t k = 0; k < LANES; k++)
                ADD(j + k, k);
        }
        for (size_t k = 0; j < cols; j++, k++)
            ADD(j, k);
#undef ADD
    }
    return total(lane, cols);
}

INLINED void move(size_t n, real *restrict p, real *restrict g, real row, const real *restrict column, bool is_variance,
                  real rate, real decay, adafactor_step h, const bool zero, ptrdiff_t later)
{
    for (size_t first = 0, end; first < n; first = end) {
        end = n - first < STRIDE ? n : first + STRIDE;
        if (end - first == STRIDE) {
            ask(p + first, later, STRIDE * sizeof(real), TO_WRITE);
            ask(g + first, later, STRIDE * sizeof(real), zero ? TO_WRITE : TO_READ);
        }
        for (size_t j = first; j < end; j++) {
            const real x = p[j], factor = is_variance ? adafactor_column(column[j]) : column[j];
            real change = rate * adafactor_direction(h.scale * g[j], row, factor, h);
            if (decay != 0)
                change += decay * x;
            p[j] = x - change;
            if (zero)
                g[j] = 0;
        }
    }
}

/* p ← p − (rate u + decay p). */
static void apply_factored(size_t rows, size_t cols, size_t stride, void *params, void *grads, const void *row_means,
                           const void *column_means, double mean, double p2, double u2, double n,
                           const fastlr_step *step, bool zero)
{
    real *p = params, *g = grads;
    const real *r = row_means;
    const adafactor_step h = *(const adafactor_step *)step;
    real column[FASTLR_TILE_WIDTH], rate, decay;
    const ptrdiff_t later = later_in(cols, stride);
    adafactor_pace(p2, u2, n, h, &rate, &decay);
    columns_of(cols, column_means, column);
    for (size_t i = 0; i < rows; i++, p += stride, g += stride) {
        const real row = adafactor_row(r[i], (real)mean, h);
        if (zero)
            move(cols, p, g, row, column, false, rate, decay, h, true, later);
        else
            move(cols, p, g, row, column, false, rate, decay, h, false, later);
    }
}

/* The same for what is not factored: v is new after the first, which returns the sums of p² and u². */
static void gather_vector(size_t n, const void *params, const void *grads, void *variance, const fastlr_step *step,
                          double *p2, double *u2)
{
    const real *restrict p = params, *restrict g = grads;
    real *restrict v = variance;
    const adafactor_step h = *(const adafactor_step *)step;
    const real inside = (real)h.inside;
    double of_p[LANES] = {0}, of_u[LANES] = {0};
#define ADD(i, k)                                                                                                      \
    do {                                                                                                               \
        const real x = h.scale * g[i];                                                                                 \
        v[i] = average(v[i], square(x) + inside, h.weight);                                                            \
        of_p[k] += squared(p[i]);                                                                                      \
        of_u[k] += squared(adafactor_direction(x, 1, adafactor_column(v[i]), h));                                      \
    } while (0)
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t k = 0; k < LANES; k++)
            ADD(i + k, k);
    for (size_t k = 0; i < n; i++, k++)
        ADD(i, k);
#undef ADD
    *p2 = total(of_p, n), *u2 = total(of_u, n);
}

static void apply_vector(size_t n, void *params, void *grads, const void *variance, double p2, double u2, double size,
                         const fastlr_step *step, bool zero)
{
    const adafactor_step h = *(const adafactor_step *)step;
    real rate, decay;
    adafactor_pace(p2, u2, size, h, &rate, &decay);
    if (zero)
        move(n, params, grads, 1, variance, true, rate, decay, h, true, LATER);
    else
        move(n, params, grads, 1, variance, true, rate, decay, h, false, LATER);
}

static bool adafactor_prepare(const fastlr_hyper *o, int64_t t, const fastlr_sums *sums, double *carry,
                              fastlr_step *step)
{
    _Static_assert(sizeof(adafactor_step) <= sizeof *step, "FASTLR_STEP_SLOTS");
    _Static_assert(sizeof(adafactor_hyper) <= sizeof o->rule, "FASTLR_HYPERS");
    (void)sums, (void)carry;
    const adafactor_step h = adafactor_at(o, t);
    *(adafactor_step *)step = h;
    return (is_finite(h.scale) || o->scale != o->scale) && is_finite((real)(h.rate * h.eps2)) &&
           is_finite((real)h.rate) && is_finite((real)h.decay);
}

static const fastlr_rule adafactor_rule = {
    .name = "adafactor",
    .size = sizeof(real),
    .states = 3,
    .hypers = sizeof(adafactor_hyper) / sizeof(double),
    .passes = 3,
    .accesses = 6, /* p and g; g; p and g, and p written */
    .scope = FASTLR_TENSOR,
    .prepare = adafactor_prepare,
};

static const fastlr_factored factored = {gather, fold, judge, apply_factored, gather_vector, apply_vector};
