/* Messages while something else is done. */
#include <time.h>

#include "base/clock.h"
#include "parallel/ranks.h"

static const size_t most = (size_t)1 << 30; /* bytes of a piece */
enum { TAG = 21 };

static int piece_of(size_t bytes, size_t done) {
    return (int)(bytes - done < most ? bytes - done : most);
}

/* Nobody spins: a core that waits is one that does not compute. */
static int wait_for(MPI_Request requests[2]) {
    static const struct timespec nap = {.tv_nsec = 100000};
    for (int code, done = 0; !done;) {
        if ((code = MPI_Testall(2, requests, &done, MPI_STATUSES_IGNORE)) != MPI_SUCCESS)
            return code;
        if (!done)
            nanosleep(&nap, NULL);
    }
    return MPI_SUCCESS;
}

static int carry_out(exchange *e) {
    for (size_t sent = 0, got = 0; sent < e->out_bytes || got < e->in_bytes;) {
        MPI_Request requests[2] = {MPI_REQUEST_NULL, MPI_REQUEST_NULL};
        int out = piece_of(e->out_bytes, sent), in = piece_of(e->in_bytes, got), code = MPI_SUCCESS;
        if (in > 0)
            code = MPI_Irecv(e->in + got, in, MPI_BYTE, e->from, TAG, e->ranks->comm, &requests[0]);
        if (code == MPI_SUCCESS && out > 0)
            code = MPI_Isend(e->out + sent, out, MPI_BYTE, e->to, TAG, e->ranks->comm, &requests[1]);
        if (code == MPI_SUCCESS)
            code = wait_for(requests);
        if (code != MPI_SUCCESS)
            return code;
        sent += (size_t)out;
        got += (size_t)in;
    }
    return MPI_SUCCESS;
}

static void *in_thread(void *user) {
    exchange *e = user;
    e->code = carry_out(e);
    return NULL;
}

void exchange_begin(exchange *e) {
    e->threaded = e->ranks->threads && pthread_create(&e->thread, NULL, in_thread, e) == 0;
}

clsplat_status exchange_end(exchange *e) {
    double begin = clock_seconds();
    if (e->threaded)
        pthread_join(e->thread, NULL);
    else
        e->code = carry_out(e);
    e->threaded = false;
    e->ranks->traffic.waited += clock_seconds() - begin;
    if (e->code != MPI_SUCCESS)
        return ranks_failed(e->ranks, "MPI_Isend", e->code);
    e->ranks->traffic.sent += e->out_bytes;
    e->ranks->traffic.received += e->in_bytes;
    return CLSPLAT_OK;
}
