/* The sum of the gradients of one row: in double, in the order of their places, rounded once at the end.
 *
 * So the bits do not depend on the instruction set; in float32 each addition of the sum is exact to 29 bits more than the
 * result has, and thousands of duplicates lose nothing. `pairs` is what fastlr_order_rows() made.
 */
enum { COLUMNS = 32 }; /* whose sums stay in registers */

INLINED void sum_columns(size_t n, size_t width, const real *restrict g, const uint64_t *pairs, size_t count,
                         bool first, double *restrict sum)
{
    double s[COLUMNS];
    for (size_t i = 0; i < n; i++)
        s[i] = first ? -0.0 : sum[i]; /* −0 + x is x, of −0 too */
    for (size_t k = 0; k < count; k++)
        for (size_t i = 0; i < n; i++)
            s[i] += (double)g[(pairs[k] & UINT32_MAX) * width + i];
    for (size_t i = 0; i < n; i++)
        sum[i] = s[i];
}

static void sum_row(size_t n, const void *gradients, const uint64_t *pairs, size_t count, bool first, double *sum)
{
    const real *g = gradients;
    size_t i = 0;
    for (; i + COLUMNS <= n; i += COLUMNS)
        sum_columns(COLUMNS, n, g + i, pairs, count, first, sum + i);
    if (i < n)
        sum_columns(n - i, n, g + i, pairs, count, first, sum + i);
}

static void narrow_row(size_t n, const double *restrict sum, void *narrowed)
{
    real *restrict g = narrowed;
    for (size_t i = 0; i < n; i++)
        g[i] = (real)sum[i];
}
