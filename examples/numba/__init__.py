"""Training loops that Numba compiles."""
