/* The sum of the gradients of one row: in double, in the order of their places, rounded once at the end.
 *
 * So the bits do not depend on the instruction set; in float32 each addition of the sum is exact to 29 bits more than the
 * result has, and thousands of duplicates lose nothing. `pairs` is what fastlr_order_rows() made.
 *
 * Elements in the inner loop, which both compilers vectorise; gradients in the inner one gcc unrolls, and then does not.
 */
INLINED void add_some(size_t n, const real *g, const uint64_t *pairs, const size_t count, const bool first,
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

/* Some are added at once, so that the sum is read and written once for all: a loop for each count, and for the first of a row. */
static void add_rows(size_t n, const void *g, const uint64_t *pairs, size_t count, bool first, double *sum)
{
#define ADD(count) first ? add_some(n, g, pairs, count, true, sum) : add_some(n, g, pairs, count, false, sum)
    switch (count) {
    case 1:
        ADD(1);
        break;
    case 2:
        ADD(2);
        break;
    case 3:
        ADD(3);
        break;
    default:
        ADD(FASTLR_TOGETHER);
    }
#undef ADD
}

static void narrow_row(size_t n, const double *restrict sum, void *narrowed)
{
    real *restrict g = narrowed;
    for (size_t i = 0; i < n; i++)
        g[i] = (real)sum[i];
}
