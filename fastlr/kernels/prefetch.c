/* What loops ask for before they need it.
 *
 * Intel's processors run ahead less far than arithmetic needs: asking for every buffer makes rules a seventh faster there. On
 * AMD's it fills the queue of what is on its way, and makes them up to a quarter slower; asking for the parameters alone costs
 * up to a tenth too, but in inlined loops that come to them late (fused.h). Others are taken to be like these: python -m
 * bench.prefetch.
 */
#include "fastlr.h"

#include <stdatomic.h>

static atomic_int for_all = -1;

bool fastlr_asks_for_all(void)
{
    int all = atomic_load_explicit(&for_all, memory_order_relaxed);
    if (all < 0) {
#ifdef __x86_64__
        __builtin_cpu_init();
        all = __builtin_cpu_is("intel") != 0;
#else
        all = 0;
#endif
        fastlr_ask_for_all(all);
    }
    return all;
}

void fastlr_ask_for_all(bool all)
{
    atomic_store_explicit(&for_all, all, memory_order_relaxed);
}
