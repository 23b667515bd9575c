/* LAMB: You et al. (2020), Algorithm 2, in the order of adam.h: Adam whose step is as long as the tensor, times the rate.
 *
 *     m ← b1 m + a g                                     a = 1 − b1, or 1 without averaging
 *     v ← b2 v + (1 − b2) g²
 *     u = (m / c1) / (√(v / c2) + ε) + λ p               ck = 1 − bkᵗ
 *       = √c2 / c1 (m / (√v + ε √c2)) + λ p              or both ck 1, uncorrected
 *     p ← p − η r u                                      r = min(‖p‖, most) / ‖u‖, or 1 where ‖p‖ or ‖u‖ is 0 or nothing adapts
 *
 * The norms need u, so that the first read makes m and v too; it writes nothing, and the second makes them again.
 */
typedef struct {
    double b1, b2, eps, decay, averaging, always, clip, corrected, most;
} lamb_hyper;
typedef struct {
    real a1, a2, eps, weight, gain, decay; /* ak = 1 − bk; weight = a; gain = √c2 / c1 */
} lamb_step;

/* min(‖p‖, most) / ‖u‖, of the squares of these; most = 0 is no bound. */
PER_STEP double ratio_of(double p, double u, double most)
{
    const double length = sqrt(p);
    return p > 0 && u > 0 ? (most > 0 && length > most ? most : length) / sqrt(u) : 1;
}

PER_STEP lamb_step lamb_at(const lamb_hyper *o, int64_t t, pace *x)
{
    const bool corrected = o->corrected != 0;
    const double c1 = corrected ? complement(o->b1, t) : 1, c2 = corrected ? complement(o->b2, t) : 1;
    if (x->sums && (o->decay != 0 || o->always != 0)) {
        const double ratio = ratio_of(x->sums->sum[0], x->sums->sum[1], o->most);
        x->rate = within(x->rate * (o->clip != 0 && ratio > 1 ? 1 : ratio));
    }
    const real a1 = (real)(1 - o->b1);
    return (lamb_step){.a1 = a1,
                       .a2 = (real)(1 - o->b2),
                       .eps = positive(o->eps * sqrt(c2)),
                       .weight = o->averaging != 0 ? a1 : 1,
                       .gain = (real)(sqrt(c2) / c1),
                       .decay = (real)o->decay};
}

PER_ELEMENT out lamb_average(real g, real m, real v, lamb_step h)
{
    m = (m - h.a1 * m) + h.weight * g;
    v = average(v, square(g), h.a2);
    return (out){.u = h.gain * (m / (root(v) + h.eps)), .s0 = m, .s1 = v};
}

PER_ELEMENT real lamb_decayed(real u, real p, lamb_step h)
{
    return h.decay != 0 ? u + h.decay * p : u;
}

PER_ELEMENT out lamb(real g, real p, real m, real v, lamb_step h)
{
    out o = lamb_average(g, m, v, h);
    o.u = lamb_decayed(o.u, p, h);
    return o;
}

PER_ELEMENT sums lamb_survey(real g, real p, real m, real v, lamb_step h)
{
    const double x = (double)p, u = (double)lamb(g, p, m, v, h).u;
    return (sums){.t0 = x * x, .t1 = u * u};
}

#define RULE lamb
#define STATES 2
#define SQUARES 2
#define SEES_P
#define SURVEY 2
#define READS 4
#define SCOPE FASTLR_TENSOR
#include "../sweep.h"

/* Cautious as in timm: what Adam would do is masked, and larger by 1 / s, s the share of what is left of it; then comes the
 * decay, and then the norm. So that one read is enough, that is put together of sums without s:
 *
 *     ‖u / s + λ p‖² = Σu² / s² + 2 (λ / s) Σup + λ² Σp²
 */
typedef lamb_hyper lamb_cautious_hyper;
typedef lamb_step lamb_cautious_step;

PER_STEP lamb_step lamb_cautious_at(const lamb_hyper *o, int64_t t, pace *x)
{
    if (!x->sums)
        return lamb_at(o, t, x);
    const double *sum = x->sums->sum, s = share(sum[3], x->sums->n), k = o->decay;
    const fastlr_sums norms = {{sum[0], sum[1] / (s * s) + 2 * (k / s) * sum[2] + k * k * sum[0]}, x->sums->n};
    pace plain = *x;
    plain.sums = &norms;
    lamb_step h = lamb_at(o, t, &plain);
    x->rate = plain.rate;
    h.gain = (real)((double)h.gain / s);
    return h;
}

PER_ELEMENT out lamb_masked(real g, real m, real v, lamb_step h)
{
    out o = lamb_average(g, m, v, h);
    o.u = agree(o.s0, g) ? o.u : o.u - o.u; /* 0, but NaN stays */
    return o;
}

PER_ELEMENT out lamb_cautious(real g, real p, real m, real v, lamb_step h)
{
    out o = lamb_masked(g, m, v, h);
    o.u = lamb_decayed(o.u, p, h);
    return o;
}

PER_ELEMENT sums lamb_cautious_survey(real g, real p, real m, real v, lamb_step h)
{
    const out o = lamb_masked(g, m, v, h);
    const double x = (double)p, u = (double)o.u;
    return (sums){.t0 = x * x, .t1 = u * u, .t2 = u * x, .t3 = agree(o.s0, g) ? 1 : 0};
}

#define RULE lamb_cautious
#define STATES 2
#define SQUARES 2
#define SEES_P
#define SURVEY 4
#define READS 4
#define SCOPE FASTLR_TENSOR
#include "../sweep.h"
