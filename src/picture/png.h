/* Pictures as PNG, in builds with Cairo. */
#ifndef CLSPLAT_PICTURE_PNG_H
#define CLSPLAT_PICTURE_PNG_H

#include "picture/picture.h"

/* Whether this build can. */
bool picture_has_png(void);

/* Adds the file's bytes; `zoom` dots for each of the picture's pixels. False if it could not be made. */
bool picture_png(const picture *p, double zoom, bool dark, text *to);

#endif
