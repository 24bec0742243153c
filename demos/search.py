#!/usr/bin/env python3
"""Search over sentences: vectors by clsplat.Model.embed, neighbours by scikit-learn.

    search.py MODEL "WORDS" [FILE…]      MODEL: a folder (all-MiniLM-L6-v2) or, with huggingface_hub, a name; without a FILE, these lines
"""
import sys
from pathlib import Path

from sklearn.neighbors import NearestNeighbors

import clsplat

LINES = ["A cat sleeps on the warm windowsill.", "The stock market fell by three per cent on Monday.", "Bread rises because yeast makes gas.",
         "Two goals in the last minute won the match.", "The telescope saw a galaxy older than any before.", "Kittens chase a ball of wool.",
         "Central banks raised interest rates again.", "Knead the dough for ten minutes.", "The striker was sent off after a foul.",
         "A comet passes the Sun every 76 years."]


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    lines = [line.strip() for path in sys.argv[3:] for line in Path(path).read_text().splitlines() if line.strip()] or LINES
    with clsplat.Device() as device:
        model = clsplat.Model(sys.argv[1], device=device)
        index = NearestNeighbors(n_neighbors=min(3, len(lines)), metric="cosine").fit(model.embed(lines, normalise=True))
        distances, places = index.kneighbors(model.embed([sys.argv[2]], normalise=True))
    for distance, place in zip(distances[0], places[0]):
        print(f"{1 - distance:.3f}  {lines[place]}")


if __name__ == "__main__":
    main()
