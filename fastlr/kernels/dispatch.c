/* Which instruction set runs. One is in use in the whole process: the widest that the machine has, until
 * fastlr_use_isa() says otherwise. All give the same bits, so the choice can change between any two calls. */
#include "stored.h"

#include <stdatomic.h>
#include <string.h>

extern const fastlr_table fastlr_baseline_f32, fastlr_baseline_f64;
extern const fastlr_codec fastlr_store_baseline[FASTLR_DTYPES];
#ifdef __x86_64__
extern const fastlr_table fastlr_avx2_f32, fastlr_avx2_f64, fastlr_avx512_f32, fastlr_avx512_f64;
extern const fastlr_codec fastlr_store_avx2[FASTLR_DTYPES], fastlr_store_avx512[FASTLR_DTYPES];
#endif

static const struct {
    const char *name;
    const fastlr_table *table[FASTLR_DTYPES];
    const fastlr_codec *codec;
} ISAS[] = {
    {"baseline", {&fastlr_baseline_f32, &fastlr_baseline_f64}, fastlr_store_baseline},
#ifdef __x86_64__
    {"avx2", {&fastlr_avx2_f32, &fastlr_avx2_f64}, fastlr_store_avx2},
    {"avx512", {&fastlr_avx512_f32, &fastlr_avx512_f64}, fastlr_store_avx512},
#endif
};
enum { COUNT = sizeof ISAS / sizeof ISAS[0] };

const char *fastlr_isa_name(int n)
{
    return n >= 0 && n < COUNT ? ISAS[n].name : NULL;
}

/* __builtin_cpu_supports asks the operating system too: a virtual machine may have the instructions, not the registers. */
bool fastlr_isa_runs(int n)
{
#ifdef __x86_64__
    __builtin_cpu_init();
    switch (n) {
    case 0:
        return __builtin_cpu_supports("sse4.2");
    case 1:
        return __builtin_cpu_supports("avx2");
    case 2:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    default:
        return false;
    }
#else
    return n == 0;
#endif
}

static atomic_int in_use = -1;

int fastlr_isa(void)
{
    int n = atomic_load_explicit(&in_use, memory_order_relaxed);
    if (n < 0) {
        for (n = COUNT - 1; n > 0 && !fastlr_isa_runs(n); n--)
            ;
        fastlr_use_isa(n);
    }
    return n;
}

void fastlr_use_isa(int n)
{
    atomic_store_explicit(&in_use, n, memory_order_relaxed);
}

const fastlr_table *fastlr_table_of(fastlr_dtype dtype)
{
    return ISAS[fastlr_isa()].table[dtype];
}

const fastlr_codec *fastlr_codec_of(fastlr_dtype dtype)
{
    return &ISAS[fastlr_isa()].codec[dtype];
}

const char *fastlr_rule_name(int n)
{
    const fastlr_rule *const *rules = fastlr_table_of(FASTLR_F32)->rules;
    for (int k = 0; rules[k]; k++)
        if (k == n)
            return rules[k]->name;
    return NULL;
}

static const fastlr_rule *find(const fastlr_rule *const *rule, const char *name)
{
    for (; *rule; rule++)
        if (strcmp((*rule)->name, name) == 0)
            return *rule;
    return NULL;
}

const fastlr_rule *fastlr_find(const char *name, fastlr_dtype dtype)
{
    const fastlr_table *table = fastlr_table_of(dtype);
    const fastlr_rule *rule = find(table->rules, name);
    if (!rule)
        rule = find(table->others, name);
    return rule ? rule : fastlr_find_made(name, dtype);
}

const fastlr_rule *fastlr_find_rows(const char *name, fastlr_dtype dtype)
{
    const fastlr_rule *rule = find(fastlr_table_of(dtype)->row_rules, name);
    return rule ? rule : fastlr_find(name, dtype);
}
