#!/usr/bin/env python3
"""`clsplat embed` beside sentence-transformers: embed.py BUILDDIR MODEL [--texts N] [--rounds N]

Real sentences of many scripts, out of the translations that are installed here (gettext's catalogues): token ids must be
equal, vectors within a cosine of 0.99999; then batches of 32 sentences by turns, sentences a second. Needs PyTorch and
sentence-transformers, or transformers alone, whose rows are then averaged and normalised as all-MiniLM's folder says.
"""
import argparse
import ctypes
import gettext
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch


ROOT = Path(__file__).resolve().parents[2]


def declared():
    """The C library's structures and functions, as its headers have them."""
    made = subprocess.run([sys.executable, ROOT / "src/python/binding.py", ROOT / "include/clsplat"], stdout=subprocess.PIPE, check=True, text=True)
    names = {}
    exec(made.stdout, names)
    return names


class Ours:
    """A model through the library's own interface."""

    def __init__(self, library, folder):
        names, self.lib = declared(), ctypes.CDLL(library)
        for name, (result, parameters) in names["FUNCTIONS"].items():
            function = getattr(self.lib, name)
            function.restype, function.argtypes = result, parameters
        self.text = names["clsplat_text"]
        self.handle, self.device, self.model = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        self.check(self.lib.clsplat_create(self.lib.clsplat_options_defaults(), ctypes.byref(self.handle)))
        self.check(self.lib.clsplat_device_open(self.handle, None, ctypes.byref(self.device)))
        self.check(self.lib.clsplat_model_open(self.device, str(folder).encode(), self.lib.clsplat_model_options_defaults(), ctypes.byref(self.model)))

    def check(self, status):
        if status:
            raise SystemExit(f"status {status}: {self.lib.clsplat_last_error(self.handle)}")

    def tokens(self, text):
        found, count = ctypes.POINTER(ctypes.c_int32)(), ctypes.c_size_t()
        data = text.encode()
        self.check(self.lib.clsplat_model_encode(self.model, data, len(data), True, ctypes.byref(found), ctypes.byref(count)))
        ids = found[:count.value]
        self.lib.clsplat_model_free(found)
        return ids

    def embed(self, texts, columns):
        data = [t.encode() for t in texts]
        list_ = (self.text * len(data))(*[self.text(d, len(d)) for d in data])
        out = np.empty((len(data), columns), np.float32)
        self.check(self.lib.clsplat_model_embed(self.model, self.lib.clsplat_embedding_defaults(), list_, len(data), out.ctypes.data))
        return out

    def logits(self, tokens, columns):
        """What an encoder's head says of every token."""
        out = np.empty((len(tokens), columns), np.float32)
        ids = (ctypes.c_int32 * len(tokens))(*tokens)
        self.check(self.lib.clsplat_model_read(self.model, self.lib.clsplat_model_attention_defaults(), ids, len(tokens), None, out.ctypes.data))
        return out


def sentences(count):
    """The same ones every time: from as many languages as there are, in turns."""
    languages = {}
    for path in sorted(Path("/usr/share/locale").glob("*/LC_MESSAGES/*.mo")):
        try:
            with open(path, "rb") as f:
                catalogue = gettext.GNUTranslations(f)._catalog
        except (LookupError, OSError, ValueError):
            continue
        lines = [" ".join(t.split()) for t in catalogue.values() if isinstance(t, str) and 40 < len(t) < 400 and "%" not in t and not t.startswith("Project-Id")]
        languages.setdefault(path.parent.parent.name, []).extend(lines)
    order = [sorted(set(lines), key=lambda t: hash_of(t)) for _, lines in sorted(languages.items())]
    found = []
    for turn in range(max(map(len, order))):
        found += [lines[turn] for lines in order if turn < len(lines)]
    return found[:count]


def hash_of(text):
    value = 14695981039346656037
    for byte in text.encode():
        value = (value ^ byte) * 1099511628211 % 2**64
    return value


class Theirs:
    def __init__(self, folder):
        try:
            from sentence_transformers import SentenceTransformer
            self.name, model = "sentence-transformers", SentenceTransformer(str(folder), device="cpu")
            self.ids = lambda text: model.tokenizer(text, truncation=True, max_length=model.max_seq_length)["input_ids"]
            self.embed = lambda texts: model.encode(texts, batch_size=32, show_progress_bar=False)
        except ImportError:
            from transformers import AutoModel, AutoTokenizer
            self.name, tokenizer, model = "transformers", AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

            def embed(texts):
                batch = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
                mask = batch["attention_mask"][..., None]
                rows = model(**batch).last_hidden_state
                return torch.nn.functional.normalize((rows * mask).sum(1) / mask.sum(1), dim=-1).numpy()

            self.ids = lambda text: tokenizer(text, truncation=True, max_length=256)["input_ids"]
            self.embed = lambda texts: np.concatenate([embed(texts[i:i + 32]) for i in range(0, len(texts), 32)])


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("builddir")
    parser.add_argument("model")
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch")
    arguments = parser.parse_args()
    texts = sentences(arguments.texts)
    ours, theirs = Ours(os.path.join(arguments.builddir, "src", "libclsplat.so"), arguments.model), Theirs(arguments.model)
    torch.set_num_threads(arguments.threads)
    reference = theirs.embed(texts)
    found = ours.embed(texts, reference.shape[1])
    wrong = [t for t in texts if ours.tokens(t)[:255] != list(theirs.ids(t))[:255]]
    cosine = (found * reference).sum(-1) / np.linalg.norm(found, axis=-1) / np.linalg.norm(reference, axis=-1)
    print(f"{len(texts)} texts, {sum(len(t.encode()) for t in texts)} bytes, against {theirs.name}: {len(wrong)} with other tokens; "
          f"cosine at least {cosine.min():.8f}; greatest difference {np.abs(found - reference).max():.2e}")
    for text in wrong[:5]:
        print(repr(text), ours.tokens(text), list(theirs.ids(text)))
    batch, times, worked = texts[:32], {"ours": [], "theirs": []}, {"ours": [], "theirs": []}
    for _ in range(arguments.rounds):
        for name, run in (("ours", lambda: ours.embed(batch, reference.shape[1])), ("theirs", lambda: theirs.embed(batch))):
            begin, work = time.perf_counter(), time.process_time()
            run()
            times[name].append(time.perf_counter() - begin)
            worked[name].append(time.process_time() - work)
    best = {n: min(t) for n, t in times.items()}
    middle = {n: statistics.median(t) for n, t in times.items()}
    work = {n: statistics.median(t) for n, t in worked.items()}
    print(f"32 texts, {sum(len(ours.tokens(t)) for t in batch)} tokens: best {best['ours'] * 1e3:.1f} ms, theirs {best['theirs'] * 1e3:.1f} ms "
          f"({best['theirs'] / best['ours']:.2f} x); medians {middle['ours'] * 1e3:.1f}, {middle['theirs'] * 1e3:.1f} ms ({middle['theirs'] / middle['ours']:.2f} x); "
          f"processor time {work['ours'] * 1e3:.1f}, {work['theirs'] * 1e3:.1f} ms ({work['theirs'] / work['ours']:.2f} x), PyTorch with {arguments.threads} threads")


if __name__ == "__main__":
    main()
