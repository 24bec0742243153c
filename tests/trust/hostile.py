"""Files made to do harm: hostile.py BINARY

Sizes that overflow, models that ask for 1e18 bytes, tokenizers that grow without end, patterns that never come to an end,
control sequences for the terminal, links planted in shared folders. Each must be refused, or answered, within bounded time
and memory, in words, and nothing outside of the output may be touched.
"""
import json
import os
import pty
import resource
import shutil
import struct
import subprocess
import sys
import tempfile

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LLAMA = f"{TESTS}/model/llama"
GPT2 = f"{TESTS}/model/tokenizers/gpt2"
SECONDS, GIB = 120, 1 << 30  # of processor time; a machine that others share may take longer by the clock


class Hostile:
    def __init__(self, binary):
        self.binary, self.folder = os.path.abspath(binary), tempfile.mkdtemp(prefix="clsplat-hostile-")
        self.passed, self.failed = 0, []

    def check(self, name, good, why=""):
        self.passed += bool(good)
        if not good:
            self.failed.append(name)
            print(f"FAIL: {name}: {why[-300:]}", flush=True)

    def run(self, *words, environment={}, memory=None):
        def limit():
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            if memory:
                resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        begin = resource.getrusage(resource.RUSAGE_CHILDREN)
        out = subprocess.run([self.binary, *words], capture_output=True, timeout=1800, preexec_fn=limit,
                             env=dict(os.environ, **environment))
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        out.seconds, out.words = end.ru_utime - begin.ru_utime, out.stderr.decode("utf-8", "replace")
        return out

    def refuse(self, name, *words, within=20, **more):
        out = self.run(*words, **more)
        self.check(name, out.returncode == 1 and out.words.startswith("clsplat") and out.seconds < within,
                   f"status {out.returncode}, {out.seconds:.1f} s: {out.words}")

    def path(self, name):
        return os.path.join(self.folder, name)

    def tensors(self, name, header, data=b"", length=None):
        header = header if isinstance(header, bytes) else json.dumps(header).encode()
        with open(self.path(name), "wb") as f:
            f.write(struct.pack("<Q", len(header) if length is None else length) + header + data)
        return self.path(name)

    def model(self, name, config={}, files={}):
        shutil.copytree(LLAMA, self.path(name))
        with open(f"{LLAMA}/config.json") as f:
            whole = dict(json.load(f), **config)
        with open(self.path(f"{name}/config.json"), "w") as f:
            json.dump(whole, f)
        for file, content in files.items():
            with open(self.path(f"{name}/{file}"), "w") as f:
                f.write(content)
        return self.path(name)


def sizes(h):
    out = h.path("out.safetensors")
    for n, length in enumerate((2**64 - 1, 2**63, 2**64 - 8, 10**18)):
        h.refuse(f"a header of {length} bytes", "attend", h.tensors(f"header{n}.safetensors", {}, length=length), "-o", out)
    for n, shape in enumerate(([2**62, 4], [2**32, 2**32], [2**63, 2], [10**18], [1, 1, 2**61, 8], [2**64, 1])):
        entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 16]}
        h.refuse(f"a tensor of {shape}", "attend", h.tensors(f"shape{n}.safetensors", {"q": entry, "k": entry, "v": entry}, bytes(16)),
                 "-o", out)
    for n, span in enumerate(([0, 2**64 - 1], [2**63, 2**63 + 16], [16, 0], [2**64 - 16, 0], [-16, 0])):
        entry = {"dtype": "F32", "shape": [1, 1, 2, 2], "data_offsets": span}
        h.refuse(f"a tensor at {span}", "attend", h.tensors(f"span{n}.safetensors", {"q": entry, "k": entry, "v": entry}, bytes(16)),
                 "-o", out)
    deep = b"[" * 200000
    h.refuse("a header of nested lists", "attend", h.tensors("deep.safetensors", deep), "-o", out)
    h.check("no output was made", not os.path.exists(out))


def greedy_models(h):
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "intermediate_size",
                "max_position_embeddings", "num_key_value_heads", "head_dim"):
        for value in (10**18, 2**63 - 1, 2**31):
            if key == "max_position_embeddings" and value == 2**31:
                continue
            h.refuse(f"{key} {value}", "generate", h.model(f"{key}{value}", {key: value}), "-p", "x", "--tokens", "1",
                     "--context", "8" if key != "max_position_embeddings" else str(10**17))
    h.refuse("a session of 1e9 tokens", "generate", LLAMA, "-p", "x", "--context", "1000000000", "--tokens", "999999999")


def tokenizer(change):
    with open(f"{GPT2}/tokenizer.json") as f:
        whole = json.load(f)
    change(whole)
    return json.dumps(whole)


def bombs(h):
    def split(pattern):
        def change(t):
            t["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}
        return change

    def grow(t):
        t["normalizer"] = {"type": "Sequence", "normalizers": [
            {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100}] * 12}

    with open(f"{GPT2}/tokenizer.json") as f:
        size = 1 + max(json.load(f)["model"]["vocab"].values())
    config = {"vocab_size": max(size, 256)}
    text = "a" * 5000 + "!"
    for name, change in (("a pattern without end", split("(a+)+$")), ("one in another form", split("(?:a|a)*b")),
                         ("a pattern of 10^9 letters", split("(((a{1000}){1000}){1000})")), ("100^12 letters", grow)):
        folder = h.model(name.replace(" ", "-"), config, {"tokenizer.json": tokenizer(change)})
        h.refuse(name, "generate", folder, "-p", text, "--tokens", "1", within=60, memory=24 * GIB)
    nest = '{"a":' * 100000 + "1" + "}" * 100000
    h.refuse("nested JSON", "generate", h.model("nested", {}, {"config.json": nest}), "-p", "x")


def on_terminal(h, *words):
    """What reaches a terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen([h.binary, *words], stdout=slave, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    os.close(slave)
    seen = b""
    try:
        while part := os.read(master, 65536):
            seen += part
    except OSError:  # the other end is closed
        pass
    os.close(master)
    process.wait()
    return seen


def terminal(h):
    words = ["generate", LLAMA, "-p", "abc", "--tokens", "60", "--temperature", "50", "--seed", "1", "--context", "64"]
    control = lambda s: [c for c in s if (c < 32 and c not in b"\t\r\n") or c == 127]
    shown, raw = on_terminal(h, *words), on_terminal(h, *words, "--raw")
    h.check("a model does not control the terminal", shown and not control(shown), repr(shown))
    h.check("unless it may", control(raw), repr(raw))
    name = "q\x1b]0;pwned\x07\x9b31m"
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    file = h.tensors("escape.safetensors", {name: entry}, bytes(4))
    seen = on_terminal(h, "compare", file, file)
    h.check("a tensor's name does not control the terminal", seen and not control(seen) and b"\xc2\x9b" not in seen, repr(seen))
    out = h.run("attend", h.tensors("\x1b[2J.safetensors", {name: entry}, bytes(4)), "-o", h.path("o"))
    h.check("nor does a file's in an error", out.returncode == 1 and not control(out.stderr) and b"\xc2\x9b" not in out.stderr,
            out.words)


def links(h):
    """A shared folder in which somebody has planted links to what the victim holds dear."""
    dear, out = h.path("dear"), h.path("planted.safetensors")
    with open(dear, "w") as f:
        f.write("dear")
    golden = f"{TESTS}/golden/softmax-padding/input.safetensors"
    cache = h.path("xdg/clsplat")
    os.makedirs(cache)
    first = h.run("attend", golden, "-o", h.path("first"), environment={"XDG_CACHE_HOME": h.path("xdg")})
    entries = [e for e in os.listdir(cache) if e.endswith(".bin")]
    h.check("a cache is filled", first.returncode == 0 and entries, first.words)
    for entry in entries:
        os.remove(f"{cache}/{entry}")
        os.symlink(dear, f"{cache}/{entry}")
    os.symlink(dear, f"{out}.1-0.tmp")
    os.utime(f"{out}.1-0.tmp", (0, 0), follow_symlinks=False)
    second = h.run("attend", golden, "-o", out, environment={"XDG_CACHE_HOME": h.path("xdg")})
    h.check("links in a cache do no harm", second.returncode == 0, second.words)
    with open(dear, errors="replace") as f:
        h.check("what links point to stays", f.read() == "dear")
    os.chmod(cache, 0o777)
    before = sorted(os.listdir(cache))
    third = h.run("attend", f"{TESTS}/golden/softmax-causal-gqa/input.safetensors", "-o", h.path("third"),
                  environment={"XDG_CACHE_HOME": h.path("xdg")})
    h.check("a folder where anybody writes is no cache", third.returncode == 0 and "anybody may write" in third.words
            and sorted(os.listdir(cache)) == before, third.words)
    h.check("links are not swept", os.path.islink(f"{out}.1-0.tmp"))


def limits(h):
    """What the machine does not give is named, not blamed on a driver."""
    golden, out = f"{TESTS}/golden/softmax-padding/input.safetensors", h.path("limits.safetensors")

    def told(name, word, *words, status=1, environment={}, limit=None, stdout=subprocess.DEVNULL):
        ends = (lambda: resource.setrlimit(*limit)) if limit else None
        run = subprocess.run([h.binary, *words], stdout=stdout, stderr=subprocess.PIPE, timeout=1800, preexec_fn=ends,
                             env=dict(os.environ, **environment))
        text = run.stderr.decode("utf-8", "replace")
        h.check(name, run.returncode == status and word in text, f"status {run.returncode}: {text}")

    with open("/dev/full", "wb") as full:
        for words in (["--help"], ["attend", "--help"], ["--version"]):
            told(f"{' '.join(words)} on a full disk", "No space left on device", *words, stdout=full)
    told("no more files", "ulimit -n", "attend", golden, "-o", out, limit=(resource.RLIMIT_NOFILE, (4, 4)))
    for size in (60000, 120000):
        told(f"{size} KB of memory", "ulimit -v", "attend", golden, "-o", out, limit=(resource.RLIMIT_AS, (size << 10, size << 10)))
    # /proc takes no files from anybody, root included; what is full is tests/trust/disk.c's
    told("a home that is read-only", "cannot be written", "attend", golden, "-o", out, status=0,
         environment={"HOME": "/proc", "XDG_CACHE_HOME": ""})
    told("a cache that is read-only", "Mend the folder", "attend", golden, "-o", out, status=0, environment={"XDG_CACHE_HOME": "/proc/x"})


def main():
    h = Hostile(sys.argv[1])
    for part in (sizes, greedy_models, bombs, terminal, links, limits):
        part(h)
    shutil.rmtree(h.folder, ignore_errors=True)
    print(f"hostile: {h.passed} passed, {len(h.failed)} failed")
    return 1 if h.failed or not h.passed else 0


if __name__ == "__main__":
    sys.exit(main())
