/* Linked with the kernels of a mutant: puts its rules in the place of those that a loaded fastlr uses. See tools/mutate.py. */
#include "table.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern const fastlr_table fastlr_baseline_f32, fastlr_baseline_f64;

static void overwrite(const void *old, const void *new, size_t size)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)old, first = at / page * page;
    if (mprotect((void *)first, at + size - first, PROT_READ | PROT_WRITE) != 0)
        abort();
    memcpy((void *)at, new, size);
}

static void replace(const fastlr_rule *const *old, const fastlr_rule *const *new)
{
    for (; *new != NULL; new++) {
        const fastlr_rule *const *rule = old;
        while (strcmp((*rule)->name, (*new)->name) != 0)
            if (*++rule == NULL)
                abort();
        overwrite(*rule, *new, sizeof **new);
    }
}

static void replace_all(const fastlr_table *old, const fastlr_table *new)
{
    replace(old->rules, new->rules);
    replace(old->others, new->others);
    replace(old->row_rules, new->row_rules);
    overwrite(old->factored, new->factored, sizeof *new->factored);
}

__attribute__((visibility("default"))) void install(const fastlr_table *(*table_of)(fastlr_dtype))
{
    replace_all(table_of(FASTLR_F32), &fastlr_baseline_f32);
    replace_all(table_of(FASTLR_F64), &fastlr_baseline_f64);
}
