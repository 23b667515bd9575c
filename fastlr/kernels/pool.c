/* The thread pool: not OpenMP, whose GNU runtime does not survive fork() and whose idle threads fight torch's.
 *
 *  - Threads start at the first parallel call, never at import. The caller works too.
 *  - Each thread owns one contiguous part of the range, the same one at every call of the same size, so that a model
 *    that fits in the cores' caches stays there. A thread that is done takes pieces from the others: one that the system
 *    has put aside delays nobody.
 *  - A second caller, while the pool is busy, does its own work alone. Results depend on neither.
 *  - A worker looks for the next call for SPIN_NS before it sleeps: waking one costs more than most steps take. So a call
 *    wakes workers only if it is large, or if the last call was so near that more will follow; else the caller does its
 *    work alone.
 *  - Where the process has an OpenMP team that may be awake, a call that comes after other work asks that first, and so do those
 *    that come soon after it: the team's threads keep the processors for milliseconds. See team.c.
 *  - After fork() the child has no workers and starts its own.
 *
 * One call at a time holds `busy`. It writes the job, opens the gate and moves `epoch`. A worker may enter while the gate
 * is open; the caller closes it when nothing is left to take, and waits for those inside, never for one still asleep.
 *
 * A build with FASTLR_NO_THREADS has serial.c instead.
 */
#ifndef FASTLR_NO_THREADS
#define _GNU_SOURCE
#include "fastlr.h"
#include "team.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

enum {
    SPIN_NS = 50000,
    WAKE_COUNT = 64, /* from here on the call gains by waking, as `python -m bench.threads` shows */
    OPEN = 1 << 30
};

typedef struct {
    _Alignas(64) atomic_size_t next; /* a cache line each: every take writes it */
    size_t end;
} part;

typedef struct { /* a worker, under the mutex */
    pthread_t thread;
    bool asleep; /* and not yet called */
} sleeper;

static struct {
    fastlr_task task;
    void *ctx;
    size_t grain;
    int threads;
    unsigned long long float_mode; /* the caller's, for all: or results would depend on who got which piece */
    part parts[FASTLR_MAX_THREADS];

    _Alignas(64) atomic_uint epoch;
    atomic_int gate; /* OPEN + the number of workers inside */
    atomic_int asleep;
    atomic_flag busy;
    bool lent;         /* whether a team of OpenMP's did the last call */
    atomic_llong last; /* when that ended */
    atomic_int workers;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    sleeper sleepers[FASTLR_MAX_THREADS];
#ifdef __linux__
    cpu_set_t home; /* where workers may run */
#endif
} pool = {.busy = ATOMIC_FLAG_INIT, .mutex = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static inline void pause_briefly(void)
{
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* Own part first, then the others', until nothing is left to take. */
static void work(int self)
{
    for (int k = 0; k < pool.threads; k++) {
        part *q = &pool.parts[(self + k) % pool.threads];
        for (;;) {
            const size_t first = atomic_fetch_add_explicit(&q->next, pool.grain, memory_order_relaxed);
            if (first >= q->end)
                break;
            pool.task(pool.ctx, first, q->end - first < pool.grain ? q->end : first + pool.grain);
        }
    }
}

/* The system likes to wake a thread, and to start one, where it is called from. Both then share that processor until a later
 * tick, for milliseconds and dozens of steps. So workers are kept off the caller's processor for the moment in which they
 * wake; then they may run wherever the caller may. */
static void keep_off_this_processor(pthread_t thread)
{
#ifdef __linux__
    cpu_set_t others;
    if (sched_getaffinity(0, sizeof others, &others) != 0)
        return;
    pool.home = others;
    CPU_CLR(sched_getcpu(), &others);
    if (CPU_COUNT(&others) > 0)
        pthread_setaffinity_np(thread, sizeof others, &others);
#else
    (void)thread;
#endif
}

static void go_home(void)
{
#ifdef __linux__
    sched_setaffinity(0, sizeof pool.home, &pool.home);
#endif
}

static void sleep_until_moved(int self, unsigned seen)
{
    pthread_mutex_lock(&pool.mutex);
    pool.sleepers[self].asleep = true;
    atomic_fetch_add(&pool.asleep, 1); /* before the last look: the caller moves epoch, then looks at asleep */
    while (atomic_load(&pool.epoch) == seen)
        pthread_cond_wait(&pool.wake, &pool.mutex);
    atomic_fetch_sub(&pool.asleep, 1);
    if (!pool.sleepers[self].asleep)
        go_home();
    pool.sleepers[self].asleep = false;
    pthread_mutex_unlock(&pool.mutex);
}

static unsigned wait_until_moved(int self, unsigned seen)
{
    const long long start = now();
    for (;;) {
        for (int i = 0; i < 64; i++) {
            const unsigned epoch = atomic_load_explicit(&pool.epoch, memory_order_acquire);
            if (epoch != seen)
                return epoch;
            pause_briefly();
        }
        if (now() - start > SPIN_NS)
            sleep_until_moved(self, seen);
    }
}

static bool enter(void)
{
    int gate = atomic_load(&pool.gate);
    while (gate & OPEN)
        if (atomic_compare_exchange_weak(&pool.gate, &gate, gate + 1))
            return true;
    return false;
}

static void *worker(void *number)
{
    const int self = (int)(intptr_t)number;
    pthread_mutex_lock(&pool.mutex);
    go_home();
    pthread_mutex_unlock(&pool.mutex);
    for (unsigned epoch = 0;;) {
        epoch = wait_until_moved(self, epoch);
        if (!enter())
            continue;
        if (self < pool.threads) {
            fastlr_set_float_mode(pool.float_mode);
            work(self);
        }
        atomic_fetch_sub(&pool.gate, 1);
    }
    return NULL;
}

static void child_after_fork(void)
{
    fastlr_leave_team();
    atomic_store(&pool.workers, 0);
    atomic_store(&pool.epoch, 0);
    atomic_store(&pool.gate, 0);
    atomic_store(&pool.asleep, 0);
    atomic_flag_clear(&pool.busy);
    pthread_mutex_init(&pool.mutex, NULL);
    pthread_cond_init(&pool.wake, NULL);
}

/* Starts workers up to `wanted`, if it can: the work of those that are missing is done by the others. They take no
 * signals: those are the program's. */
static void start_workers(int wanted)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    pthread_mutex_lock(&pool.mutex);
    for (int number = atomic_load(&pool.workers) + 1; number <= wanted; number++) {
        sleeper *s = &pool.sleepers[number];
        *s = (sleeper){0};
        if (pthread_create(&s->thread, NULL, worker, (void *)(intptr_t)number) != 0)
            break;
        keep_off_this_processor(s->thread);
        pthread_detach(s->thread);
        atomic_store(&pool.workers, number);
    }
    pthread_mutex_unlock(&pool.mutex);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* A thread of another library's team in the place of a worker. Its own floating-point mode is given back to it. */
static void lend(int number)
{
    const unsigned long long own = fastlr_get_float_mode();
    fastlr_set_float_mode(pool.float_mode);
    work(number % pool.threads);
    fastlr_set_float_mode(own);
}

static bool awake(int workers)
{
    return atomic_load(&pool.workers) >= workers && atomic_load(&pool.asleep) == 0;
}

bool fastlr_idle(void)
{
    return now() - atomic_load(&pool.last) > SPIN_NS;
}

static void share_out(size_t count, int threads, fastlr_task task, void *ctx)
{
    pool.task = task;
    pool.ctx = ctx;
    pool.threads = threads;
    pool.float_mode = fastlr_get_float_mode();
    for (int k = 0; k < threads; k++) {
        atomic_store_explicit(&pool.parts[k].next, count * (size_t)k / (size_t)threads, memory_order_relaxed);
        pool.parts[k].end = count * (size_t)(k + 1) / (size_t)threads;
    }
    pool.grain = count / (size_t)threads / 16 + 1; /* a sixteenth of a part: few takes, little to wait for at the end */
}

static void run_with_workers(int wanted)
{
    start_workers(wanted);
    atomic_store(&pool.gate, OPEN);
    atomic_fetch_add(&pool.epoch, 1);
    if (atomic_load(&pool.asleep) > 0) {
        pthread_mutex_lock(&pool.mutex); /* and so: who looked at epoch before it moved is waiting by now */
        for (int k = 1; k < pool.threads; k++)
            if (pool.sleepers[k].asleep) {
                keep_off_this_processor(pool.sleepers[k].thread);
                pool.sleepers[k].asleep = false; /* woken, and to go home */
            }
        pthread_mutex_unlock(&pool.mutex);
        pthread_cond_broadcast(&pool.wake);
    }
    work(0);
    atomic_fetch_sub(&pool.gate, OPEN);
    for (int i = 1; atomic_load_explicit(&pool.gate, memory_order_acquire) != 0; i++)
        if (i % 1024)
            pause_briefly();
        else
            sched_yield(); /* more threads than processors: the worker we wait for may need ours */
}

void fastlr_parallel(size_t count, int threads, fastlr_task task, void *ctx)
{
    static atomic_bool registered;
    if (threads > FASTLR_MAX_THREADS)
        threads = FASTLR_MAX_THREADS;
    if ((size_t)threads > count)
        threads = (int)count;
    if (threads <= 1) {
        if (count)
            task(ctx, 0, count);
        return;
    }
    const bool ready = awake(threads - 1), near = !ready && !fastlr_idle();
    if ((ready || near || count >= WAKE_COUNT) &&
        !atomic_flag_test_and_set_explicit(&pool.busy, memory_order_acquire)) {
        if (!atomic_exchange(&registered, true))
            pthread_atfork(NULL, NULL, child_after_fork);
        share_out(count, threads, task, ctx);
        const bool ours = ready || (near && !pool.lent);
        pool.lent = !ours && fastlr_join_team(threads, atomic_load(&pool.workers), lend);
        if (!pool.lent)
            run_with_workers(threads - 1);
        atomic_flag_clear_explicit(&pool.busy, memory_order_release);
    } else {
        task(ctx, 0, count);
    }
    atomic_store(&pool.last, now());
}

#endif
