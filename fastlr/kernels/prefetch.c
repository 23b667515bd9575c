/* What loops ask for before they need it.
 *
 * Intel's processors run ahead less far than arithmetic needs: asking for every buffer makes rules a seventh faster there. On
 * AMD's it fills the queue of what is on its way, and makes them up to a quarter slower. Inlined loops (fused.h) come to the
 * parameters late: with state in bfloat16 asking for these alone takes a tenth to a quarter off the time on Zen 5, and on Zen 4
 * adds up to a tenth; processors with AVX2 alone always ask for them, and for float32 gradients, a line at a time, which takes up to
 * a tenth off on Zen 3. With state in 8 bits all ask for these and the gradients; AVX-512's loop with bfloat16 parameters
 * asks for the codes too, a fiftieth off on Zen 4. Others are taken to be like Zen 4: python -m bench.prefetch.
 */
#include "fastlr.h"

#include <stdatomic.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

static atomic_int asking = -1;

#ifdef __x86_64__
/* As manufacturers number them: 25 is Zen 3 and 4, 26 Zen 5. */
static unsigned family(void)
{
    unsigned a = 0, b, c, d;
    (void)__get_cpuid(1, &a, &b, &c, &d);
    const unsigned base = a >> 8 & 15;
    return base == 15 ? base + (a >> 20 & 255) : base;
}
#endif

static fastlr_asking suited(void)
{
#ifdef __x86_64__
    __builtin_cpu_init();
    if (__builtin_cpu_is("intel"))
        return FASTLR_ASK_ALL;
    if (__builtin_cpu_is("amd") && family() >= 26)
        return FASTLR_ASK_LATE;
#endif
    return FASTLR_ASK_LITTLE;
}

fastlr_asking fastlr_asks(void)
{
    int asks = atomic_load_explicit(&asking, memory_order_relaxed);
    if (asks < 0)
        fastlr_ask(asks = (int)suited());
    return (fastlr_asking)asks;
}

void fastlr_ask(fastlr_asking asks)
{
    atomic_store_explicit(&asking, (int)asks, memory_order_relaxed);
}
