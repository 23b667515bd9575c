/* Asks the processor for lines before they are needed. No address is wrong: what is not mapped is not fetched.
 *
 * In assembler where that is known, because gcc takes a function that does nothing but __builtin_prefetch() to have no
 * effect, and leaves out its calls.
 */
#ifndef FASTLR_PREFETCH_H
#define FASTLR_PREFETCH_H

#include <stddef.h>
#include <stdint.h>

enum { FASTLR_LINE = 64 }; /* bytes */

/* Into the first level; the same, taken from other cores, who may have read it; and into the second level, which has more on
 * their way at a time. */
typedef enum { TO_READ, TO_WRITE, TO_READ_LATER } fastlr_use;

static inline __attribute__((always_inline)) void ask(const void *buffer, ptrdiff_t offset, size_t bytes,
                                                      fastlr_use use)
{
    for (size_t k = 0; k < bytes; k += FASTLR_LINE) {
        const char *line = (const char *)((uintptr_t)buffer + (uintptr_t)offset + k);
#if defined(__x86_64__)
        if (use == TO_WRITE)
            __asm__ volatile("prefetchw %0" : : "m"(*line)); /* does nothing where it is not known */
        else if (use == TO_READ)
            __asm__ volatile("prefetcht0 %0" : : "m"(*line));
        else
            __asm__ volatile("prefetcht2 %0" : : "m"(*line));
#elif defined(__aarch64__)
        if (use == TO_WRITE)
            __asm__ volatile("prfm pstl1keep, %0" : : "Q"(*line));
        else if (use == TO_READ)
            __asm__ volatile("prfm pldl1keep, %0" : : "Q"(*line));
        else
            __asm__ volatile("prfm pldl2keep, %0" : : "Q"(*line));
#else
        (void)line, (void)use;
#endif
    }
}

#endif
