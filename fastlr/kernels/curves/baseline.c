#define EVALUATOR fastlr_evaluator_baseline
#include "../curves.h"
