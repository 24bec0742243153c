"""What people meet: input that cannot be read, bytes that are no text, models that compute nonsense, folders that cannot be written,
memory that is short, narrow terminals."""
import json
import os
import re
import subprocess

import numpy as np

from good_paths import COMMANDS
from language import MODEL, made_of_noise
from tensors import file_of, problem


def talk(bench, model, lines, *flags, **options):
    p = subprocess.run([bench.binary, "chat", model, *map(str, flags)], input=lines, capture_output=True, timeout=300, **options)
    return p.returncode, p.stdout, p.stderr.decode(errors="replace")


def narrow(bench):
    """One line begins with every option, and none is wider than the terminal but where a name has to be."""
    for command in COMMANDS:
        for width in (50, 80):
            text = bench.works(f"{command} --help, {width} columns", command, "--help", env=dict(os.environ, COLUMNS=str(width))) or ""
            wide = [line for line in text.splitlines() if len(line) > width and not line.startswith("usage: ")]
            bench.check(f"{command} --help, {width} columns: width", not wide, str(wide))
            for option in set(re.findall(r"--[a-z-]+", " ".join(COMMANDS[command]))) | {"--json", "--help"}:
                bench.check(f"{command} --help, {width} columns: {option}", re.search(rf"(?m)^  (-.,|   ) {option}\b", text), "is no line's")


def unreadable(bench):
    folder = os.open(bench.folder, os.O_RDONLY)
    status, out, err = bench.run("generate", MODEL, "-f", "-", stdin=folder)
    bench.check("generate: a folder as standard input", status == 1 and not out and "standard input" in err, f"{status} {err}")
    status, out, err = bench.run("chat", MODEL, stdin=folder)
    bench.check("chat: a folder as standard input", status == 1 and not out and "standard input" in err, f"{status} {err}")
    os.close(folder)
    bench.refused("generate: no prompt there", [MODEL, "-f", bench.path("none.txt")], ["none.txt"], statuses=[1], command="generate")
    out = json.loads(bench.works("generate: a file of unknown size", "generate", MODEL, "-f", "/proc/version", "-n", "1", "--json") or "{}")
    with open("/proc/version", "rb") as f:
        bench.check("generate: a file of unknown size: tokens", out.get("prompt_tokens") == len(f.read()), str(out))


def no_text(bench):
    """A model of bytes; JSON holds UTF-8 only."""
    said = b"caf\xe9\nwith\0nul\nnext\n"
    status, out, err = talk(bench, MODEL, said, "--json", "-n", "3")
    turns = [t["user"] for t in json.loads(out)["turns"]] if status == 0 else []
    bench.check("chat: no text: turns", turns == ["caf\ufffd", "with\0nul", "next"], f"{status} {err} {turns}")
    status, out, _ = talk(bench, MODEL, b"one\n" + b"x" * 9000 + b"\n", "--json", "-n", "2")
    turns = json.loads(out)["turns"] if out else []
    bench.check("chat: a turn that fails", status == 1 and [t["user"][:3] for t in turns] == ["one", "xxx"] and len(turns[0]["assistant"]) > 0, f"{status} {turns}")


def broken_numbers(bench):
    """Weights of float32 that float16 cannot follow, and one that is no number."""
    folder = made_of_noise(bench, "sp_bpe", 600) if not bench.path("model-sp_bpe").exists() else bench.path("model-sp_bpe")
    whole = (folder / "model.safetensors").read_bytes()
    header = int.from_bytes(whole[:8], "little")
    at = json.loads(whole[8:8 + header])["model.norm.weight"]["data_offsets"][0] + 8 + header
    (folder / "model.safetensors").write_bytes(whole[:at] + np.float32(np.nan).tobytes() + whole[at + 4:])
    (folder / "tokenizer.model").unlink()
    ids = bench.write("ids.safetensors", file_of({"input_ids": ("I32", np.arange(8)[None])}))
    bench.refused("eval: NaN", [folder, "--tokens", ids, "--logits", bench.path("new.safetensors")], ["finite", "[0, 0, 0]"], statuses=[1], command="eval")
    q = {n: (t, np.full_like(v, 3e38) if n in "qk" else v) for n, (t, v) in problem().items()}
    bench.refused("attend: beyond float32", [bench.write("huge.safetensors", file_of(q)), "-o", bench.path("new.safetensors")], ["finite", "huge.safetensors"], statuses=[1])
    (folder / "model.safetensors").write_bytes(whole)


def short_memory(bench):
    """bytelm-4m keeps 4 KiB of keys and values a token or so: --memory bounds them."""
    plain = json.loads(bench.works("generate --json", "generate", MODEL, "-p", "def f(x):", "-n", "40", "--json") or "{}")
    limit = plain["session_bytes"] * 2 // 3
    less = json.loads(bench.works("generate --memory", "generate", MODEL, "-p", "def f(x):", "-n", "40", "--memory", str(limit), "--json") or "{}")
    bench.check("generate --memory: ends", less["end"] == "memory" and 0 < less["tokens"] < 40 and less["session_bytes"] <= limit, str(less))
    bench.check("generate --memory: text", plain["text"].startswith(less["text"]), f"{plain} {less}")
    for size, status, word in [("1K", 1, "--memory"), ("0", 2, "--memory"), ("many", 2, "--memory"), ("5X", 2, "--memory"), ("-3M", 2, "--memory")]:
        bench.refused(f"generate --memory {size}", [MODEL, "-p", "def f(x):", "--memory", size], [word], statuses=[status], command="generate")
    lines = "".join(f"turn {i} and some more words of it\n" for i in range(12)).encode()
    status, out, err = talk(bench, MODEL, lines, "--json", "-n", "8", "--memory", "2M", "--system", "Be brief.")
    answer = json.loads(out) if status == 0 else {}
    bench.check("chat --memory: all turns", len(answer.get("turns", [])) == 12, f"{status} {err}")
    bench.check("chat --memory: forgets", answer.get("forgotten_turns", 0) > 0 and answer["session_bytes"] <= 2 << 20 and "forgotten" in err, f"{answer} {err}")
    again = talk(bench, MODEL, lines, "--json", "-n", "8", "--memory", "1G", "--system", "Be brief.")
    whole = json.loads(again[1])
    bench.check("chat --memory: enough", whole["forgotten_turns"] == 0 and whole["turns"][:2] == answer["turns"][:2], str(whole)[:400])
    status, _, err = talk(bench, MODEL, b"x" * 5000 + b"\n", "--memory", "2M")
    bench.check("chat --memory: one turn too long", status == 1 and "--memory" in err, f"{status} {err}")


def unwritable(bench):
    """PoCL has no device, or compiles nothing, where it cannot write: the command lends it a folder and takes it back."""
    given = bench.write("in.safetensors", file_of(problem()))
    lent = bench.path("lent")
    lent.mkdir(exist_ok=True)
    for folder in ("/dev/null", "/proc/nowhere"):
        environment = dict(os.environ, POCL_CACHE_DIR=folder, CLSPLAT_CACHE="off", TMPDIR=str(lent))
        bench.works(f"POCL_CACHE_DIR={folder}", "attend", given, "-o", bench.path("out.safetensors"), env=environment)
        bench.check(f"POCL_CACHE_DIR={folder}: nothing stays", not list(lent.iterdir()), str(list(lent.iterdir())))
    status, _, err = bench.run("devices", env=dict(os.environ, POCL_CACHE_DIR="/proc/nowhere", TMPDIR="/proc", OCL_ICD_VENDORS="/etc/OpenCL/vendors/pocl.icd"))
    bench.check("PoCL without any folder", status == 0 or "POCL_CACHE_DIR" in err, f"{status} {err}")


def run(bench):
    narrow(bench)
    unwritable(bench)
    if not (MODEL / "model.safetensors").exists():
        bench.skip("language models in the field", f"{MODEL} is not there")
        return
    unreadable(bench)
    no_text(bench)
    short_memory(bench)
    broken_numbers(bench)
