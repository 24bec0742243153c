/* What --help prints: one line an option, in groups, as wide as the terminal. */
#ifndef CLSPLAT_CLI_HELP_H
#define CLSPLAT_CLI_HELP_H

#include "cli/cli.h"

/* `common` stands behind the command's own options, as a group of that name. */
void help_print(const cli *c, const cli_syntax *syntax, const struct poptOption *common);

#endif
