#ifdef __x86_64__
#define REAL double
#define BITS uint64_t
#define TARGET "avx2"
#define TABLE fastlr_avx2_f64
#include "../kernels.h"
#endif
