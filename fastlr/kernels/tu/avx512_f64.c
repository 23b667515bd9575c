#ifdef __x86_64__
#define REAL double
#define BITS uint64_t
#define TARGET "avx512f,avx512bw,avx512dq,avx512vl"
#define TABLE fastlr_avx512_f64
#include "../kernels.h"
#endif
