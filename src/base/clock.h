/* Time that never runs backwards. */
#ifndef CLSPLAT_BASE_CLOCK_H
#define CLSPLAT_BASE_CLOCK_H

double clock_seconds(void);

#endif
