#!/usr/bin/env python3
"""A unigram tokeniser of real size against Hugging Face's tokenizers: unigram.py BUILDDIR

Learned by sentencepiece from the translations that are installed here, with its whole table of characters, and written as transformers
writes XLM-R's. Tokens of its texts, of texts drawn from their letters and of random characters must be the same. Needs PyTorch,
transformers, tokenizers and sentencepiece; says so and ends with 0 where they are not.
"""
import random
import sys
import tempfile
from pathlib import Path

try:
    import sentencepiece
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import AutoModelForMaskedLM, XLMRobertaConfig
except ImportError as missing:
    print(f"skipped: unigram: Python has no {missing.name}")
    sys.exit(0)

from embed import Ours, sentences

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "model" / "tokenizers"))
from make import TEXTS, fields


def learn(texts, folder):
    """tokenizer.json of as many pieces as the texts give. Returns: it, and the number of its tokens."""
    (folder / "texts.txt").write_text("\n".join(texts))
    sentencepiece.SentencePieceTrainer.train(input=str(folder / "texts.txt"), model_prefix=str(folder / "sp"), model_type="unigram", vocab_size=16000,
                                             hard_vocab_limit=False, minloglevel=2)
    table = dict(fields(dict(fields((folder / "sp.model").read_bytes()))[3]))[2]
    sp = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sp.model"))
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)] + [(sp.id_to_piece(i), sp.get_score(i)) for i in range(3, sp.get_piece_size())]
    t = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    t.normalizer = normalizers.Sequence([normalizers.Precompiled(table), normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    t.decoder = decoders.Metaspace()
    t.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    t.save(str(folder / "tokenizer.json"))
    return t, len(pieces)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    r, texts = random.Random(14), sentences(4000)
    if len(texts) < 1000:
        print("skipped: unigram: there are no translations in /usr/share/locale")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        t, count = learn(texts, folder)
        AutoModelForMaskedLM.from_config(XLMRobertaConfig(vocab_size=count, hidden_size=24, intermediate_size=40, num_hidden_layers=1, num_attention_heads=4,
                                                          max_position_embeddings=514, pad_token_id=1, type_vocab_size=1)).save_pretrained(folder)
        ours = Ours(str(Path(sys.argv[1]) / "src" / "libclsplat.so"), folder)
        letters = "".join(texts[:400])
        every = [*texts, *filter(None, TEXTS), *("".join(r.choices(letters, k=r.randrange(1, 80))) for _ in range(2000)),
                 *("".join(chr(r.choice([r.randrange(32, 0x3000), r.randrange(0x3000, 0xD800), r.randrange(0xE000, 0x20000)])) for _ in range(30)) for _ in range(1000))]
        wrong = [text for text in every if ours.tokens(text) != t.encode(text).ids]
    for text in wrong[:5]:
        print("FAIL:", repr(text))
    print(f"unigram, {count} pieces: {len(every) - len(wrong)} passed, {len(wrong)} failed")
    return len(wrong) > 0


if __name__ == "__main__":
    sys.exit(main())
