/* The sum of the gradients of one row: in double, in the order of their places, rounded once at the end.
 *
 * So the bits do not depend on the instruction set; in float32 each addition of the sum is exact to 29 bits more than the
 * result has, and thousands of duplicates lose nothing. `pairs` is what fastlr_order_rows() made.
 *
 * Elements in the inner loop, which both compilers vectorise; gradients in the inner one gcc unrolls, and then does not.
 */
INLINED void add_some(size_t n, const real *g, const uint64_t *pairs, const size_t count, bool first,
                      double *restrict sum)
{
    const real *rows[FASTLR_TOGETHER];
    for (size_t k = 0; k < count; k++)
        rows[k] = g + (uint32_t)pairs[k] * n;
    for (size_t i = 0; i < n; i++) {
        double s = first ? -0.0 : sum[i]; /* −0 + x is x, of −0 too */
        for (size_t k = 0; k < count; k++)
            s += (double)rows[k][i];
        sum[i] = s;
    }
}

/* Some are added at once, so that the sum is read and written once for all: a loop for each count. */
static void add_rows(size_t n, const void *g, const uint64_t *pairs, size_t count, bool first, double *sum)
{
    switch (count) {
    case 1:
        add_some(n, g, pairs, 1, first, sum);
        break;
    case 2:
        add_some(n, g, pairs, 2, first, sum);
        break;
    case 3:
        add_some(n, g, pairs, 3, first, sum);
        break;
    default:
        add_some(n, g, pairs, FASTLR_TOGETHER, first, sum);
    }
}

static void narrow_row(size_t n, const double *restrict sum, void *narrowed)
{
    real *restrict g = narrowed;
    for (size_t i = 0; i < n; i++)
        g[i] = (real)sum[i];
}
