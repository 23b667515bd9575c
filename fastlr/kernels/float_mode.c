/* The floating-point mode of a thread: what it does with denormal numbers. */
#include "fastlr.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

unsigned long long fastlr_get_float_mode(void)
{
#if defined(__x86_64__)
    return _mm_getcsr();
#elif defined(__aarch64__)
    unsigned long long mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
#else
    return 0;
#endif
}

void fastlr_set_float_mode(unsigned long long mode)
{
#if defined(__x86_64__)
    _mm_setcsr((unsigned)mode);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
#else
    (void)mode;
#endif
}

unsigned long long fastlr_flush_denormals(void)
{
    const unsigned long long mode = fastlr_get_float_mode();
#if defined(__x86_64__)
    fastlr_set_float_mode(mode | 0x8040); /* FTZ and DAZ */
#else
    fastlr_set_float_mode(mode | 1 << 24); /* FZ of aarch64 */
#endif
    return mode;
}
