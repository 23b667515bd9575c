#ifndef __clang__
#pragma GCC pop_options
#elif defined(TARGET)
#pragma clang attribute pop
#endif
