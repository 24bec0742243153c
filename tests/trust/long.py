"""Hours of the same: long.py BINARY PROGRAM

PROGRAM (tests/trust/long.c) calls attend 10,000 times and writes 100,000 tokens; here `clsplat chat` has 200 turns, its memory
looked at as they pass, and has them twice: the answers must be the same. Memory may grow by 64 MiB after a fifth of the way.
"""
import os
import subprocess
import sys
import tempfile
import time

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TURNS, ALLOWANCE = 200, 64 << 20


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


def main():
    binary, program = sys.argv[1:3]
    failed = subprocess.run([program], check=False).returncode != 0
    first, settled, end, status = converse(binary)
    again = converse(binary)[0]
    print(f"chat: {TURNS} turns, {settled >> 20} MiB after a fifth, {end >> 20} MiB at the end, status {status}")
    good = status == 0 and first == again and end <= settled + ALLOWANCE
    print(f"chat: {int(good)} passed, {int(not good)} failed")
    return 1 if failed or not good else 0


if __name__ == "__main__":
    sys.exit(main())
