#include "picture/picture.h"

/* Okabe and Ito's colours, the dark ones lighter; heats are one hue from the paper's lightness to the
 * ink's. */
static const char *const light[PICTURE_ROLES] = {
    "#1b1f24", "#5b6470", "#d9dee4", "#ffffff", "#0072b2", "#d55e00", "#007a5a",
    "#a8508a", "#8a6d00", "#2b8cc4", "#f2f5f9", "#dbe6f2", "#bcd3e9", "#97bcdd",
    "#6fa2ce", "#4a87bb", "#2f6ca3", "#1d5288", "#0f3a68",
};
static const char *const dark[PICTURE_ROLES] = {
    "#e8ebef", "#a3adba", "#39414b", "#14181d", "#56b4e9", "#ff8a4c", "#3ecf9f",
    "#e59cc8", "#f0d24a", "#8fd0f5", "#1c2229", "#1f3044", "#234160", "#2a547d",
    "#35699b", "#4a82b8", "#6b9fd0", "#95bee5", "#c7e0f6",
};

const char *picture_colour(picture_role role, bool is_dark) {
    return (is_dark ? dark : light)[role];
}

picture_role picture_heat(double share) {
    double step = share * PICTURE_HEATS;
    int heat = step > 0 ? step < PICTURE_HEATS ? (int)step : PICTURE_HEATS - 1 : 0;
    return (picture_role)(PICTURE_HEAT + heat);
}

static void add_variables(text *to, const char *const colours[PICTURE_ROLES]) {
    for (int role = 0; role < PICTURE_ROLES; ++role)
        text_add(to, "--c%d:%s;", role, colours[role]);
}

void picture_style(text *to) {
    text_add(to, ":root{color-scheme:light dark;");
    add_variables(to, light);
    text_add(to, "}\n@media (prefers-color-scheme:dark){:root{");
    add_variables(to, dark);
    text_add(to, "}}\n@media print{:root{color-scheme:light;");
    add_variables(to, light);
    text_add(to, "}}\n");
    for (int role = 0; role < PICTURE_ROLES; ++role)
        text_add(to, ".f%d{fill:var(--c%d)}.l%d{fill:none;stroke:var(--c%d)}\n", role, role, role, role);
}
