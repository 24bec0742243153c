#!/usr/bin/env python3
"""Numbers planted in prose, and asked for at the end of it, for `clsplat eval MODEL --needles OUT --context TOKENS`.

    passkey.py MODEL TEXT OUT [--tokens N] [--numbers N] [--texts N] [--seed N]

MODEL is a folder with tokenizer.json, whose digits must be tokens of their own. Each of --texts texts has --tokens tokens: sentences such as
"LISBON = 48213." between the paragraphs of TEXT, one number for each of --numbers places, evenly spread, and at the end the
same sentences in another order. A number is recalled if all of its five digits are the most probable ones there. Writes tokens [B,T] and
answers [B,F], where the digits begin. Needs numpy, safetensors and tokenizers.
"""
import argparse
import pathlib
import random

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

PLACES = ("Lisbon Madrid Paris London Dublin Berlin Vienna Prague Warsaw Budapest Athens Rome Naples Milan Geneva Zurich Brussels Amsterdam Oslo "
          "Stockholm Helsinki Riga Moscow Kiev Istanbul Cairo Tunis Nairobi Lagos Delhi Mumbai Bangkok Hanoi Beijing Shanghai Seoul Tokyo "
          "Osaka Sydney Melbourne Auckland Toronto Montreal Boston Chicago Denver Dallas Houston Seattle Havana Lima Santiago").split()
DIGITS = 5
ASKED = "\n\nThese are the pass keys that were mentioned in the text above."


def sentence(place, number):
    return f"{place.upper()} = {number}."


def plant(words, paragraphs, options, r):
    """Tokens and places of the answers."""
    places = r.sample(PLACES, options.numbers)
    facts = [(place, str(r.randrange(10 ** (DIGITS - 1), 10**DIGITS))) for place in places]
    encode = lambda text: words.encode(text, add_special_tokens=False).ids
    planted = [encode("\n\n" + sentence(*fact)) for fact in facts]
    tail, answers = encode(ASKED), []
    for place, number in r.sample(facts, len(facts)):
        before, digits = encode(f"\n\n{sentence(place, '')[:-1]}"), encode(number)
        if encode(f"\n\n{sentence(place, number)[:-1]}") != before + digits or len(digits) != DIGITS:
            raise SystemExit(f"digits are not tokens of their own: {place} {number}")
        answers.append(len(tail) + len(before))
        tail += before + digits + encode(".")
    room = options.tokens - len(tail) - sum(map(len, planted))
    prose, count = [], 0
    start = r.randrange(len(paragraphs))
    for i in range(len(paragraphs)):
        prose.append(encode("\n\n" + paragraphs[(start + i) % len(paragraphs)]))
        count += len(prose[-1])
        if count >= room:
            break
    if count < room:
        raise SystemExit(f"the text has only {count} tokens, {room} are needed")
    prose[-1] = prose[-1][: len(prose[-1]) - (count - room)]
    tokens, done, count = [], 0, 0
    for paragraph in prose:
        while done < len(planted) and count * len(planted) >= done * room:
            tokens += planted[done]
            done += 1
        tokens += paragraph
        count += len(paragraph)
    for rest in planted[done:]:
        tokens += rest
    return tokens + tail, [len(tokens) + at for at in answers]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("out")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--numbers", type=int, default=40, help=f"at most {len(PLACES)}")
    parser.add_argument("--texts", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    words, r = Tokenizer.from_file(str(options.model / "tokenizer.json")), random.Random(options.seed)
    paragraphs = [p for p in options.text.read_text().split("\n\n") if len(p) > 40]
    tokens, answers = zip(*(plant(words, paragraphs, options, r) for _ in range(options.texts)))
    save_file({"tokens": np.array(tokens, np.int32), "answers": np.array(answers, np.int32)}, options.out)


if __name__ == "__main__":
    main()
