#ifdef __x86_64__
#ifndef PLAIN /* bench/by_hand.py */
#define VECTORS "avx512.h"
#endif
#define TARGET "avx512f,avx512bw,avx512dq,avx512vl"
#define TABLE fastlr_store_avx512
#include "../store.h"
#endif
