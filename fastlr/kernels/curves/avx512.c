#ifdef __x86_64__
#define TARGET "avx512f,avx512bw,avx512dq,avx512vl"
#define EVALUATOR fastlr_evaluator_avx512
#include "../curves.h"
#endif
