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

    shown = [["compare", golden, golden], ["devices"], ["init", golden, "-o", out], ["presets"], ["plan", LLAMA, "--context", "8"],
             ["convert", f"{TESTS}/model/gguf/mixed.gguf", "-o", h.path("full.gguf")], ["generate", LLAMA, "-p", "a", "--tokens", "1"]]
    with open("/dev/full", "wb") as full:
        for words in [["--help"], ["attend", "--help"], ["--version"]] + [words + ["--json"] for words in shown]:
            told(f"{' '.join(words)} on a full disk", "No space left on device", *words, stdout=full)
    told("no more files", "ulimit -n", "attend", golden, "-o", out, limit=(resource.RLIMIT_NOFILE, (4, 4)))
    for size in (60000, 120000):
        told(f"{size} KB of memory", "ulimit -v", "attend", golden, "-o", out, limit=(resource.RLIMIT_AS, (size << 10, size << 10)))
    # /proc takes no files from anybody, root included
    told("a home that is read-only", "cannot be written", "attend", golden, "-o", out, status=0,
         environment={"HOME": "/proc", "XDG_CACHE_HOME": ""})
    told("a cache that is read-only", "Mend the folder", "attend", golden, "-o", out, status=0, environment={"XDG_CACHE_HOME": "/proc/x"})


def full_disks(h):
    """A file system without room, of this process alone: whose folder it is that is full is said, and work goes on without."""
    golden, folder = f"{TESTS}/golden/softmax-padding/input.safetensors", h.path("full")
    os.makedirs(folder)
    script = 'mount -t tmpfs -o size=64k none "$0" && { cat /dev/zero > "$0/fill"; "$@"; s=$?; ls "$0"; exit $s; }'

    def run(*words, **environment):
        return subprocess.run(["unshare", "-rm", "sh", "-c", script, folder, h.binary, *words], capture_output=True, text=True, timeout=1800,
                              env=dict(os.environ, **environment))

    if run("--version").returncode != 0:
        print("skipped: a full disk: no file system of one's own is to be had here")
        return
    cache = run("attend", golden, "-o", h.path("a"), XDG_CACHE_HOME=folder)
    h.check("a full cache", cache.returncode == 0 and "No space left on device. Mend the folder" in cache.stderr, cache.stderr)
    pocl = run("attend", golden, "-o", h.path("b"), "--verbose", POCL_CACHE_DIR=folder, CLSPLAT_CACHE="off")
    h.check("PoCL's folder is full", pocl.returncode == 0 and f"PoCL cannot work in its folder {folder}: No space left" in pocl.stderr, pocl.stderr)
    out = run("attend", golden, "-o", f"{folder}/out.safetensors")
    h.check("the output's disk is full", out.returncode == 1 and "No space left on device" in out.stderr and out.stdout.split() == ["fill"],
            out.stdout + out.stderr)


def drivers_cache(h):
    """PoCL believes what it finds in its folder: where it goes on with that, the folder is named."""
    golden, folder = f"{TESTS}/golden/softmax-padding/input.safetensors", h.path("pocl")
    where = {"POCL_CACHE_DIR": folder, "CLSPLAT_CACHE": "off"}
    h.run("attend", golden, "-o", h.path("c"), environment=where)
    programs = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names if name.endswith(".bc")]
    for program in programs:
        os.truncate(program, 0)
    if programs:
        out = h.run("attend", golden, "-o", h.path("d"), environment=where)
        h.check("PoCL's folder is damaged", out.returncode == 1 and f"its folder {folder} is damaged" in out.words, out.words)
    else:
        print("skipped: a damaged folder of PoCL: it has no programs")


def pages(h):
    """What stands in a report's sources is words on the page, nothing else."""
    evil = "</script><img src=x onerror=alert(1)>\x1b[2J"
    history = {"cycle": 1, "decision": evil, "kept": True, "layer": 0, "head": 0, "level": evil, "from": [evil], "to": [1], "age": 1,
               "error_before": 1, "error_after": 0.5, "reason": {evil: evil}}
    log = {"step": 1, "loss": evil, "rate": 1e300, "seconds": -1e308, evil: evil}
    named = h.path("<img src=x onerror=alert(1)>.safetensors")
    shutil.copy(f"{TESTS}/golden/diagonal-joint/splats.safetensors", named)
    for name, lines in (("history", history), ("log", log)):
        with open(h.path(f"{name}.jsonl"), "w", encoding="utf-8") as f:
            f.write((json.dumps(lines) + "\n") * 3)
    for source in (h.path("history.jsonl"), h.path("log.jsonl"), named):
        page = h.path("page.html")
        out = h.run("report", source, "-o", page)
        with open(page, "rb") as f:
            words = f.read()
        h.check(f"a page of {os.path.basename(source)}", out.returncode == 0 and words and b"<img" not in words and b"\x1b" not in words
                and words.count(b"</script>") == words.count(b"<script"), out.words)
        os.remove(page)


def estimates(h):
    """Numbers that nobody has: refused, or told as they are."""
    def real(value):
        return all(map(real, value.values() if isinstance(value, dict) else value)) if isinstance(value, (dict, list)) \
            else not isinstance(value, (int, float)) or value >= 0

    most, beyond = str(2**63 - 1), str(2**64)
    for words in (["--tokens", most], ["--dim", most, "--tokens", most], ["--heads", most], ["--value-dim", most]):
        out = h.run("presets", "--json", *words)
        h.check(f"presets {words}", out.returncode == 0 and real(json.loads(out.stdout)), out.words)
    for words in (["--context", most], ["--context", "64", "--devices", most]):
        out = h.run("plan", LLAMA, "--json", *words)
        h.check(f"plan {words}", out.returncode in (0, 1) and (out.words or real(json.loads(out.stdout))), out.words)
    for words in (["presets", "--heads", beyond], ["presets", "--dim", "-1"], ["plan", LLAMA, "--context", beyond],
                  ["plan", LLAMA, "--context", "8", "--network", "nan"], ["plan", LLAMA, "--context", "8", "--devices", "0"]):
        out = h.run(*words)
        h.check(f"{words}", out.returncode == 2 and out.words.startswith("clsplat"), f"status {out.returncode}: {out.words}")


def trained(h):
    """Configurations to train by, in bounded time; nothing is left of what never began."""
    config = {"vocab_size": 256, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 32,
              "attention": ["softmax"]}
    settings = {"context": 32, "batch_size": 1, "steps": 1}
    with open(h.path("learned"), "w", encoding="utf-8") as f:
        f.write("a line\n" * 9)
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size", "sliding_window", "splats",
                "context", "batch_size"):
        place = dict(settings) if key in settings else dict(config)
        place[key] = 10**18
        whole = dict(config, training=place) if key in settings else dict(place, training=settings)
        with open(h.path("learn.json"), "w", encoding="utf-8") as f:
            json.dump(whole, f)
        h.refuse(f"train: {key} 1e18", "train", h.path("learned"), "-o", h.path("begun"), "--config", h.path("learn.json"))
        h.check(f"train: {key} 1e18: nothing is left", not os.path.exists(h.path("begun")))


def main():
    h = Hostile(sys.argv[1])
    for part in (sizes, greedy_models, bombs, terminal, links, limits, full_disks, drivers_cache, pages, estimates, trained):
        part(h)
    shutil.rmtree(h.folder, ignore_errors=True)
    print(f"hostile: {h.passed} passed, {len(h.failed)} failed")
    return 1 if h.failed or not h.passed else 0


if __name__ == "__main__":
    sys.exit(main())
