#!/usr/bin/env python3
"""A byte-pair tokeniser learned from files: tokenizer.json, as transformers and clsplat read it.

    demos/tokenizer.py SIZE OUT.json FILE...        SIZE tokens: the 256 bytes, and those of joined pairs

Words are cut as GPT-2 cuts them. The pair that is most frequent becomes a token, again and again (Sennrich et al., arXiv 1508.07909).
"""
import collections
import heapq
import json
import re
import sys

# A letter is what no digit and no underscore is: \p{L} of the pattern that tokenisers apply, in the words of Python's re.
WORDS = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


def visible_bytes():
    """The character that stands for each byte in a tokeniser's file: itself where it can be seen, one from 256 on where not."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in seen]
    return {**{b: chr(b) for b in seen}, **{b: chr(256 + i) for i, b in enumerate(hidden)}}


def joined(word, pair, token):
    out, i = [], 0
    while i < len(word):
        if word[i:i + 2] == pair:
            out.append(token)
            i += 2
        else:
            out.append(word[i])
            i += 1
    return tuple(out)


def learn(texts, size):
    """The bytes of every token, and the pairs that were joined. A heap holds counts of pairs that were true once; those that are no longer are put right when they come up."""
    counts = collections.Counter(word for text in texts for word in WORDS.findall(text))
    words = [tuple(word.encode()) for word in counts]
    times = list(counts.values())
    pairs, places = collections.Counter(), collections.defaultdict(set)
    for at, word in enumerate(words):
        for pair in zip(word, word[1:]):
            pairs[pair] += times[at]
            places[pair].add(at)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    tokens = [bytes([b]) for b in range(256)]
    known, merges = set(tokens), []
    while heap and len(tokens) < size:
        count, pair = heapq.heappop(heap)
        if pairs[pair] != -count:
            if pairs[pair] > 0:
                heapq.heappush(heap, (-pairs[pair], pair))
            continue
        whole = tokens[pair[0]] + tokens[pair[1]]
        if whole in known:  # made of other pairs before: one name has one number
            del pairs[pair]
            continue
        token = len(tokens)
        tokens.append(whole)
        known.add(whole)
        merges.append(pair)
        changed = set()
        for at in places.pop(pair):
            before = words[at]
            words[at] = after = joined(before, pair, token)
            for old in zip(before, before[1:]):
                pairs[old] -= times[at]
            for new in zip(after, after[1:]):
                pairs[new] += times[at]
                places[new].add(at)
                changed.add(new)
        del pairs[pair]
        for new in changed:
            heapq.heappush(heap, (-pairs[new], new))
    return tokens, merges


def main():
    size, out, *files = sys.argv[1:]
    letters = visible_bytes()
    tokens, merges = learn((open(f, encoding="utf-8", errors="ignore").read() for f in files), int(size))
    names = ["".join(letters[b] for b in token) for token in tokens]
    steps = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
             "byte_fallback": False, "ignore_merges": False, "vocab": {name: i for i, name in enumerate(names)}, "merges": [f"{names[a]} {names[b]}" for a, b in merges]}
    whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": steps,
             "post_processor": None, "decoder": steps, "model": model}
    with open(out, "w", encoding="utf-8") as file:
        json.dump(whole, file, ensure_ascii=False)


if __name__ == "__main__":
    main()
