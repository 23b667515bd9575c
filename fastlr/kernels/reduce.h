/* Sums whose bits do not depend on threads, instruction set or how buffers are cut into spans.
 *
 * What is summed is cut into fixed blocks; inside a block, element k adds to lane k mod LANES, each lane in order; the lanes
 * are added in order, then the blocks. A piece of a block may start and end at any k: each function goes on where the last
 * piece stopped.
 */

/* Adds TERMS of element i to the lanes, for i in [0, n); k is the place of the first in its block. ASK() is for a later i. */
#define ADD_TERMS(COUNT, j)                                                                                            \
    do {                                                                                                               \
        const sums t = TERMS;                                                                                          \
        lane[0][j] += t.t0;                                                                                            \
        if (COUNT > 1)                                                                                                 \
            lane[1][j] += t.t1;                                                                                        \
        if (COUNT > 2)                                                                                                 \
            lane[2][j] += t.t2;                                                                                        \
        if (COUNT > 3)                                                                                                 \
            lane[3][j] += t.t3;                                                                                        \
    } while (0)

/* clang's estimate for two doubles a register is that a root and a division an element are not worth it; they are. */
#ifdef __clang__
#define EACH_LANE(j) _Pragma("clang loop vectorize(enable)") for (size_t j = 0; j < FASTLR_LANES; j++)
#else
#define EACH_LANE(j) for (size_t j = 0; j < FASTLR_LANES; j++)
#endif

#define OVER_LANES(COUNT)                                                                                              \
    double lane[FASTLR_SUMS][FASTLR_LANES];                                                                            \
    memcpy(lane, lanes->lane, sizeof lane);                                                                            \
    size_t first = 0;                                                                                                  \
    for (size_t i = first; i < n && (k + i) % FASTLR_LANES != 0; first = ++i)                                          \
        ADD_TERMS(COUNT, (k + i) % FASTLR_LANES);                                                                      \
    for (; first + FASTLR_LANES <= n; first += FASTLR_LANES) {                                                         \
        ASK(first, FASTLR_LANES * sizeof(real));                                                                       \
        EACH_LANE(j)                                                                                                   \
        {                                                                                                              \
            const size_t i = first + j;                                                                                \
            ADD_TERMS(COUNT, j);                                                                                       \
        }                                                                                                              \
    }                                                                                                                  \
    for (size_t i = first; i < n; i++)                                                                                 \
        ADD_TERMS(COUNT, i - first);                                                                                   \
    memcpy(lanes->lane, lane, sizeof lane);

/* One read of the gradients: sum of squares, max |g|, and with it whether all are finite. */
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
