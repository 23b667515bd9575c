#define EVALUATE fastlr_evaluate_baseline
#include "../curves.h"
