#ifdef __x86_64__
#define AVX2
#define TARGET "avx2"
#define TABLE fastlr_store_avx2
#include "../store.h"
#endif
