"""Hours of the same: long.py BINARY PROGRAM [--train SECONDS]

PROGRAM (tests/trust/long.c) calls attend 10,000 times and writes 100,000 tokens; here `clsplat chat` has 200 turns, its memory
looked at as they pass, and has them twice: the answers must be the same. `clsplat train` learns for an hour (--train: for less):
its losses stay numbers and fall, and what ten steps make before it they make after it, to the bit. Memory may grow by 64 MiB
after a fifth of the way.
"""
import json
import os
import subprocess
import sys
import tempfile
import time

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TURNS, ALLOWANCE, HOUR = 200, 64 << 20, 3600
LEARN = {"vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 128,
         "attention": ["softmax", "splat", "near_far"], "sliding_window": 16, "splats": 12, "splat_chunk": 16, "near_far_chunk": 16,
         "training": {"context": 64, "batch_size": 4, "seed": 5}}


def resident(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")  # 0 once it has ended


def converse(binary):
    """(the answers, memory after a fifth and at the end)"""
    words = [binary, "chat", f"{TESTS}/model/llama", "--tokens", "8", "--context", "512", "--memory", "1M"]
    lines = b"".join(b"turn %d: and then?\n" % turn for turn in range(TURNS))
    with tempfile.TemporaryFile() as said, subprocess.Popen(words, stdin=subprocess.PIPE, stdout=said, stderr=subprocess.DEVNULL) as chat:
        chat.stdin.write(lines)
        chat.stdin.close()
        memory = [resident(chat.pid)]
        while chat.poll() is None:
            time.sleep(0.002)
            memory.append(resident(chat.pid) or memory[-1])
        said.seek(0)
        return said.read(), memory[len(memory) // 5], memory[-1], chat.wait()


def learn(binary, folder, budget):
    """(the weights, the losses, memory after a fifth and at the end, the status)"""
    config = f"{folder}/config"
    with open(config, "w", encoding="utf-8") as f:
        json.dump(LEARN, f)
    out = tempfile.mkdtemp(dir=folder)
    words = [binary, "train", __file__, "-o", out, "--config", config, "--budget", budget, "--report", "1"]
    memory = []
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as train:
        while train.poll() is None:
            time.sleep(0.1)
            memory.append(resident(train.pid) or (memory or [0])[-1])
    with open(f"{out}/log.jsonl", encoding="utf-8") as f:
        losses = [json.loads(line)["loss"] for line in f]
    with open(f"{out}/model.safetensors", "rb") as f:
        return f.read(), losses, memory[len(memory) // 5], memory[-1], train.returncode


def check_training(binary, seconds):
    with tempfile.TemporaryDirectory() as folder:
        first = learn(binary, folder, "10")[0]
        _, losses, settled, end, status = learn(binary, folder, f"{seconds}s")
        again = learn(binary, folder, "10")[0]
    print(f"train: {seconds} s, loss {losses[0]:.3f} and {losses[-1]:.3f}, {settled >> 20} MiB after a fifth, {end >> 20} MiB at the end, "
          f"status {status}")
    return status == 0 and first == again and losses[-1] < losses[0] and end <= settled + ALLOWANCE


def main():
    binary, program = sys.argv[1:3]
    seconds = int(sys.argv[sys.argv.index("--train") + 1]) if "--train" in sys.argv else HOUR
    failed = subprocess.run([program], check=False).returncode != 0
    first, settled, end, status = converse(binary)
    again = converse(binary)[0]
    print(f"chat: {TURNS} turns, {settled >> 20} MiB after a fifth, {end >> 20} MiB at the end, status {status}")
    good = status == 0 and first == again and end <= settled + ALLOWANCE
    print(f"chat: {int(good)} passed, {int(not good)} failed")
    learned = check_training(binary, seconds)
    print(f"train: {int(learned)} passed, {int(not learned)} failed")
    return 1 if failed or not good or not learned else 0


if __name__ == "__main__":
    sys.exit(main())
