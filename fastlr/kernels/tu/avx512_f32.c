#ifdef __x86_64__
#define REAL float
#define FLOATS
#define BITS uint32_t
#define REGISTERS 32
#ifndef PLAIN /* bench/by_hand.py */
#define VECTORS "avx512.h"
#endif
#define TARGET "avx512f,avx512bw,avx512dq,avx512vl"
#define TABLE fastlr_avx512_f32
#include "../kernels.h"
#endif
