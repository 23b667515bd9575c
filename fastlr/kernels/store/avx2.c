#ifdef __x86_64__
#ifndef PLAIN /* bench/by_hand.py */
#define VECTORS "avx2.h"
#endif
#define TARGET "avx2"
#define TABLE fastlr_store_avx2
#include "../store.h"
#endif
