/* After a backward pass torch's OpenMP threads spin for milliseconds, waiting for more work. A pool of our own would have to
 * be woken and then share the processors with them; they themselves start at once, and have in their caches the gradients
 * that they have just written. So a step that comes after other work asks them first (python -m bench.torch_loop).
 *
 * libgomp is only looked up, never loaded or linked. Asking it for another number of threads than it is set to would make
 * it start or end some, so that is left alone. And it does not survive fork(): a child would wait for threads that are gone.
 * Children of ours are told; one forked before this was loaded gives itself away by having too few threads. Those of the
 * team stay once they are there, so they are counted until then only: after a backward pass that takes 10 us.
 */
#ifndef FASTLR_NO_THREADS
#define _GNU_SOURCE
#include "team.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/stat.h>

static struct {
    void (*parallel)(void (*)(void *), void *, unsigned threads, unsigned flags);
    int (*max_threads)(void);
    int (*thread_num)(void);
} gomp;
static atomic_bool found, forked, started;

static bool look_up(void)
{
#ifdef __linux__
    if (atomic_load_explicit(&found, memory_order_acquire))
        return true;
    void *library = dlopen("libgomp.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (!library)
        return false;
    /* POSIX's way to turn an object pointer into a function pointer, which C itself does not have. */
    *(void **)&gomp.parallel = dlsym(library, "GOMP_parallel");
    *(void **)&gomp.max_threads = dlsym(library, "omp_get_max_threads");
    *(void **)&gomp.thread_num = dlsym(library, "omp_get_thread_num");
    if (!gomp.parallel || !gomp.max_threads || !gomp.thread_num)
        return false;
    atomic_store_explicit(&found, true, memory_order_release);
    return true;
#else
    return false;
#endif
}

typedef struct {
    void (*member)(int);
} call;

static void run_member(void *data)
{
    ((call *)data)->member(gomp.thread_num());
}

/* Threads of this process: each is a directory in /proc/self/task, and so a link. */
static int threads_alive(void)
{
    struct stat task;
    return stat("/proc/self/task", &task) == 0 ? (int)task.st_nlink - 2 : 0;
}

bool fastlr_join_team(int threads, int ours, void (*member)(int number))
{
    if (atomic_load(&forked) || !look_up() || gomp.max_threads() != threads)
        return false;
    if (!atomic_load_explicit(&started, memory_order_relaxed)) {
        if (threads_alive() - ours < threads)
            return false;
        atomic_store_explicit(&started, true, memory_order_relaxed);
    }
    call c = {member};
    gomp.parallel(run_member, &c, (unsigned)threads, 0);
    return true;
}

void fastlr_leave_team(void)
{
    atomic_store(&forked, true);
}

#endif
