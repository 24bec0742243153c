/* The two 16-bit storage types on the host, rounding to nearest even. */
#ifndef CLSPLAT_BASE_HALF_H
#define CLSPLAT_BASE_HALF_H

#include <stdint.h>

float half_from_f16(uint16_t bits);
float half_from_bf16(uint16_t bits);
uint16_t half_to_f16(float value);
uint16_t half_to_bf16(float value);

#endif
