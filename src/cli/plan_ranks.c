/* `mpirun clsplat plan`: the network, measured. */
#include "cli/plan.h"
#include "parallel/launch.h"

clsplat_status plan_measure_network(cli *c, plan_network *network) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_ranks *ranks = NULL;
    bool first = false;
    TRY(launch_begin(c->lib, &ranks));
    first = clsplat_ranks_own(ranks) == 0;
    TRY(launch_measure(ranks, &network->rate, &network->latency));
    network->measured = true;
fail:
    launch_end(&ranks);
    c->quiet = !first;
    return status;
}
