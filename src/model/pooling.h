/* How a folder makes one vector of a text's tokens, as sentence-transformers writes it down: modules.json,
 * 1_Pooling, sentence_bert_config.json. */
#ifndef CLSPLAT_MODEL_POOLING_H
#define CLSPLAT_MODEL_POOLING_H

#include <clsplat/model.h>

typedef struct model_pooling {
    clsplat_pooling kind; /* MEAN where the folder says nothing */
    bool normalised;
    size_t longest; /* tokens of a text; 0: it does not say */
    char *prompt;   /* stands before every text; NULL: none */
} model_pooling;

/* Returns: FORMAT, UNSUPPORTED (naming the file and the key), IO, MEMORY. */
clsplat_status model_pooling_load(clsplat *lib, const char *folder, model_pooling *pooling);
/* Accepts a zeroed struct. */
void model_pooling_free(model_pooling *pooling);

#endif
