"""`clsplat embed` and `clsplat eval --fill`: what they must do, and what they must refuse."""
import json
import shutil
from pathlib import Path

import numpy as np

from tensors import load

TESTS = Path(__file__).resolve().parent.parent / "model"
TEXTS = ["The first line, with a word or two.", "", "Ünïcödé 你好 and a good deal more of it than before.", "the first line, with a word or two."]


def model_of(bench):
    """The random BERT in a folder of its own, with the tokeniser of 700 pieces cut to its vocabulary of 256."""
    folder = bench.path("encoder")
    shutil.copytree(TESTS / "bert", folder)
    pieces = (TESTS / "tokenizers" / "wordpiece_txt" / "vocab.txt").read_text().split("\n")[:256]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return folder


def embedding(bench, model, texts):
    lines = bench.works("embed", "embed", model, texts)
    vectors = np.array([[float(x) for x in line.split()] for line in lines.splitlines()], np.float32)
    bench.check("embed: a line each", vectors.shape == (4, 24), str(vectors.shape))
    bench.check("embed: lower case is the same text", np.array_equal(vectors[0], vectors[3]) and not np.array_equal(vectors[0], vectors[2]), "it is not")
    with open(texts, "rb") as f:
        bench.check("embed: standard input: lines", bench.works("embed: standard input", "embed", model, "-", stdin=f) == lines, "others")
    answer = json.loads(bench.works("embed --json", "embed", model, texts, "--json") or "{}")
    bench.check("embed --json: report", answer["texts"] == 4 and answer["columns"] == 24 and answer["texts_per_second"] > 0
                and np.array_equal(np.array(answer["embeddings"], np.float32), vectors), str(answer)[:300])
    tensor, array = bench.path("vectors.safetensors"), bench.path("vectors.npy")
    silent = [bench.works(f"embed: {p.suffix}", "embed", model, texts, "-o", p, *f) for p, f in ((tensor, []), (array, ["--format", "npy"]))]
    bench.check("embed: files", silent == ["", ""] and np.array_equal(load(tensor)["embeddings"], vectors) and np.array_equal(np.load(array), vectors), str(silent))
    unit = np.array([[float(x) for x in line.split()] for line in bench.works("embed: unit", "embed", model, texts, "--normalise", "--pooling", "cls").splitlines()])
    bench.check("embed: unit: lengths", np.allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-5) and abs((unit[0] * vectors[0]).sum()) < 30, str(unit))
    near = bench.works("embed: near-far", "embed", model, texts, "--attention", "near-far", "--tolerance", "0")
    bench.check("embed: near-far: vectors", np.allclose([[float(x) for x in line.split()] for line in near.splitlines()], vectors, atol=1e-4), near)


def folders(bench, model, texts):
    """What sentence-transformers writes beside a model."""
    plain = bench.works("embed: no modules", "embed", model, texts)
    modules = [{"type": f"sentence_transformers.models.{t}", "path": p} for t, p in (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))]
    (model / "1_Pooling").mkdir()
    (model / "modules.json").write_text(json.dumps(modules))
    mode = {"word_embedding_dimension": 24, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (model / "1_Pooling" / "config.json").write_text(json.dumps(mode))
    rows = [np.array([float(x) for x in line.split()]) for line in bench.works("embed: modules", "embed", model, texts).splitlines()]
    first = np.array([float(x) for x in plain.splitlines()[0].split()])
    bench.check("embed: modules: normalised mean", np.allclose(rows[0], first / np.linalg.norm(first), atol=1e-5), str(rows[0]))
    (model / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 6}))
    status, out, err = bench.run("embed", model, texts)
    bench.check("embed: cut", status == 0 and "3 of 4 texts are longer than the model's 6 tokens" in err and out.splitlines()[1] and len(out.splitlines()) == 4, err)
    for name, change, words in [("max", {"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True}, ["1_Pooling/config.json", "pooling_mode_max_tokens"]),
                                ("two", {"pooling_mode_cls_token": True}, ["pooling_mode_mean_tokens", "pooling_mode_cls_token"])]:
        (model / "1_Pooling" / "config.json").write_text(json.dumps(mode | change))
        bench.refused(f"embed: pooling: {name}", [model, texts], words, statuses=[1], command="embed")
    (model / "1_Pooling" / "config.json").write_text(json.dumps(mode))
    (model / "modules.json").write_text(json.dumps(modules + [{"type": "sentence_transformers.models.Dense", "path": "3_Dense"}]))
    bench.refused("embed: modules: Dense", [model, texts], ["modules.json", "Dense"], statuses=[1], command="embed")
    (model / "modules.json").unlink()
    (model / "sentence_bert_config.json").unlink()


def filling(bench, model):
    answer = json.loads(bench.works("eval --fill", "eval", model, "--fill", "a [MASK] b [MASK]", "--json") or "{}")
    good = [len(m) == 5 and all(x["probability"] >= y["probability"] for x, y in zip(m, m[1:])) for m in answer.get("masks", [])]
    bench.check("eval --fill: two masks", good == [True, True], str(answer))
    lines = bench.works("eval --fill: lines", "eval", model, "--fill", "a [MASK] b [MASK]") or ""
    bench.check("eval --fill: a line each", len(lines.splitlines()) == 2, lines)
    bench.refused("eval --fill: no mask", [model, "--fill", "a b"], ["no mask"], statuses=[1], command="eval")
    bench.refused("eval --fill: a model that writes", [TESTS / "llama", "--fill", "a [MASK]"], ["llama", "encoders"], statuses=[1], command="eval")
    bench.refused("eval --fill: and a file", [model, model, "--fill", "a [MASK]"], ["--fill"], statuses=[2], command="eval")


def refusals(bench, model, texts):
    for name, arguments, words, status in [
            ("no model", [], ["MODEL"], 2), ("pooling", [model, texts, "--pooling", "max"], ["--pooling"], 2), ("format", [model, texts, "--format", "npy"], ["--output"], 2),
            ("unknown format", [model, texts, "-o", bench.path("new"), "--format", "csv"], ["--format"], 2), ("no such file", [model, bench.path("none.txt")], ["none.txt"], 1),
            ("nothing to read", [model, bench.write("nothing.txt", b"")], ["nothing.txt", "no line"], 1), ("output is a folder", [model, texts, "-o", bench.folder], [str(bench.folder)], 1),
            ("a model that writes", [TESTS / "llama", texts], ["llama", "bert"], 1), ("top k", [model, texts, "--attention", "topk", "--sparse-topk", "4"], ["near-far"], 1),
            ("context", [model, texts, "--context", "65"], ["64 positions"], 1)]:
        bench.refused(f"embed: {name}", arguments, words, statuses=[status], command="embed")
    bench.refused("generate: an encoder", [model, "-p", "a"], ["bert", "clsplat embed"], statuses=[1], command="generate")


def run(bench):
    model, texts = model_of(bench), bench.write("sentences.txt", "\n".join(TEXTS).encode() + b"\n")
    embedding(bench, model, texts)
    folders(bench, model, texts)
    filling(bench, model)
    refusals(bench, model, texts)
