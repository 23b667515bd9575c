#ifdef __x86_64__
#define REAL float
#define FLOATS
#define BITS uint32_t
#ifndef PLAIN /* bench/by_hand.py */
#define VECTORS "avx2.h"
#endif
#define TARGET "avx2"
#define TABLE fastlr_avx2_f32
#include "../kernels.h"
#endif
