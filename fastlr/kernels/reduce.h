/* One read of the gradients: sum of squares, max |g|, and with it whether all are finite.
 *
 * The sum's bits must not depend on threads, instruction set or how the model is cut into spans. So the concatenated
 * gradients are cut into fixed blocks; inside a block, element k adds to lane k mod LANES, each lane in order; the lanes
 * are added in order, then the blocks. A piece of a block may start and end at any k: `gauge` goes on where the last
 * piece stopped.
 */

static void gauge(size_t n, const void *gradients, double scale, size_t k, fastlr_gauge *total)
{
    const real *restrict g = gradients;
    double lane[FASTLR_LANES];
    bits most[FASTLR_LANES];
    memcpy(lane, total->lane, sizeof lane);
    for (int j = 0; j < FASTLR_LANES; j++)
        most[j] = (bits)total->largest;

#define ADD(x, j)                                                                                                      \
    do {                                                                                                               \
        const double y = scale * (double)(x);                                                                          \
        const bits b = magnitude(x);                                                                                   \
        lane[j] += y * y;                                                                                              \
        most[j] = b > most[j] ? b : most[j];                                                                           \
    } while (0)

    size_t i = 0;
    for (; i < n && (k + i) % FASTLR_LANES != 0; i++)
        ADD(g[i], (k + i) % FASTLR_LANES);
    for (; i + FASTLR_LANES <= n; i += FASTLR_LANES)
        for (int j = 0; j < FASTLR_LANES; j++)
            ADD(g[i + (size_t)j], j);
    for (int j = 0; i < n; i++, j++)
        ADD(g[i], j);
#undef ADD

    memcpy(total->lane, lane, sizeof lane);
    for (int j = 0; j < FASTLR_LANES; j++)
        total->largest = most[j] > total->largest ? most[j] : total->largest;
}

static double number(uint64_t magnitude)
{
    const bits b = (bits)magnitude;
    real x;
    memcpy(&x, &b, sizeof x);
    return (double)x;
}
