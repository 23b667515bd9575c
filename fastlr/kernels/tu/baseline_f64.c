#ifdef __x86_64__
#define TARGET "sse4.2"
#define COMPACT /* few processors have no more than this */
#endif
#define REAL double
#define BITS uint64_t
#define TABLE fastlr_baseline_f64
#include "../kernels.h"
