/* How many processors this process may use: affinity, cut by the container's quota. */
#define _GNU_SOURCE
#include "fastlr.h"

#include <stdio.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#endif

/* Processors' worth of time in a period, rounded up, or 0 where there is no limit. */
static int quota(void)
{
    double limit = -1, period = 0;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r"); /* cgroup v2: "max 100000" or "150000 100000" */
    if (f) {
        if (fscanf(f, "%lf %lf", &limit, &period) != 2)
            limit = -1;
        fclose(f);
    } else if ((f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "r"))) { /* v1: -1 or 150000 */
        if (fscanf(f, "%lf", &limit) != 1)
            limit = -1;
        fclose(f);
        if ((f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "r"))) {
            if (fscanf(f, "%lf", &period) != 1)
                period = 0;
            fclose(f);
        }
    }
    if (limit <= 0 || period <= 0 || limit / period >= FASTLR_MAX_THREADS)
        return 0;
    const int whole = (int)(limit / period);
    return whole + (whole < limit / period);
}

int fastlr_processors(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        n = CPU_COUNT(&set);
#endif
    const int most = quota();
    if (most && n > most)
        n = most;
    return n < 1 ? 1 : n > FASTLR_MAX_THREADS ? FASTLR_MAX_THREADS : (int)n;
}
