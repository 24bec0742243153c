"""One attention, and one training, over several processes: ranks.py BINARY [PROGRAM]

Against one process's numbers, with two and three ranks and more ranks than rows; traffic as computed; what a rank that
dies, a full disk or a rank of other options leaves behind. PROGRAM (group.c) has a communicator of its own. All ranks
are on this machine.
"""
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

import numpy

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../python"))
import safetensors  # noqa: E402

LIMIT = 600  # seconds; a machine that others share may stand still for minutes
WORDS = {"F32": numpy.float32, "F16": numpy.float16}
MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none"]


class Bench:
    def __init__(self, binary):
        self.binary, self.folder = os.path.abspath(binary), tempfile.mkdtemp(prefix="clsplat-ranks-")
        self.environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        self.environment.setdefault("CLSPLAT_DEVICE", "Portable Computing")
        self.passed = self.failed = 0

    def path(self, name):
        return f"{self.folder}/{name}"

    def check(self, good, what):
        self.passed += bool(good)
        self.failed += not good
        if not good:
            print(f"FAIL: {what}")

    def run(self, words, timeout=LIMIT):
        return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=self.environment,
                              timeout=timeout, check=False, text=True)

    def clsplat(self, *words):
        answer = self.run([self.binary, *words])
        if answer.returncode:
            sys.exit(f"{words}: {answer.stderr}")

    def attend(self, ranks, problem, out, *more):
        return self.run([*MPIRUN, "-n", str(ranks), self.binary, "attend", problem, "-o", out, "--json", *more])


def save(path, tensors):
    """tensors: {name: (type, numbers)}"""
    header, data = {}, b""
    for name, (kind, numbers) in tensors.items():
        words = numbers.astype(WORDS[kind]).tobytes()
        header[name] = {"dtype": kind, "shape": list(numbers.shape), "data_offsets": [len(data), len(data) + len(words)]}
        data += words
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def load(path):
    with safetensors.safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def distance(a, b):
    """The largest relative norm of a difference; what is infinite must be in both."""
    worst = 0.0
    for name, x in a.items():
        x, y = x.astype(numpy.float64), b[name].astype(numpy.float64)
        if x.shape != y.shape or (numpy.isfinite(x) != numpy.isfinite(y)).any():
            return numpy.inf
        finite = numpy.isfinite(x)
        worst = max(worst, numpy.linalg.norm(x[finite] - y[finite]) / max(numpy.linalg.norm(x[finite]), 1e-30))
    return worst


def problem(path, queries, keys, heads=4, kv_heads=2, dim=16, value_dim=24, kind="F32", bias=False, seed=0):
    dice = numpy.random.default_rng(seed)
    tensors = {"q": (kind, dice.normal(size=(1, heads, queries, dim))), "k": (kind, dice.normal(size=(1, kv_heads, keys, dim))),
               "v": (kind, dice.normal(size=(1, kv_heads, keys, value_dim)))}
    if bias:
        weights = dice.normal(size=(1, kv_heads, keys))
        weights[..., ::3] = -numpy.inf
        tensors["key_bias"] = ("F32", weights)
    save(path, tensors)


FAR = ["--method", "near-far", "--chunk", "16", "--tolerance", "0.1"]
CASES = [  # queries, keys, options of the problem, ranks, words of the command
    (300, 300, {}, (2, 3), ["--causal"]),
    (257, 411, {"bias": True}, (2, 3), []),
    (190, 100, {"kind": "F16"}, (3,), ["--causal", "--scale", "0.5"]),  # rows that see no key
    (5, 3, {}, (4,), ["--causal"]),
    (300, 300, {}, (2, 3), ["--splats", "splats", "--causal"]),
    (257, 411, {"bias": True}, (2, 3), ["--splats", "splats", "--mixing", "per-level"]),
    (190, 100, {"kind": "F16"}, (3,), ["--splats", "splats", "--causal"]),
    (2, 7, {}, (4,), ["--splats", "splats", "--causal"]),
    (9, 2, {}, (3,), ["--splats", "splats", "--causal"]),
    (9, 2, {}, (3,), ["--splats", "splats"]),
    (700, 700, {"value_dim": 16}, (2, 3), [*FAR, "--causal"]),  # the same keys opened: exact_keys are compared with the rest
    (257, 411, {"bias": True}, (2, 3), FAR),
    (411, 257, {"bias": True}, (2, 3), [*FAR, "--causal"]),
    (9, 40, {"bias": True}, (4,), [*FAR, "--causal"]),
]


def check_numbers(bench):
    problem(bench.path("tokens"), 200, 200, heads=4, kv_heads=4)
    bench.clsplat("init", bench.path("tokens"), "-o", bench.path("splats"))
    for number, (queries, keys, options, counts, words) in enumerate(CASES):
        words = [bench.path(w) if w == "splats" else w for w in words]
        problem(bench.path("in"), queries, keys, seed=number, **options)
        bench.clsplat("attend", bench.path("in"), "-o", bench.path("one"), *words)
        for ranks in counts:
            name = f"{queries} queries, {keys} keys, {options}, {words}, {ranks} ranks"
            outs = [bench.path("many"), bench.path("again")]
            for out in outs:
                answer = bench.attend(ranks, bench.path("in"), out, *words)
                bench.check(answer.returncode == 0, f"{name}: {answer.stderr}")
                if answer.returncode:
                    break
            else:
                off = distance(load(bench.path("one")), load(outs[0]))
                bench.check(off <= 1e-6, f"{name}: off by {off:.2e}")
                with open(outs[0], "rb") as a, open(outs[1], "rb") as b:
                    bench.check(a.read() == b.read(), f"{name}: other bits the second time")


def sent(answer):
    return json.loads(answer.stdout)["ranks"]["sent"]


def check_traffic(bench):
    """The ring: every rank sends all blocks but one; splats: a rank's states, whatever the length."""
    for ranks in (2, 3):
        states = []
        for rows in (240, 480):
            problem(bench.path("in"), rows, rows)
            expected = (ranks - 1) * 2 * rows * (16 + 24) * 4
            got = sent(bench.attend(ranks, bench.path("in"), bench.path("out"), "--causal"))
            bench.check(got == expected, f"{ranks} ranks, {rows} rows: {got} bytes sent in the ring, not {expected}")
            states.append(sent(bench.attend(ranks, bench.path("in"), bench.path("out"), "--splats", bench.path("splats"))))
        bench.check(states[0] == states[1], f"{ranks} ranks: {states} bytes of states")


def check_plan(bench):
    """What a plan says is sent is what attention over ranks of that model's shape sends; other figures are there."""
    model = os.path.join(os.path.dirname(__file__), "../model/llama")
    with open(f"{model}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    heads, rows = config["num_attention_heads"], 240
    dim = config.get("head_dim", config["hidden_size"] // heads)
    problem(bench.path("in"), rows, rows, heads=heads, kv_heads=config["num_key_value_heads"], dim=dim, value_dim=dim)
    words = ["plan", model, "--context", str(rows), "--json"]
    answer = bench.run([*MPIRUN, "-n", "2", bench.binary, *words, "--devices", "1,2,3"])
    bench.check(answer.returncode == 0, f"plan: {answer.stderr[:400]}")
    report = json.loads(answer.stdout or "{}")
    plans = report.get("plans", [])
    good = len(plans) == 3 and report["network_measured"] and report["network_bytes_per_second"] > 0 and report["network_latency"] > 0
    good = good and all(p["seconds"] >= max(p["products_seconds"], p["attention_seconds"]) > 0 and p["memory_bytes"] > 0 for p in plans)
    bench.check(good and plans[0]["token_seconds"] > 0 and plans[0]["sent_bytes"] == 0, f"plan: {report}")
    for p in plans[1:]:
        answer = bench.attend(p["ranks"], bench.path("in"), bench.path("out"), "--causal")
        most = json.loads(answer.stdout)["ranks"]["sent_most"] * config["num_hidden_layers"]
        bench.check(p["sent_bytes"] == most, f"plan of {p['ranks']}: {p['sent_bytes']} bytes sent, not {most}")
    paper = bench.run([bench.binary, *words, "--devices", "8*H200,1024*H200", "--dtype", "bf16"])
    listed = json.loads(paper.stdout or "{}").get("plans", [])
    bench.check(len(listed) == 2 and "H200" in listed[0]["device"] and listed[1]["seconds"] > 0, f"plan by records: {paper.stderr[:300]}")
    for more, word, status in [(["--devices", "4*no such"], "no such", 1), (["--devices", "0"], "--devices", 2), (["--context", "x"], "--context", 2)]:
        answer = bench.run([bench.binary, *words, *more])
        bench.check(answer.returncode == status and word in answer.stderr, f"plan {more}: {answer.returncode}, {answer.stderr[:200]}")


LEARN = {"vocab_size": 256, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
         "attention": ["softmax", "splat"], "sliding_window": 12, "splats": 6, "splat_chunk": 8,
         "training": {"context": 32, "batch_size": 12, "steps": 6, "seed": 5, "schedule": "constant", "warmup": 0}}


def check_training(bench):
    """Learning together: one process's losses and weights, the same bits again, and on with another number of ranks."""
    for name, change, more in (("learn", {}, {}), ("other", {"learning_rate": 0.01}, {}), ("adapts", {}, {"adaptation": {"adaptation_frequency": 2}})):
        with open(bench.path(name), "w", encoding="utf-8") as file:
            json.dump(dict(LEARN, training=dict(LEARN["training"], **change), **more), file)

    def train(ranks, folder, *more):
        run = [] if ranks == 1 else [*MPIRUN, "-n", str(ranks)]
        begun = ["--resume"] if os.path.exists(bench.path(f"{folder}/training.safetensors")) else ["--config", bench.path("learn")]
        answer = bench.run([*run, bench.binary, "train", __file__, "-o", bench.path(folder), "--report", "0", *begun, *more])
        bench.check(answer.returncode == 0, f"train, {ranks} ranks, {more}: {answer.stderr[:400]}")

    def weights(folder):
        return load(bench.path(f"{folder}/model.safetensors"))

    for ranks, folder in ((1, "alone"), (2, "two"), (2, "twice"), (3, "three")):
        train(ranks, folder)
    train(3, "on", "--budget", "3")
    train(2, "on", "--budget", "6")
    for folder in ("two", "three", "on"):
        off = distance(weights("alone"), weights(folder))
        bench.check(off < 1e-4, f"train, {folder}: weights off by {off:.2e}")
    bench.check(distance(weights("two"), weights("twice")) == 0, "train: other bits the second time")
    words = ["train", __file__, "-o", bench.path("none"), "--config"]
    answer = bench.run([*MPIRUN, "-n", "5", bench.binary, *words, bench.path("learn")])
    bench.check(answer.returncode != 0 and "divide by 5" in answer.stderr, f"train, 5 ranks: {answer.stderr[:300]}")
    one, two = [bench.binary, *words, bench.path("learn")], [bench.binary, *words, bench.path("other")]
    answer = bench.run([*MPIRUN, "-n", "1", *one, ":", "-n", "1", *two])
    bench.check(answer.returncode != 0 and "training:" in answer.stderr, f"train, other settings: {answer.stderr[:300]}")
    bench.check(not os.path.exists(bench.path("none")), "train: a folder of a training that was refused")
    answer = bench.run([*MPIRUN, "-n", "2", bench.binary, "train", __file__, "-o", bench.path("adapted"), "--config", bench.path("adapts")])
    bench.check(answer.returncode != 0 and "adaptation.enable_adaptation" in answer.stderr, f"train, splats that adapt: {answer.stderr[:300]}")


def check_models(bench):
    """A model's keys and values over ranks: one process's tokens and bits per byte, with less memory each."""
    model = os.path.join(os.path.dirname(__file__), "../model/llama")
    windowed = os.path.join(os.path.dirname(__file__), "../model/gemma2")
    for name, text in (("text", b"abcdefgh" * 90), ("other text", b"abcdefgi" * 90)):
        with open(bench.path(name), "wb") as file:
            file.write(text)

    def answers(ranks, folder, *words):
        run = [] if ranks == 1 else [*MPIRUN, "-n", str(ranks)]
        found = []
        for command in (["generate", folder, "-f", bench.path("text"), "-n", "9"], ["eval", folder, bench.path("text")]):
            answer = bench.run([*run, bench.binary, *command, "--context", "900", "--json", *words])
            bench.check(answer.returncode == 0, f"{ranks} ranks, {command}: {answer.stderr[:400]}")
            found.append(json.loads(answer.stdout or "{}"))
        return found

    exactly = ["--attention", "near-far", "--tolerance", "0"]
    for folder, words in ((model, []), (windowed, ["--dtype", "bf16"]), (model, exactly)):
        one = answers(1, folder, *words)
        for ranks in (2, 3) if not words else (2,):
            many = answers(ranks, folder, *words)
            bench.check(many[0].get("text") == one[0]["text"], f"{folder}, {ranks} ranks, {words}: other words")
            off = abs(many[1].get("bits_per_byte", 9) - one[1]["bits_per_byte"])
            bench.check(off < (1e-3 if folder == windowed else 1e-5), f"{folder}, {ranks} ranks, {words}: {off} bits/byte off")
            less = many[0].get("session_bytes", 1e9) / one[0]["session_bytes"]
            bench.check(folder != model or less < 1 / ranks + 0.35, f"{ranks} ranks, {words}: {less:.2f} of a session each")
    one = ["generate", model, "-n", "9", "--context", "900", "-f", bench.path("text")]
    for first, second, word in [(one, one[:-1] + [bench.path("other text")], "text:"), (one, one + ["--dtype", "bf16"], "session:"),
                                (one + ["--attention", "window"],) * 2 + ("window",), (one, one[:-1] + [bench.path("no text")], "no text"),
                                (["eval", model, bench.path("text"), "--compare"],) * 2 + ("name a FILE",)]:
        answer = bench.run([*MPIRUN, "-n", "1", bench.binary, *first, ":", "-n", "1", bench.binary, *second])
        bench.check(answer.returncode != 0 and word in answer.stderr and not answer.stdout, f"{second} beside {first}: {answer.stderr[:300]}")


def check_refusals(bench):
    """What differs between ranks, or fails on one of them, is said once, and nothing is written."""
    problem(bench.path("in"), 60, 60)
    problem(bench.path("other"), 60, 61)
    one, two, out = ["attend", bench.path("in")], ["attend", bench.path("other")], ["-o", bench.path("out")]
    far = [*FAR, "--sparse-topk", "64"]
    cases = [(one + out, one + out + ["--causal"], "attention:"), (one + out, two + out, "k and v:"),
             (one + out, one + out + ["--splats", bench.path("splats")], "attention:"),
             (one + out, ["attend", bench.path("missing")] + out, "missing: cannot be opened"),
             (one + out, one + out + ["--device", "nothing"], "nothing"),
             (one + ["-o", bench.path("no/folder")], one + ["-o", bench.path("no/folder")], "no/folder"),
             (one + out + far, one + out + far, "sparse_topk"),
             (one + out + FAR, one + out + FAR + ["--causal"], "attention:"),
             (["embed", "x"], ["embed", "x"], "one process's work")]
    for first, second, words in cases:
        with open(bench.path("out"), "w", encoding="utf-8") as file:
            file.write("as before")
        begin = time.monotonic()
        answer = bench.run([*MPIRUN, "-n", "1", bench.binary, *first, ":", "-n", "1", bench.binary, *second])
        with open(bench.path("out"), encoding="utf-8") as file:
            good = answer.returncode != 0 and words in answer.stderr and file.read() == "as before"
        bench.check(good, f"{second} beside {first}: status {answer.returncode}: {answer.stderr[:300]}")
        bench.check(time.monotonic() - begin < LIMIT, "it took too long")


def check_full_disk(bench):
    """The first rank, which writes, may write files of 64 KiB only; kernels have been compiled by now."""
    problem(bench.path("in"), 600, 600)
    bench.attend(2, bench.path("in"), bench.path("out"))
    os.remove(bench.path("out"))
    words = [bench.binary, "attend", bench.path("in"), "-o", bench.path("out")]
    answer = bench.run([*MPIRUN, "-n", "1", "bash", "-c", 'ulimit -f 64; exec "$@"', "-", *words, ":", "-n", "1", *words])
    bench.check(answer.returncode != 0 and "File too large" in answer.stderr and not os.path.exists(bench.path("out")),
                f"a file that is too large: status {answer.returncode}: {answer.stderr[:300]}")


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        return [int(word) for word in f.read().split()]


def runs(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"  # nobody has asked how it ended
    except FileNotFoundError:
        return False


def check_death(bench):
    """One of three is killed in the middle: the others end, and what was there stays."""
    problem(bench.path("in"), 60000, 60000, heads=8, kv_heads=8, dim=64, value_dim=64)  # a minute of work for any CPU
    for victim in (0, 2):
        with open(bench.path("out"), "w", encoding="utf-8") as file:
            file.write("as before")
        words = [*MPIRUN, "-n", "3", bench.binary, "attend", bench.path("in"), "-o", bench.path("out")]
        with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=bench.environment, text=True) as job:
            ranks, begin = [], time.monotonic()
            while len(ranks) < 3 and time.monotonic() - begin < LIMIT:
                time.sleep(0.05)
                ranks = children(job.pid)
            time.sleep(3)
            os.kill(ranks[victim], signal.SIGKILL)
            begin = time.monotonic()
            said = job.communicate(timeout=LIMIT)[1]
            while any(runs(rank) for rank in ranks) and time.monotonic() - begin < LIMIT:
                time.sleep(0.05)
            took = time.monotonic() - begin
        with open(bench.path("out"), encoding="utf-8") as file:
            good = job.returncode == 128 + signal.SIGKILL and said and file.read() == "as before"
        bench.check(good and not any(runs(rank) for rank in ranks),
                    f"rank {victim} of 3 killed: status {job.returncode}, {good}: {said[-300:]}")
        print(f"rank {victim} of 3 killed: the others ended after {took:.1f} s")


def main():
    if not shutil.which("mpirun"):
        print("skipped: ranks: there is no mpirun")
        return 0
    bench = Bench(sys.argv[1])
    if "there is no MPI in it" in bench.run([*MPIRUN, "-n", "2", bench.binary, "attend", "x", "-o", "y"]).stderr:
        print("skipped: ranks: built without MPI")
        return 0
    check_numbers(bench)
    check_traffic(bench)
    check_plan(bench)
    check_training(bench)
    check_models(bench)
    check_refusals(bench)
    check_full_disk(bench)
    check_death(bench)
    for program in sys.argv[2:]:
        answer = bench.run([*MPIRUN, "-n", "3", program])
        bench.check(answer.returncode == 0 and not answer.stderr, f"a communicator of its own: {answer.stderr[:400]}")
    shutil.rmtree(bench.folder)
    print(f"ranks: {bench.passed} passed, {bench.failed} failed")
    return 1 if bench.failed else 0


if __name__ == "__main__":
    sys.exit(main())
