/* For by_hand.py: AdamW and the conversions of tiles, called where they are, of kernels compiled once by hand and once without.
 * RULES and STORE name the tables of the instruction set. */
#include "stored.h"
#include "table.h"

#include <string.h>

extern const fastlr_table RULES;
extern const fastlr_codec STORE[FASTLR_DTYPES];

/* A step over whole quanta. No scales: state in bfloat16. */
void by_hand_step(size_t n, int half_p, void *p, int half_g, const void *g, void *m, void *v, float *m_scale,
                  float *v_scale)
{
    const struct {
        double b1, b2, eps, hat;
    } adam = {0.9, 0.999, 1e-8, 0};
    const fastlr_rule *const *rule = RULES.rules;
    while (strcmp((*rule)->name, "adam") != 0)
        rule++;
    fastlr_hyper hyper = {.lr = 1e-3, .decay = 0.01, .scale = 1};
    memcpy(hyper.rule, &adam, sizeof adam);
    fastlr_step step;
    (*rule)->prepare(&hyper, 5, NULL, NULL, &step);
    void *states[] = {m, v}, *scales[] = {m_scale, v_scale};
    (*rule)->fused(n, half_p, p, half_g, g, states, m_scale ? scales : NULL, &step);
}

/* n numbers, a quantum at a time, from a format and back to it. */
void by_hand_convert(size_t n, const char *name, float *numbers, void *codes, float *scales)
{
    const fastlr_codec *const codec = &STORE[FASTLR_F32];
    const fastlr_format format = *name == 'b' ? FASTLR_BF16 : *name == 'i' ? FASTLR_INT8 : FASTLR_UINT8;
    const size_t each = format == FASTLR_BF16 ? 2 : 1;
    for (size_t i = 0; i < n; i += FASTLR_QUANTUM) {
        void *const code = (char *)codes + i * each, *const scale = scales + i / FASTLR_QUANTUM;
        codec->load[format](FASTLR_QUANTUM, code, scale, numbers + i);
        codec->save[format](FASTLR_QUANTUM, numbers + i, code, scale, (fastlr_chance){0});
    }
}
