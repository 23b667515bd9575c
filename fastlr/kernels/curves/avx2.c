#ifdef __x86_64__
#define TARGET "avx2"
#define EVALUATE fastlr_evaluate_avx2
#include "../curves.h"
#endif
