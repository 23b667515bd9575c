/* From here to target_end.h functions are compiled for the instruction set TARGET, as the compiler spells it; where that is
 * undefined, for the compiler's own default. Headers of the system come before it. */
#ifdef TARGET
#define PRAGMA(x) _Pragma(#x)
#ifdef __clang__
#define OPEN(t) PRAGMA(clang attribute push(__attribute__((target(t))), apply_to = function))
OPEN(TARGET)
#else
#define OPEN(t) PRAGMA(GCC target(t))
#pragma GCC push_options
OPEN(TARGET)
#endif
#endif

#define INLINED static inline __attribute__((always_inline))
