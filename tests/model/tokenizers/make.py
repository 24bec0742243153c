#!/usr/bin/env python3
"""Makes the tokenisers here and what they must answer.   make.py TEXT-FILE…   (needs tokenizers 0.23 and sentencepiece 0.2)

Each folder gets a small tokeniser, trained on the given texts and the samples below, and expected.json: texts with the
tokens that Hugging Face's `tokenizers`, or Google's `sentencepiece`, makes of them, and the text they make of the tokens.
"""
import json
import os
import random
import sys
from pathlib import Path

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).resolve().parent
GPT4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3, QWEN = GPT4 % "{1,3}", GPT4 % ""
O200K = "|".join([r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                  r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                  r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])

SAMPLES = [
    "Hello, world! It's 2024-05-17; we'll see: they've got 1234567 things, I'm sure you'd agree. DON'T SHOUT'LL HE'S",
    "Ünïcödé: café, cafe\u0301, naïve, Straße, STRASSE, œuvre, Ångström, A\u030angstro\u0308m, ﬁne ﬂow, ｆｕｌｌ ｗｉｄｔｈ, ½ ² ③ Ⅷ",
    "Русский текст и українська мова, ελληνικά κείμενα, עברית, العربية ١٢٣, हिन्दी में पाठ, ไทยไม่มีช่องว่าง",
    "日本語のテキスト、中文文本也在这里。한국어 문장입니다. 漢字かな交じり文１２３",
    "😀 emoji 👩‍👩‍👧‍👦 family 🏳️‍🌈 flag 🇩🇪 👍🏽 skin ☺ ☺️ 🫠",
    "def f(x):\n    if x > 10:\n        return x ** 2\n\n\n\telse:\r\n\t\tpass  # trailing   \n",
]
TEXTS = [
    "", " ", "  ", "a", " a", "a ", "   a   b    ", "\n", "\n\n\n", " \n \n", "\r\n\r\n", "\t\t x", "a\n\n  b", "x" + " " * 100 + "y",
    "'s 't 're 'S 'T 'RE 'ſ don't can't I'LL we'Re o'clock 'tis ''s", "1 12 123 1234 12345 3.14159 1,000,000 ٣٤٥ ৪৫ Ⅳ ¼ 1²3",
    "....!!!???---___***", "a-b_c.d/e\\f|g", "http://example.com/a?b=c&d=%20#frag", "x=1;y=2;\n\n{}[]()<>", "/* comment */ // and\n/more/",
    "\u00a0\u2003\u3000 spaces\u2028of\u2029all\u0085kinds\u200b\u180e\ufeff", "zero\u200dwidth\u200cjoiners", "\u0301\u0308combining first",
    "e\u0301 \u00e9 E\u0301\u0327 \u1e09 \ud55c \u1112\u1161\u11ab \u2126 \u00c5 \uf900", "ﬁ ﬂ ﬀ ½ ² ｱ ㌀ ﷺ",
    "\u0001\u0002\u001b[31mred\u007f\u009f", "\ufffd \uffff \U0010ffff \ue000", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝒜 𐍈 𠜎", "mixed русский English 中文 العربية עברית in one",
    "ǅ ǲ ʰ ª º İ ı ẞ ß ŉ", "a" * 300, "ab" * 200, "the the the the", "▁ ▁▁ a▁b", "<0x41> <0x0A> <0xFF>", "Ġ Ċ Ā ġhello",
    "<|endoftext|>", "a<|endoftext|>b", " <|endoftext|> ", "<|endoftext|><|endoftext|>", "<|im_start|>user\nhi<|im_end|>\n", "<|im_start|", "<|endoftext",
    "<s>text</s>", "<unk> <pad>", "<s> ", "<tool_call>{}</tool_call>", "a <mask> b", "a  <mask>  b", "<mask><mask>", "x<word>y <word> z<word>", "<word>", "\u0435<word>",
    "<cafe\u0301>", "<caf\u00e9>", "<|start_header_id|>system<|end_header_id|>\n\nYou are.<|eot_id|>", "[INST] hi [/INST]",
    *SAMPLES,
]
DAMAGED = [b"\xff", b"a\xffb", b"\xc3", b"\xc3(", b"\xe2\x82", b"\xe2\x82x\xe2\x82\xac", b"\xf0\x9f\x98", b"\xf0\x9f\x98\xf0\x9f\x98\x80", b"\xed\xa0\x80", b"\xc0\xaf",
           b"\xf4\x90\x80\x80", b"\x80\x80\x80", b"\xf8\x88\x80\x80\x80", b"ok \xe0\x9f\xbf end", b"\x00", b"a\x00b\x00\x00", b"\xfe\xff\x00a", bytes(range(256))]


def trained(tokenizer, files, size, special, **options):
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False, **options)
    lines = [line for f in files for line in Path(f).read_text(errors="replace").splitlines(keepends=True)]
    tokenizer.train_from_iterator(lines + SAMPLES * 20, trainer)
    return tokenizer


ALPHABET = pre_tokenizers.ByteLevel.alphabet()


def gpt2(files):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder, t.post_processor = decoders.ByteLevel(), processors.ByteLevel(trim_offsets=False)
    return trained(t, files, 600, ["<|endoftext|>"], initial_alphabet=ALPHABET)


def prefix_space(files):
    """As RoBERTa's and BLOOM's: a space before the text, an added token that takes white space, one that stands alone."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()
    trained(t, files, 400, ["<s>", "<pad>", "</s>", "<unk>"], initial_alphabet=ALPHABET)
    t.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    t.add_tokens([AddedToken("<word>", single_word=True), AddedToken("<tool_call>", rstrip=True)])
    return t


def pieces(files, **normal):
    """As BERT's."""
    t = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    t.normalizer, t.pre_tokenizer = normalizers.BertNormalizer(**normal), pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(vocab_size=700, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False)
    t.train_from_iterator([line for f in files for line in Path(f).read_text(errors="replace").splitlines(keepends=True)] + SAMPLES * 20, trainer)
    t.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return t


def wordpiece(files):
    return pieces(files)


def wordpiece_cased(files):
    """Accents stay, and Chinese characters with their neighbours."""
    return pieces(files, lowercase=False, strip_accents=False, handle_chinese_chars=False)


def llama3(files):
    t = Tokenizer(models.BPE(ignore_merges=True))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    trained(t, files, 700, ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], initial_alphabet=ALPHABET)
    begin = t.token_to_id("<|begin_of_text|>")
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False),
                                            processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", begin)])])
    return t


def qwen(files):
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder, t.post_processor = decoders.ByteLevel(), processors.ByteLevel(trim_offsets=False)
    trained(t, files, 600, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], initial_alphabet=ALPHABET)
    t.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("</tool_call>", normalized=False), AddedToken("<caf\u00e9>", normalized=True)])
    return t


def splits(files):
    """Every behaviour of Split, digits, and the pattern of o200k."""
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("xx", "x"), normalizers.Replace(Regex(r"[\r\n]+"), "\n")])
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split("\t", "removed"), pre_tokenizers.Split(Regex("-|_"), "merged_with_previous"), pre_tokenizers.Split(Regex(r"[/\\]"), "merged_with_next"),
        pre_tokenizers.Split(Regex("[.!?]"), "contiguous"), pre_tokenizers.Split(Regex(r"[^=;]+"), "isolated", invert=True),
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Split(Regex(O200K), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    return trained(t, files, 500, ["<s>", "</s>"], initial_alphabet=ALPHABET)


FALLBACK = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]


def llama2(files):
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    t.pre_tokenizer = pre_tokenizers.Metaspace(split=True)  # only to learn words; such models have none
    trained(t, files, 700, FALLBACK, limit_alphabet=150)
    t.pre_tokenizer = None
    t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", t.token_to_id("<s>"))])
    plain = json.loads(t.to_str())  # the bytes are ordinary tokens of such a model
    plain["added_tokens"] = [a for a in plain["added_tokens"] if not a["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(plain))


def metaspace(files):
    """No fallback: what is in no token is <unk>, one for each character."""
    t = Tokenizer(models.BPE(unk_token="<unk>"))
    t.pre_tokenizer, t.decoder = pre_tokenizers.Metaspace(prepend_scheme="first", split=True), decoders.Metaspace(prepend_scheme="first")
    trained(t, files, 400, ["<unk>", "<s>", "</s>"], limit_alphabet=100)
    t.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return t


def fields(message):
    """(number, value) of a protobuf message: bytes, or an integer."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte, at, shift = message[at], at + 1, shift + 7
            value |= (byte & 127) << (shift - 7)
            if byte < 128:
                return value
    while at < len(message):
        key = varint()
        count = {0: None, 1: 8, 2: 0, 5: 4}[key & 7]
        value = varint() if key & 7 in (0, 2) else count
        if key & 7 == 0:
            yield key >> 3, value
        else:
            at += value
            yield key >> 3, message[at - value:at]


def charsmap():
    """The table of characters in a SentencePiece model: ModelProto.normalizer_spec.precompiled_charsmap."""
    spec = dict(fields((HERE / "sp_unigram" / "tokenizer.model").read_bytes()))[3]
    return dict(fields(spec))[2]


def scored(files, size, special, **options):
    t = Tokenizer(models.Unigram())
    lines = [line for f in files for line in Path(f).read_text(errors="replace").splitlines(keepends=True)]
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    t.decoder = decoders.Metaspace()
    t.train_from_iterator(lines + SAMPLES * 20, trainers.UnigramTrainer(vocab_size=size, special_tokens=special, unk_token="<unk>", show_progress=False, **options))
    return t


def unigram(files):
    """As XLM-R's."""
    t = scored(files, 400, ["<s>", "<pad>", "</s>", "<unk>"])
    t.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap()), normalizers.Replace(Regex(" {2,}"), " ")])
    t.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    t.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return t


def unigram_bytes(files):
    """Characters that are in no piece as their bytes."""
    t = scored(files, 600, FALLBACK)
    t.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Strip(left=False)])
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    plain = json.loads(t.to_str())
    plain["model"]["byte_fallback"] = True
    plain["added_tokens"] = [a for a in plain["added_tokens"] if not a["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(plain))


def as_text(text):
    """A text as expected.json holds it."""
    if isinstance(text, bytes):
        return {"hex": text.hex()}
    return {"hex": text.encode().hex()} if "\0" in text else {"text": text}


def cases_of_json(t):
    r = random.Random(5)
    texts = TEXTS + DAMAGED + ["".join(r.choices("".join(SAMPLES + [" \n\t'"] * 9), k=r.randrange(1, 60))) for _ in range(60)]
    for text in texts:
        words = text.decode(errors="replace") if isinstance(text, bytes) else text
        t.encode_special_tokens = False
        ids = t.encode(words).ids
        t.encode_special_tokens = True
        yield as_text(text) | {"ids": ids, "letters": t.encode(words, add_special_tokens=False).ids, "decoded": as_text(t.decode(ids))}


def cases_of_sentencepiece(s):
    r = random.Random(6)
    texts = TEXTS + DAMAGED + ["".join(r.choices("".join(SAMPLES + [" \n\t'"] * 9), k=r.randrange(1, 60))) for _ in range(60)]
    for text in texts:
        words = text.decode(errors="replace") if isinstance(text, bytes) else text
        if "\0" in words or any(c in words for c in ("<s>", "</s>")):
            continue  # Python's interface ends a text at NUL; it never finds special tokens in a text
        ids = s.encode(words)
        yield as_text(text) | {"ids": [s.bos_id(), *ids], "letters": ids, "decoded": as_text(s.decode(ids))}


def write(folder, cases):
    lines = ",\n".join(json.dumps(c, ensure_ascii=True) for c in cases)
    (folder / "expected.json").write_text(f"[\n{lines}\n]\n")


def write_json(make, files):
    folder = HERE / make.__name__
    folder.mkdir(exist_ok=True)
    t = make(files)
    (folder / "tokenizer.json").write_text(json.dumps(json.loads(t.to_str()), ensure_ascii=False, separators=(",", ":")) + "\n")
    write(folder, list(cases_of_json(Tokenizer.from_file(str(folder / "tokenizer.json")))))


def write_vocabulary(source, folder):
    """The same tokeniser as BERT's first files have it."""
    folder.mkdir(exist_ok=True)
    vocabulary = json.loads((source / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("".join(piece + "\n" for piece in sorted(vocabulary, key=vocabulary.get)))
    (folder / "expected.json").write_bytes((source / "expected.json").read_bytes())


def main():
    files = sys.argv[1:]
    if not files:
        sys.exit(__doc__.split("   ")[1].strip())
    for make in (gpt2, prefix_space, llama3, qwen, splits, llama2, metaspace, wordpiece, wordpiece_cased, unigram, unigram_bytes):
        write_json(make, files)
    write_vocabulary(HERE / "wordpiece", HERE / "wordpiece_txt")
    rules = HERE / "rules.tsv"
    rules.write_text("".join(f"{ord(c):x}\t{' '.join(f'{ord(d):x}' for d in by)}\n" for c, by in [("ﬁ", "fi"), ("½", "1/2"), ("①", "1"), ("Ａ", "A"), ("\u00a0", " ")]))
    corpus = HERE / "corpus.txt"
    corpus.write_text("\n".join([Path(f).read_text(errors="replace") for f in files] + SAMPLES * 20))
    for name, options in {"sp_bpe": dict(model_type="bpe", normalization_rule_name="identity", byte_fallback=True, remove_extra_whitespaces=False, vocab_size=600,
                                         character_coverage=0.98, split_digits=True, allow_whitespace_only_pieces=True),
                          "sp_unigram": dict(model_type="unigram", normalization_rule_tsv=os.path.relpath(rules), vocab_size=400, character_coverage=0.98,
                                             user_defined_symbols=["<tool_call>"])}.items():
        folder = HERE / name
        folder.mkdir(exist_ok=True)
        # Relative, since the model keeps these paths.
        sentencepiece.SentencePieceTrainer.train(input=os.path.relpath(corpus), model_prefix=os.path.relpath(folder / "tokenizer"), minloglevel=2, **options)
        (folder / "tokenizer.vocab").unlink()
        write(folder, list(cases_of_sentencepiece(sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")))))
    rules.unlink()
    corpus.unlink()


if __name__ == "__main__":
    main()
