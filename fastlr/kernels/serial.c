/* In the place of pool.c and team.c, in a build with FASTLR_NO_THREADS: the caller does all the work. */
#include "fastlr.h"

#ifdef FASTLR_NO_THREADS

void fastlr_parallel(size_t count, int threads, fastlr_task task, void *ctx)
{
    (void)threads;
    if (count)
        task(ctx, 0, count);
}

/* That it has not: without a clock, a step is taken for one of many in a row. */
bool fastlr_idle(void)
{
    return false;
}

#endif
