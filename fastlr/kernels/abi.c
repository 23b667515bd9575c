/* Version 1 of what programs are compiled with, which every later library serves: a compiler refuses what would break it.
 *
 * A member is added at the end, after the padding there, and a line here. Nothing is changed or taken out.
 */
#include "fastlr.h"

#define PLACE(type, member, bytes) _Static_assert(sizeof(void *) != 8 || offsetof(type, member) == (bytes), #member)
#define NUMBER(name, n) _Static_assert((name) == (n), #name)

PLACE(fastlr_call, size, 0);
PLACE(fastlr_call, rule, 8);
PLACE(fastlr_call, dtype, 16);
PLACE(fastlr_call, threads, 20);
PLACE(fastlr_call, t, 24);
PLACE(fastlr_call, lr, 32);
PLACE(fastlr_call, scale, 40);
PLACE(fastlr_call, l2, 48);
PLACE(fastlr_call, decay, 56);
PLACE(fastlr_call, clip_norm, 64);
PLACE(fastlr_call, hyper, 72);
PLACE(fastlr_call, hypers, 80);
PLACE(fastlr_call, tensors, 88);
PLACE(fastlr_call, count, 96);
PLACE(fastlr_call, stride, 104);
PLACE(fastlr_call, carry, 112);
PLACE(fastlr_call, scratch, 120);
PLACE(fastlr_call, room, 128);
PLACE(fastlr_call, zero, 136);
PLACE(fastlr_call, skip, 137);
PLACE(fastlr_tensor, n, 0);
PLACE(fastlr_tensor, p, 8);
PLACE(fastlr_tensor, g, 16);
PLACE(fastlr_tensor, s, 24);
PLACE(fastlr_found, size, 0);
PLACE(fastlr_found, norm, 8);
PLACE(fastlr_description, size, 0);
PLACE(fastlr_description, states, 8);
PLACE(fastlr_description, inputs, 12);
PLACE(fastlr_description, hypers, 16);
PLACE(fastlr_description, carry, 20);
PLACE(fastlr_description, passes, 24);
PLACE(fastlr_description, accesses, 28);
PLACE(fastlr_description, scope, 32);
PLACE(fastlr_api, abi, 0);
PLACE(fastlr_api, size, 4);
PLACE(fastlr_api, describe, 8);
PLACE(fastlr_api, scratch, 16);
PLACE(fastlr_api, update, 24);
PLACE(fastlr_api, message, 32);
PLACE(fastlr_api, rule_name, 40);
PLACE(fastlr_api, isa_name, 48);
PLACE(fastlr_api, isa_runs, 56);
PLACE(fastlr_api, isa, 64);
PLACE(fastlr_api, use_isa, 72);
PLACE(fastlr_api, processors, 80);
PLACE(fastlr_api, parallel, 88);
PLACE(fastlr_api, schedule, 96);

NUMBER(FASTLR_F32, 0);
NUMBER(FASTLR_F64, 1);
NUMBER(FASTLR_STATES, 5);
NUMBER(FASTLR_CARRY, 4);
NUMBER(FASTLR_OK, 0);
NUMBER(FASTLR_SKIPPED, 1);
NUMBER(FASTLR_BAD_SIZE, 2);
NUMBER(FASTLR_NO_RULE, 3);
NUMBER(FASTLR_BAD_HYPERS, 4);
NUMBER(FASTLR_BAD_STEP, 5);
NUMBER(FASTLR_BAD_BUFFER, 6);
NUMBER(FASTLR_NO_CARRY, 7);
NUMBER(FASTLR_NO_SCRATCH, 8);
NUMBER(FASTLR_NOT_FINITE, 9);
