#ifdef __x86_64__
#define TARGET "avx2"
#define EVALUATOR fastlr_evaluator_avx2
#include "../curves.h"
#endif
