#include "tokenizer/sp.h"

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <sentencepiece_processor.h>
#include <string>
#include <vector>

struct sp_model {
    sentencepiece::SentencePieceProcessor processor;
};

static void explain(sp_why *why, const char *words) {
    std::snprintf(why->words, sizeof why->words, "%s", words);
}

sp_model *sp_open(const char *bytes, size_t count, sp_why *why) {
    try {

        auto s = std::make_unique<sp_model>();
        auto status = s->processor.LoadFromSerializedProto({bytes, count});
        if (status.ok())
            return s.release();
        explain(why, status.message());
    } catch (const std::exception &e) {
        explain(why, e.what());
    }
    return nullptr;
}

void sp_close(sp_model *s) {
    delete s;
}

int32_t sp_size(const sp_model *s) {
    return s->processor.GetPieceSize();
}

int32_t sp_begin(const sp_model *s) {
    return s->processor.bos_id();
}

int32_t sp_end(const sp_model *s) {
    return s->processor.eos_id();
}

sp_piece sp_at(const sp_model *s, int32_t token) {
    const auto &p = s->processor;
    const std::string &name = p.IdToPiece(token);
    bool is_byte = p.IsByte(token) && name.size() == 6; /* "<0x0A>" */
    return {name.c_str(), p.IsControl(token), p.IsUnknown(token),
            is_byte ? static_cast<int>(std::strtol(name.c_str() + 3, nullptr, 16)) & 0xff : -1};
}

bool sp_encode(const sp_model *s, const char *text, size_t count, sp_take *take, void *user, sp_why *why) {
    try {
        std::vector<int> tokens;
        auto status = s->processor.Encode({text, count}, &tokens);
        if (!status.ok()) {
            explain(why, status.message());
            return false;
        }
        for (int token : tokens)
            take(user, token);
        return true;
    } catch (const std::exception &e) {
        explain(why, e.what());
        return false;
    }
}
