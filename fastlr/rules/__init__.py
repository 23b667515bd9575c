"""A class for each update rule; its formula in C is in kernels/rules/."""
