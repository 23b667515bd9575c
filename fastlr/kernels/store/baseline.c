#define TABLE fastlr_store_baseline
#include "../store.h"
