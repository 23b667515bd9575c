# cython: language_level=3
"""fastlr for Cython: ``cimport fastlr``. Plain functions over plain C types, without the GIL; see examples/cython.

    int abi()
        The version of all this. It changes only if something here ceases to mean what it does.
    const char *message(int status)
        What a status says. 0 is done, 1 skipped; all others leave every buffer as it was.
    int describe(rule, dtype, &states, &inputs, &hypers, &carry)
        What a rule has. `dtype` is 0 for float, 1 for double.
    size_t scratch_size(count, n)
        Bytes of memory that an update of `count` arrays of n[0], n[1], … elements needs.
    int update(rule, dtype, count, n, p, g, s, t, lr, scale, l2, decay, clip_norm, hyper, hypers, carry, zero, skip,
               threads, scratch, room, &norm)
        One step, or none at all. `s` has the states of the first array, then those of the second, …; the rest is as in
        `fastlr_call` of fastlr.h. threads = 0 is fastlr.get_num_threads().
    int update_array(rule, dtype, n, p, g, s0, s1, s2, s3, s4, t, lr, scale, l2, decay, hyper, hypers, carry,
                     scratch, room)
        The same for one array, with as many states as the rule has, on fastlr.get_num_threads() threads.
"""
from fastlr._core cimport abi, describe, message, scratch_size, update, update_array
