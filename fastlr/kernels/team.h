/* A team of threads that is awake already: libgomp's, where another library of the process (torch) runs one. */
#ifndef FASTLR_TEAM_H
#define FASTLR_TEAM_H

#include <stdbool.h>

/* Calls member(number) on `threads` threads of the calling thread's OpenMP team and returns true; or returns false: there is
 * no libgomp in the process, or none with so many threads, `ours` of the process' threads not counted. */
bool fastlr_join_team(int threads, int ours, void (*member)(int number));

/* For a child after fork(), which libgomp does not survive. */
void fastlr_leave_team(void);

#endif
