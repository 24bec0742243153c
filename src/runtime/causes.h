/* What may lie behind a driver's failure and is no fault of the driver's: the limits of the process. */
#ifndef CLSPLAT_RUNTIME_CAUSES_H
#define CLSPLAT_RUNTIME_CAUSES_H

typedef struct causes {
    char words[128]; /* " (…)", to be put behind a sentence; "" if nothing was found */
} causes;

/* Looks at the process as it is now. */
causes causes_find(void);

#endif
