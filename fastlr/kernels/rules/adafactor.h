/* Adafactor: Shazeer & Stern (2018), Algorithms 4 and 5, as torch has it, or with `fairseq` as fairseq and Transformers do.
 *
 *     r ← (1 − w) r + w mean of g² over columns          w = tᵝ
 *     c ← (1 − w) c + w mean of g² over rows             g² + ε1 in fairseq's form
 *     V = r c / mean(r)                                  of what has one dimension: v ← (1 − w) v + w g², V = v
 *     u = g / max(√V, ε1)                                g / √V in fairseq's form
 *     α = max(ε2, rms(p)) min(η, 1/√t)
 *     p ← p − ηλ p − (α / max(1, rms(u) / d)) u          αλ p in fairseq's form
 *
 * The loops are those of factored.h: three reads of g, two of p, and 1/√V is a product of a number for the row and one for
 * the column, so that an element costs neither a root nor a division.
 */
typedef struct {
    double beta2_decay, eps1, eps2, d, fairseq, relative_step, scale_parameter; /* eps1 0: the form's own */
} adafactor_hyper;
typedef struct {
    double rate, decay, eps2, d, inside; /* inside: added to g² */
    real scale, weight, least, most;     /* weight: of the new mean; least: of mean(r); most: of 1/√V */
    bool fairseq, scale_parameter;
} adafactor_step;

PER_STEP adafactor_step adafactor_at(const fastlr_hyper *x, int64_t t)
{
    const adafactor_hyper *o = (const adafactor_hyper *)x->rule;
    const real epsilon = _Generic((real)0, float: FLT_EPSILON, double: DBL_EPSILON);
    const real greatest = _Generic((real)0, float: FLT_MAX, double: DBL_MAX);
    adafactor_step h = {.rate = x->lr, .decay = x->decay, .eps2 = o->eps2, .d = o->d};
    h.fairseq = o->fairseq != 0;
    h.scale_parameter = o->scale_parameter != 0;
    h.scale = (real)x->scale;
    h.weight = (real)power((double)t, o->beta2_decay);
    const double eps1 = o->eps1 > 0 ? o->eps1 : h.fairseq ? 1e-30 : (double)epsilon;
    h.least = positive(eps1);
    h.most = h.fairseq ? greatest : 1 / h.least;
    h.inside = h.fairseq ? eps1 : 0;
    const double slow = 1 / sqrt((double)t);
    if (!h.fairseq)
        h.decay = x->lr * x->decay;
    if (o->relative_step != 0 && slow < x->lr)
        h.rate = slow;
    return h;
}

/* A mean of squares as it is kept: finite, and sums of such means in double too. */
PER_ELEMENT real adafactor_mean(double sum, double n, adafactor_step h)
{
    const double most = _Generic((real)0, float: (double)FLT_MAX / 4, double: DBL_MAX * 0x1p-64),
                 mean = sum / n + h.inside;
    return (real)(mean > most ? most : mean);
}

/* Their product is 1/√V. */
PER_ELEMENT real adafactor_row(real r, real mean, adafactor_step h)
{
    return 1 / root(r / larger(mean, h.least));
}

PER_ELEMENT real adafactor_column(real c)
{
    return 1 / root(c);
}

PER_ELEMENT real adafactor_direction(real g, real row, real column, adafactor_step h)
{
    const real x = row * column;
    return g * (x > h.most ? h.most : x);
}

/* The factors of u and p in the move, from the sums of p² and u² over n elements. */
PER_STEP void adafactor_pace(double p2, double u2, double n, adafactor_step h, real *rate, real *decay)
{
    const double rms_p = sqrt(p2 / n), rms_u = sqrt(u2 / n) / h.d;
    double alpha = h.rate;
    if (h.scale_parameter)
        alpha *= rms_p < h.eps2 ? h.eps2 : rms_p;
    *rate = (real)(rms_u < 1 ? alpha : alpha / rms_u);
    *decay = (real)(h.fairseq ? alpha * h.decay : h.decay);
}
