/* From here to target_end.h functions are compiled for the instruction set TARGET, as the compiler spells it; where that is
 * undefined, for the compiler's own default. Headers of the system come before it.
 *
 * gcc turns what one comparison says about the next into jumps, and these into a mask for each way through them: four times
 * the masks for Rprop, which took twice the time. And it makes a loop of its own for each value of what is tested in one: a tenth
 * faster in the cache, and half of what compiling takes, which is not done where COMPACT is defined.
 */
#ifdef __clang__
#ifdef TARGET
#define PRAGMA(x) _Pragma(#x)
#define OPEN(t) PRAGMA(clang attribute push(__attribute__((target(t))), apply_to = function))
OPEN(TARGET)
#endif
#else
#pragma GCC push_options
#pragma GCC optimize("no-thread-jumps")
#ifdef COMPACT
#pragma GCC optimize("no-unswitch-loops")
#endif
#ifdef TARGET
#define PRAGMA(x) _Pragma(#x)
#define OPEN(t) PRAGMA(GCC target(t))
OPEN(TARGET)
#endif
#endif

#define INLINED static inline __attribute__((always_inline))

/* Of a static that is no constant to gcc, which makes one instruction of x > y ? x : y where both are variables, and two where one
 * is a constant. */
#ifdef __clang__
#define UNKNOWN const
#else
#define UNKNOWN __attribute__((used)) /* by whom gcc cannot know */
#endif
