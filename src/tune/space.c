#include "tune/space.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

const tune_space tune_nothing = {0};

size_t tune_values(const tune_parameter *parameter) {
    size_t count = 1;
    while (count < TUNE_VALUES && parameter->values[count] != 0)
        ++count;
    return count;
}

size_t tune_space_size(const tune_space *space) {
    size_t size = 1;
    for (size_t p = 0; p < space->count; ++p)
        size *= tune_values(&space->parameters[p]);
    return size;
}

/* The first parameter changes fastest. */
tune_point tune_point_at(const tune_space *space, size_t index) {
    tune_point point = {{0}};
    for (size_t p = 0; p < space->count; ++p) {
        size_t values = tune_values(&space->parameters[p]);
        point.value[p] = space->parameters[p].values[index % values];
        index /= values;
    }
    return point;
}

size_t tune_point_index(const tune_space *space, const tune_point *point) {
    size_t index = 0, step = 1;
    for (size_t p = 0; p < space->count; ++p) {
        size_t values = tune_values(&space->parameters[p]), v = 0;
        while (v < values && space->parameters[p].values[v] != point->value[p])
            ++v;
        if (v == values)
            return tune_space_size(space);
        index += v * step;
        step *= values;
    }
    return index;
}

size_t tune_neighbour(const tune_space *space, size_t index, size_t parameter, size_t value) {
    size_t step = 1;
    for (size_t p = 0; p < parameter; ++p)
        step *= tune_values(&space->parameters[p]);
    size_t current = index / step % tune_values(&space->parameters[parameter]);
    return index - current * step + value * step;
}

bool tune_space_allows(const tune_space *space, const clsplat_limits *limits, const tune_point *point) {
    return !space->allows || space->allows(limits, point);
}

void tune_point_write(const tune_space *space, const tune_point *point, text *to) {
    if (space->count == 0)
        text_add(to, "-");
    for (size_t p = 0; p < space->count; ++p)
        text_add(to, "%s%s=%u", p ? " " : "", space->parameters[p].name, point->value[p]);
}

bool tune_point_read(const tune_space *space, const char *words, tune_point *point) {
    *point = (tune_point){{0}};
    if (space->count == 0)
        return strcmp(words, "-") == 0;
    for (size_t p = 0; p < space->count; ++p) {
        size_t name = strlen(space->parameters[p].name);
        char *end = NULL;
        if (strncmp(words, space->parameters[p].name, name) != 0 || words[name] != '=' ||
            !isdigit((unsigned char)words[name + 1]))
            return false;
        unsigned long value = strtoul(words + name + 1, &end, 10);
        point->value[p] = value <= UINT32_MAX ? (uint32_t)value : UINT32_MAX;
        if (*end != (p + 1 < space->count ? ' ' : '\0'))
            return false;
        words = end + 1;
    }
    return tune_point_index(space, point) < tune_space_size(space);
}

tune_point tune_default(const tune_space *space, const clsplat_limits *limits) {
    size_t size = tune_space_size(space), index = 0;
    tune_point point = tune_point_at(space, 0);
    while (index < size && !tune_space_allows(space, limits, &point))
        point = tune_point_at(space, ++index);
    return index < size ? point : tune_point_at(space, 0);
}
