"""`clsplat generate`, `chat` and `eval`: what they must do, and what they must refuse."""
import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np

from tensors import file_of, load

HERE = Path(__file__).resolve().parent
MODEL = HERE.parent.parent / "demos" / "bytelm-4m"
CAPPED = HERE.parent / "model" / "gemma2"
TOKENISERS = HERE.parent / "model" / "tokenizers"
EVAL_KEYS = ["bits_per_byte", "perplexity", "tokens", "tokens_per_second", "exact_keys_share", "peak_bytes", "device"]

WRITTEN = {"chatml": "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n", "plain": "User: Hi there\nAssistant:",
           "llama3": "<|start_header_id|>user<|end_header_id|>\n\nHi there<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"}


def report(bench, name, *arguments, **options):
    return json.loads(bench.works(name, *arguments, "--json", **options) or "{}")


def made_of_noise(bench, tokeniser, vocabulary):
    """A folder with a random model that has the tokeniser of that name."""
    folder, r = bench.path(f"model-{tokeniser}"), np.random.default_rng(8)
    folder.mkdir()
    for file in (TOKENISERS / tokeniser).glob("tokenizer.*"):
        shutil.copy(file, folder)
    hidden, wide = 64, 96
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": hidden, "intermediate_size": wide, "num_hidden_layers": 1,
              "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "hidden_act": "silu", "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
              "rope_theta": 10000.0, "tie_word_embeddings": True, "vocab_size": vocabulary, "bos_token_id": 1, "eos_token_id": 2}
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {"self_attn.q_proj": (64, hidden), "self_attn.k_proj": (32, hidden), "self_attn.v_proj": (32, hidden), "self_attn.o_proj": (hidden, 64),
              "mlp.gate_proj": (wide, hidden), "mlp.up_proj": (wide, hidden), "mlp.down_proj": (hidden, wide)}
    weights = {f"model.layers.0.{n}.weight": ("F32", r.normal(size=s) / 8) for n, s in shapes.items()}
    weights |= {f"model.layers.0.{n}_layernorm.weight": ("F32", np.ones(hidden)) for n in ("input", "post_attention")}
    weights |= {"model.norm.weight": ("F32", np.ones(hidden)), "model.embed_tokens.weight": ("F32", r.normal(size=(vocabulary, hidden)))}
    (folder / "model.safetensors").write_bytes(file_of(weights))
    return folder


def log_probabilities(logits):
    logits = logits.astype(np.float64)
    top = logits.max(-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))


def evaluation(bench):
    golden = load(MODEL / "golden.safetensors")
    out = bench.path("logits.safetensors")
    given = bench.write("ids.safetensors", file_of({"input_ids": ("I32", golden["input_ids"][:, :300])}))
    text = bench.works("eval --logits", "eval", MODEL, "--tokens", given, "--logits", out)
    if text is not None:
        logits, wanted = load(out)["logits"], golden["logits"][:, :300]
        bench.check("eval --logits: silent", text == "", text)
        bench.check("eval --logits: as Hugging Face's", logits.shape == wanted.shape
                    and np.linalg.norm(logits - wanted) < 1e-4 * np.linalg.norm(wanted), "they are not")
    ids = golden["input_ids"][0]
    nats = -log_probabilities(golden["logits"][0])[np.arange(len(ids) - 1), ids[1:]]
    file = bench.write("text.txt", bytes(ids.tolist()))
    answer = report(bench, "eval", "eval", MODEL, file)
    bench.check("eval: keys", list(answer) == EVAL_KEYS, str(list(answer)))
    bench.check("eval: bits", abs(answer["bits_per_byte"] - nats.mean() / np.log(2)) < 1e-4 and answer["tokens"] == len(ids) - 1, str(answer))
    bench.check("eval: perplexity", abs(answer["perplexity"] - np.exp(nats.mean())) < 1e-3, str(answer))
    bench.check("eval: the rest", answer["exact_keys_share"] == 1 and answer["peak_bytes"] > 0 and answer["tokens_per_second"] > 0, str(answer))
    windows = bench.write("windows.txt", bytes(ids[:300].tolist()) + bytes(golden["input_ids"][1][:250].tolist()))
    again = -log_probabilities(golden["logits"][1])[np.arange(249), golden["input_ids"][1][1:250]]
    answer = report(bench, "eval: two windows", "eval", MODEL, windows, "--context", "300")
    bench.check("eval: two windows: bits", answer["tokens"] == 299 + 249 and
                abs(answer["bits_per_byte"] - (nats[:299].sum() + again.sum()) / 548 / np.log(2)) < 1e-4, str(answer))
    bench.check("eval: lines", "bits/byte" in (bench.works("eval: lines", "eval", MODEL, windows) or ""), "no bits/byte")
    half = report(bench, "eval: bf16", "eval", MODEL, windows, "--context", "300", "--dtype", "bf16")
    bench.check("eval: bf16: bits", abs(half["bits_per_byte"] - answer["bits_per_byte"]) < 0.02, str(half))
    wide = report(bench, "eval: wide window", "eval", MODEL, file, "--attention", "window", "--window", "1024")
    near = report(bench, "eval: window", "eval", MODEL, file, "--attention", "window", "--window", "16")
    bench.check("eval: windows of keys", abs(wide["bits_per_byte"] - nats.mean() / np.log(2)) < 1e-4
                and near["bits_per_byte"] > wide["bits_per_byte"] + 0.01 and near["exact_keys_share"] < 0.1, f"{wide} {near}")
    both = report(bench, "eval --compare", "eval", MODEL, windows, "--compare", "--context", "300", "--tolerance", "0.1")
    rivals = {a["attention"]: a for a in both["attentions"]}
    bench.check("eval --compare: attentions", list(rivals) == ["near-far", "softmax", "window", "topk", "blocks"], str(both))
    bench.check("eval --compare: exact", rivals["softmax"]["errors"] == [0] * 6 and rivals["softmax"]["exact_keys_share"] == 1, str(both))
    bench.check("eval --compare: near-far", all(0 < e < 0.1 for e in rivals["near-far"]["errors"]) and rivals["near-far"]["exact_keys_share"] < 1
                and abs(rivals["near-far"]["bits_per_byte"] - rivals["softmax"]["bits_per_byte"]) < 0.02, str(both))
    bench.check("eval --compare: within the tolerance", both["layers_above_tolerance"] == [], str(both))
    limit = ["--compare", "--context", "300", "--tolerance", "0.001", "--chunk", "16", "--sparse-topk", "32"]
    few = report(bench, "eval --compare: few keys", "eval", MODEL, windows, *limit)
    above = [i for i, e in enumerate(few["attentions"][0]["errors"]) if e > 0.001 + 1e-5]
    bench.check("eval --compare: above the tolerance", above and few["layers_above_tolerance"] == above, str(few))
    lines = bench.works("eval --compare: lines", "eval", MODEL, windows, *limit) or ""
    bench.check("eval --compare: names layers", f"above the tolerance of 0.001 are the errors of layers {', '.join(map(str, above))}\n" in lines, lines)
    nothing = report(bench, "eval: nothing opened", "eval", MODEL, windows, "--attention", "near-far", "--tolerance", "inf", "--chunk", "16")
    bench.check("eval: nothing opened: keys", 0 < nothing["exact_keys_share"] < 0.1, str(nothing))
    needles = load(MODEL / "needles.safetensors")
    part = bench.write("needles.safetensors", file_of({"tokens": ("U8", needles["tokens"][:1]), "answers": ("I32", needles["answers"][:1])}))
    answer = report(bench, "eval --needles", "eval", MODEL, "--needles", part)
    bench.check("eval --needles: recalled", answer["recalled"] == answer["of"] == 4, str(answer))
    answer = report(bench, "eval --needles: nearsighted", "eval", MODEL, "--needles", part, "--attention", "window", "--window", "16")
    bench.check("eval --needles: nearsighted: recalled", answer["recalled"] == 0 and answer["of"] == 4, str(answer))


def generation(bench):
    golden = load(MODEL / "golden.safetensors")
    prompt = bytes(golden["input_ids"][0][:256].tolist())
    file = bench.write("prompt.txt", prompt)
    first = chr(int(golden["logits"][0][255].argmax()))
    greedy = bench.works("generate", "generate", MODEL, "-f", file, "-n", "24")
    bench.check("generate: the most probable byte first", len(greedy or "") == 24 and greedy.startswith(first), repr(greedy))
    for name, flags in {"again": [], "temperature 0": ["-t", "0"], "top-k 1": ["--top-k", "1"], "top-p 1e-6": ["--top-p", "1e-6", "--seed", "7"]}.items():
        bench.check(f"generate: {name}: text", bench.works(f"generate: {name}", "generate", MODEL, "-f", file, "-n", "24", *flags) == greedy, "another text")
    with open(file, "rb") as f:
        bench.check("generate: standard input: text", bench.works("generate: standard input", "generate", MODEL, "-f", "-", "-n", "24", stdin=f) == greedy, "another text")
    bench.check("generate: --prompt: text", bench.works("generate: --prompt", "generate", MODEL, "--prompt", prompt.decode(), "-n", "24") == greedy, "another text")
    answer = report(bench, "generate --json", "generate", MODEL, "-f", file, "-n", "24")
    bench.check("generate --json: report", answer["text"] == greedy and answer["end"] == "tokens" and answer["prompt_tokens"] == 256 and answer["tokens"] == 24
                and answer["tokens_per_second"] > 0, str(answer))
    drawn = [bench.works(f"generate: seed {s}", "generate", MODEL, "-f", file, "-n", "48", "--seed", s, "-t", "1.5") for s in ("1", "1", "2")]
    bench.check("generate: seeds", drawn[0] == drawn[1] != drawn[2], str(drawn))
    answer = report(bench, "generate: context", "generate", MODEL, "-f", file, "--context", "260")
    bench.check("generate: context: tokens", answer["end"] == "context" and answer["tokens"] == 4, str(answer))
    status, out, err = bench.run("generate", MODEL, "-f", file, "-n", "4")
    bench.check("generate: rates", status == 0 and "256 tokens read" in err and "4 written" in err, err)
    interrupted(bench, file)


def interrupted(bench, file):
    p = subprocess.Popen([bench.binary, "generate", MODEL, "-f", file, "-n", "3800"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    shown = p.stdout.read(8)
    p.send_signal(signal.SIGINT)
    started = time.time()
    rest, err = p.communicate(timeout=120)
    whole, err = shown + rest, err.decode()
    if p.returncode == 0:
        bench.skip("generate: interrupted", "the device was faster")
        return
    bench.check("generate: interrupted", p.returncode == 1 and 8 <= len(whole) < 3800 and "interrupted" in err and " written" in err, f"{p.returncode} {len(whole)}: {err}")
    bench.check("generate: interrupted: at once", time.time() - started < 10, f"{time.time() - started:.1f} s")


# What transformers' apply_chat_template writes for Zephyr, Llama 2, Gemma (with Gemma 3's place for the system's words), Phi-3, Mistral 7B 0.3,
# Llama 3 and Qwen after two turns, and what of a template tells it.
TURNS = {
    "zephyr": ("<|system|>\nBe brief.</s>\n<|user|>\nHi there</s>\n<|assistant|>\n", "{}</s>\n<|user|>\nAnd now?</s>\n<|assistant|>\n", "'<|user|>' + content + eos_token"),
    "llama2": ("[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi there [/INST]", "{} </s><s>[INST] And now? [/INST]", "'[INST] ' + '<<SYS>>'"),
    "gemma": ("<start_of_turn>user\nBe brief.\n\nHi there<end_of_turn>\n<start_of_turn>model\n", "{}<end_of_turn>\n<start_of_turn>user\nAnd now?<end_of_turn>\n<start_of_turn>model\n", None),
    "phi3": ("<|system|>\nBe brief.<|end|>\n<|user|>\nHi there<|end|>\n<|assistant|>\n", "{}<|end|>\n<|user|>\nAnd now?<|end|>\n<|assistant|>\n", None),
    "mistral": ("[INST] Be brief.\n\nHi there[/INST]", "{}</s>[INST] And now?[/INST]", None),
    "chatml": ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n",
               "{}<|im_end|>\n<|im_start|>user\nAnd now?<|im_end|>\n<|im_start|>assistant\n", None),
    "llama3": ("<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi there<|eot_id|><|start_header_id|>assistant"
               "<|end_header_id|>\n\n", "{}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nAnd now?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", None)}


def templates(bench, models):
    """Every template as it is written: the same answers as to the whole text, byte by byte."""
    def talk(name, lines, model, *flags):
        p = subprocess.run([bench.binary, "chat", model, "--json", *flags], input=lines, capture_output=True, timeout=120)
        bench.check(name, p.returncode == 0, p.stderr.decode())
        return json.loads(p.stdout or "{}"), p.stderr.decode()

    for name, (first, more, words) in TURNS.items():
        told, _ = talk(f"chat --template {name}", b"Hi there\nAnd now?\n", MODEL, "--template", name, "-n", "9", "--system", "Be brief.")
        said = [turn["assistant"] for turn in told["turns"]]
        for i, prompt in enumerate((first, first + more.format(said[0]))):
            text = report(bench, f"chat --template {name}: as text", "generate", MODEL, "--prompt", prompt, "-n", "9")["text"]
            bench.check(f"chat --template {name}: turn {i}", text == said[i], f"{text!r} {said!r}")
        if words:
            folder = bench.path(f"template-{name}")
            shutil.copytree(models["llama2"], folder)
            (folder / "chat_template.jinja").write_text(words)
            told, _ = talk(f"chat: its own {name}", b"Hi\n", folder, "-n", "2")
            bench.check(f"chat: its own {name}", told.get("template") == name, str(told))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    _, err = talk("chat: an unknown template", b"Hi\n", folder, "-n", "2")
    bench.check("chat: an unknown template is said", "--template" in err, err)


def conversation(bench, models):
    def talk(name, lines, *flags, model=MODEL, **options):
        p = subprocess.run([bench.binary, "chat", model, *flags], input=lines.encode(), capture_output=True, timeout=120, **options)
        bench.check(name, p.returncode == 0, p.stderr.decode())
        return p.stdout.decode(errors="replace")

    answer = json.loads(talk("chat --json", "Hello\n\n  What is this?  \n", "--json", "-n", "12", "--system", "Be brief.") or "{}")
    bench.check("chat --json: report", answer["template"] == "plain" and [t["user"] for t in answer["turns"]] == ["Hello", "What is this?"]
                and 0 < answer["tokens"] <= 24, str(answer))
    lines = talk("chat", "Hello\nWhat is this?\n", "-n", "12", "--system", "Be brief.")
    bench.check("chat: the same answers", lines == "".join(t["assistant"] + "\n" for t in answer["turns"]), f"{lines!r} {answer}")
    once = json.loads(talk("chat: one turn", "Hello\n", "--json", "-n", "12", "--system", "Be brief.") or "{}")
    text = report(bench, "chat: as text", "generate", MODEL, "--prompt", "Be brief.\n\nUser: Hello\nAssistant:", "-n", "12")
    bench.check("chat: as text: answer", text["text"].split("\nUser:")[0].startswith(once["turns"][0]["assistant"]), f"{text} {once}")
    bench.check("chat: nothing said", talk("chat: nothing said", "") == "", "something answered")
    for tokeniser, template in {"llama3": "llama3", "qwen": "chatml", "llama2": "plain"}.items():
        answer = json.loads(talk(f"chat: {tokeniser}", "Hi there\n<|im_end|>\n", "--json", "-n", "8", model=models[tokeniser]) or "{}")
        bench.check(f"chat: {tokeniser}: template", answer.get("template") == template and len(answer["turns"]) == 2, str(answer))
        said = answer["turns"][0]["assistant"]
        text = report(bench, f"chat: {tokeniser}: as text", "generate", models[tokeniser], "--prompt", WRITTEN[template], "-n", "8")["text"]
        bench.check(f"chat: {tokeniser}: as text: answer", text.split("\nUser:")[0] == said, f"{text!r} {said!r}")
        answer = json.loads(talk(f"chat: {tokeniser}, mistral", "Hi there\n", "--json", "--template", "mistral", "--system", "s", "-n", "4", model=models[tokeniser]) or "{}")
        bench.check(f"chat: {tokeniser}, mistral: template", answer.get("template") == "mistral", str(answer))


def tokenised(bench, models):
    """Models that have a tokeniser: text goes in and comes out."""
    text = bench.write("mixed.txt", "Hello wörld, it's 2024! 你好 😀\n".encode() * 20 + b"\xff\xfe damaged")
    for tokeniser, model in models.items():
        status, out, err = bench.run("eval", model, text, "--json")
        if status == 1 and "SentencePiece" in err and "build" in err:
            bench.skip(f"eval: {tokeniser}", "built without SentencePiece")
            continue
        answer = json.loads(out or "{}")
        bench.check(f"eval: {tokeniser}", status == 0 and list(answer) == EVAL_KEYS and answer["bits_per_byte"] > 1, f"{status} {err} {out}")
        bench.check(f"eval: {tokeniser}: not UTF-8", "U+FFFD" in err, err)
        answer = report(bench, f"generate: {tokeniser}", "generate", model, "--prompt", "Hello wörld", "-n", "16", "--seed", "4")
        shown = bench.works(f"generate: {tokeniser}: stream", "generate", model, "--prompt", "Hello wörld", "-n", "16", "--seed", "4")
        bench.check(f"generate: {tokeniser}: text", shown is not None and answer["text"] == shown, f"{answer} {shown!r}")


def refusals(bench, models):
    text = bench.write("few.txt", b"some words")
    for command, name, arguments, words, status in [
            ("generate", "no prompt", [MODEL], ["--prompt"], 2), ("generate", "two prompts", [MODEL, "-p", "a", "-f", text], ["--file"], 2),
            ("generate", "no model", [], ["MODEL"], 2), ("generate", "no such model", [bench.path("none"), "-p", "a"], ["none"], 1),
            ("generate", "a file as model", [text, "-p", "a"], ["few.txt"], 1), ("generate", "no such file", [MODEL, "-f", bench.path("none.txt")], ["none.txt"], 1),
            ("generate", "empty prompt", [MODEL, "-p", ""], ["prompt is empty"], 1), ("generate", "long prompt", [MODEL, "-p", "a" * 40, "--context", "40"], ["40 tokens", "--context"], 1),
            ("generate", "temperature", [MODEL, "-p", "a", "-t", "-1"], ["--temperature"], 2), ("generate", "top-p", [MODEL, "-p", "a", "--top-p", "1.5"], ["--top-p"], 2),
            ("generate", "top-p 0", [MODEL, "-p", "a", "--top-p", "0"], ["--top-p"], 2), ("generate", "top-k 0", [MODEL, "-p", "a", "--top-k", "0"], ["--top-k"], 2),
            ("generate", "nothing to draw", [MODEL, "-p", "a", "-t", "0", "--top-k", "4"], ["--top-k"], 2), ("generate", "tokens", [MODEL, "-p", "a", "-n", "0"], ["--tokens"], 2),
            ("generate", "dtype", [MODEL, "-p", "a", "--dtype", "f64"], ["--dtype"], 2), ("generate", "context", [MODEL, "-p", "a", "--context", "1"], ["--context"], 2),
            ("generate", "window alone", [MODEL, "-p", "a", "--window", "8"], ["--window"], 2), ("generate", "tolerance alone", [MODEL, "-p", "a", "--tolerance", "0.1"], ["--tolerance"], 2),
            ("generate", "attention", [MODEL, "-p", "a", "--attention", "best"], ["--attention"], 2),
            ("generate", "device", [MODEL, "-p", "a", "-d", "no such device"], ["no such device"], 1), ("chat", "no model", [], ["MODEL"], 2),
            ("chat", "template", [MODEL, "--template", "jinja"], ["--template"], 2), ("eval", "nothing to read", [MODEL], ["FILE"], 2),
            ("eval", "too much to read", [MODEL, text, "--needles", text], ["FILE"], 2), ("eval", "tokens alone", [MODEL, "--tokens", text], ["--logits"], 2),
            ("eval", "logits alone", [MODEL, text, "--logits", bench.path("new.safetensors")], ["--logits"], 2),
            ("eval", "three arguments", [MODEL, text, text], ["few.txt"], 2), ("eval", "no such file", [MODEL, bench.path("none.txt")], ["none.txt"], 1),
            ("eval", "one byte", [MODEL, bench.write("one.txt", b"a")], ["one.txt", "1 tokens"], 1), ("eval", "a folder", [MODEL, bench.folder], [bench.folder], 1),
            ("eval", "near-far of capped scores", [CAPPED, text, "--attention", "near-far"], ["attn_logit_softcapping", "exact and window"], 1),
            ("report", "capped scores", [CAPPED, text, "-o", bench.path("new.html")], ["attn_logit_softcapping"], 1),
            ("eval", "needles of text", [MODEL, "--needles", text], ["few.txt"], 1),
            ("eval", "output is a folder", [MODEL, "--tokens", text, "--logits", bench.folder], [bench.folder], 1)]:
        bench.refused(f"{command}: {name}", arguments, words, statuses=[status], command=command)
    tensors(bench)
    broken(bench, models)


def tensors(bench):
    ids, answers = np.full((2, 9), 65), np.array([[1, 4], [2, 3]])
    good = {"tokens": ("U8", ids), "answers": ("I32", answers)}
    for name, change, words in [
            ("no tokens", {"tokens": None}, ["tokens"]), ("no answers", {"answers": None}, ["answers"]), ("of F32", {"tokens": ("F32", ids)}, ["tokens", "F32"]),
            ("one dimension", {"tokens": ("U8", ids[0])}, ["tokens", "2 dimensions"]), ("rows", {"answers": ("I32", answers[:1])}, ["answers", "1 rows"]),
            ("at 0", {"answers": ("I32", answers * 0)}, ["answers", "[0, 0]"]), ("negative", {"answers": ("I32", -answers)}, ["answers", "[0, 0]"]),
            ("beyond the end", {"answers": ("I32", answers + 3)}, ["answers", "[0, 1]"]), ("outside the vocabulary", {"tokens": ("I32", ids + 200)}, ["tokens", "265"]),
            ("longer than the context", {"tokens": ("U8", np.full((2, 5000), 65))}, ["tokens", "5000", "4096", "--context"])]:
        file = bench.write("bad.safetensors", file_of({n: t for n, t in (good | change).items() if t}))
        bench.refused(f"eval: needles: {name}", [MODEL, "--needles", file], words, statuses=[1], command="eval")
    for name, content, words in [("none", {"x": ("I32", ids)}, ["input_ids"]), ("empty", {"input_ids": ("I32", np.zeros((0, 4)))}, ["input_ids"]),
                                 ("outside the vocabulary", {"input_ids": ("I32", ids + 256)}, ["input_ids", "321"]),
                                 ("longer than the context", {"input_ids": ("U8", np.full((1, 4097), 65))}, ["input_ids", "4097", "4096", "--context"])]:
        file = bench.write("bad.safetensors", file_of(content))
        bench.refused(f"eval: tokens: {name}", [MODEL, "--tokens", file, "--logits", bench.path("new.safetensors")], ["bad.safetensors", *words], statuses=[1], command="eval")


def broken(bench, models):
    """Tokenisers that do not fit."""
    folder = models["llama3"]
    path = folder / "tokenizer.json"
    whole = path.read_text()
    for name, text, word in [("cut", whole[:1000], "JSON"), ("another type", whole.replace('"type":"BPE"', '"type":"Lattice"'), "Lattice"),
                             ("no decoder", whole.replace('"decoder":{"type":"ByteLevel"', '"decoder":{"type":"CTC"'), "CTC"), ("empty", "", "JSON")]:
        path.write_text(text)
        bench.refused(f"tokeniser: {name}", [folder, "-p", "a"], ["tokenizer.json", word], statuses=[1], command="generate")
    path.unlink()
    bench.refused("tokeniser: none", [folder, "-p", "a"], ["neither tokenizer.json nor tokenizer.model"], statuses=[1], command="generate")
    out = bench.path("untold.safetensors")
    given = bench.write("ids.safetensors", file_of({"input_ids": ("I32", np.array([[699, 0, 300]]))}))
    bench.works("eval --logits: no tokeniser", "eval", folder, "--tokens", given, "--logits", out)
    bench.check("eval --logits: no tokeniser: shape", out.exists() and load(out)["logits"].shape == (1, 3, 700), "no logits")
    (folder / "tokenizer.model").write_bytes(b"no model at all")
    bench.refused("tokeniser: no SentencePiece", [folder, "-p", "a"], ["tokenizer.model"], statuses=[1], command="generate")


def run(bench):
    if not (MODEL / "model.safetensors").exists():
        bench.skip("language models", f"{MODEL} is not there")
        return
    models = {t: made_of_noise(bench, t, v) for t, v in {"llama3": 700, "qwen": 603, "llama2": 700, "sp_bpe": 600}.items()}
    evaluation(bench)
    generation(bench)
    conversation(bench, models)
    templates(bench, models)
    tokenised(bench, models)
    refusals(bench, models)
