/* A linear classifier of tumours, trained by a C program with fastlr's AdamW: squared hinge loss, clipped gradients.
 *
 *     make lib
 *     cc -std=c11 -O2 -ffp-contract=off -Ifastlr/include examples/c/train.c build/lib/libfastlr.a -lm -pthread -o train
 *     ./train breast_cancer.csv 200
 *
 * The file is scikit-learn's: a line "569,30,…", then 30 measurements and the class, 0 or 1, of each of 569 tumours. An
 * installed package has header and library where `python -c 'import fastlr; print(fastlr.get_include(), fastlr.get_library_dir())'`
 * says. examples/hinge.py does the same in Python, with the same bits.
 */
#include <fastlr.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    size_t n, width;
    float *x, *y; /* n rows of measurements, each column divided by its largest; the class as 1 or −1 */
} data;

static data load(const char *path)
{
    data d = {0};
    FILE *f = fopen(path, "r");
    if (!f || fscanf(f, "%zu,%zu%*[^\n]", &d.n, &d.width) != 2)
        exit(fprintf(stderr, "%s: no table\n", path));
    d.x = malloc(d.n * d.width * sizeof *d.x);
    d.y = malloc(d.n * sizeof *d.y);
    for (size_t i = 0; i < d.n; i++) {
        int class;
        for (size_t j = 0; j < d.width; j++)
            if (fscanf(f, "%f,", &d.x[i * d.width + j]) != 1)
                exit(fprintf(stderr, "%s: row %zu is short\n", path, i));
        if (fscanf(f, "%d", &class) != 1)
            exit(fprintf(stderr, "%s: row %zu has no class\n", path, i));
        d.y[i] = class ? 1 : -1;
    }
    fclose(f);
    for (size_t j = 0; j < d.width; j++) {
        float largest = 0;
        for (size_t i = 0; i < d.n; i++)
            largest = fmaxf(largest, fabsf(d.x[i * d.width + j]));
        for (size_t i = 0; i < d.n; i++)
            d.x[i * d.width + j] /= largest;
    }
    return d;
}

/* Σ max(0, 1 − y (w·x + b))², and adds its gradient to gw and gb. Counts what is on the right side. */
static float loss(const data *d, const float *w, float b, float *gw, float *gb, size_t *right)
{
    float sum = 0;
    *right = 0;
    for (size_t i = 0; i < d->n; i++) {
        const float *x = d->x + i * d->width;
        float score = b;
        for (size_t j = 0; j < d->width; j++)
            score += w[j] * x[j];
        const float slack = 1 - d->y[i] * score;
        *right += slack < 1;
        if (slack > 0) {
            const float r = -2 * d->y[i] * slack;
            for (size_t j = 0; j < d->width; j++)
                gw[j] += r * x[j];
            *gb += r;
            sum += slack * slack;
        }
    }
    return sum;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return fprintf(stderr, "usage: %s breast_cancer.csv steps\n", argv[0]);
    const data d = load(argv[1]);
    const int steps = atoi(argv[2]);

    /* Two tensors, each with its gradient and AdamW's state; all 0 at first. */
    float *memory = calloc(4 * (d.width + 1), sizeof *memory), *b = memory + 4 * d.width;
    const fastlr_tensor tensors[] = {
        {.n = d.width, .p = memory, .g = memory + d.width, .s = {memory + 2 * d.width, memory + 3 * d.width}},
        {.n = 1, .p = b, .g = b + 1, .s = {b + 2, b + 3}},
    };
    const double hyper[] = {0.9, 0.999, 1e-8, 0}; /* adam_hyper, kernels/rules/adam.h */
    fastlr_call call = {
        .size = sizeof call,
        .rule = "adam",
        .dtype = FASTLR_F32,
        .threads = fastlr_processors(),
        .lr = 0.05,
        .scale = 1 / (double)d.n,
        .decay = 0.01,
        .clip_norm = 1,
        .hyper = hyper,
        .hypers = sizeof hyper / sizeof *hyper,
        .tensors = tensors,
        .count = sizeof tensors / sizeof *tensors,
        .stride = sizeof *tensors,
        .zero = true,
    };
    call.room = fastlr_scratch(&call);
    call.scratch = malloc(call.room);

    size_t right = 0;
    for (call.t = 1; call.t <= steps; call.t++) {
        fastlr_found found = {.size = sizeof found};
        const float sum = loss(&d, memory, *b, memory + d.width, b + 1, &right);
        const fastlr_status status = fastlr_update(&call, &found);
        if (status != FASTLR_OK)
            return fprintf(stderr, "step %d: %s\n", (int)call.t, fastlr_message(status));
        if (call.t == 1 || call.t % 50 == 0)
            printf("step %4d  loss %.4f  gradient %.4f  right %.1f %%\n", (int)call.t, (double)sum / (double)d.n,
                   found.norm, 100 * (double)right / (double)d.n);
    }
    for (size_t j = 0; j < d.width; j++)
        printf("%a ", (double)memory[j]);
    printf("%a\n", (double)*b);
    free(call.scratch), free(memory), free(d.x), free(d.y);
    return 0;
}
