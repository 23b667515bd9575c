#ifdef __x86_64__
#define TARGET "sse4.2"
#define COMPACT /* few processors have no more than this */
#endif
#define REAL float
#define FLOATS
#define BITS uint32_t
#define TABLE fastlr_baseline_f32
#include "../kernels.h"
