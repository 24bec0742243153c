#!/usr/bin/env python3
"""Kills `clsplat tune` in the middle: test_kill.py CLSPLAT

What was being tried is tried once more, and after a second time never again; what had been found is kept. While one process tunes, another is refused.
"""
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 300  # seconds to wait for anything
SHAPE = "1,2,192,192,32,32,64"


def fields(line):
    return dict(field.split("=", 1) for field in line.strip().split("; "))


def records(path):
    lines = path.read_text().splitlines() if path.exists() else []
    return [fields(line) for line in lines if line and not line.startswith("#")]


def candidate(record):
    return record["op"], record["variant"], record["parameters"]


class Test:
    def __init__(self, binary, folder):
        self.binary, self.passed, self.failed = binary, 0, 0
        self.environment = dict(os.environ, XDG_DATA_HOME=str(folder))
        self.journal = folder / "clsplat" / "trying.txt"
        self.records = folder / "clsplat" / "tuning.txt"
        self.suspects = folder / "clsplat" / "suspects.txt"

    def check(self, name, good, why=""):
        self.passed += bool(good)
        self.failed += not good
        if not good:
            print(f"FAIL {name}: {why}", flush=True)

    def start(self, budget):
        command = [self.binary, "tune", "--op", "softmax", "--shape", SHAPE, "--budget", str(budget), "--verbose"]
        return subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def kill_while_trying(self, process, known):
        """What the journal held when the process was gone: something that no run before was stopped at."""
        end = time.time() + LIMIT
        while time.time() < end and process.poll() is None:
            if records(self.records) and self.journal.read_text().endswith("\n"):
                process.send_signal(signal.SIGSTOP)
                left = self.journal.read_text()
                if left.endswith("\n") and candidate(fields(left)) not in known:
                    process.kill()
                    process.communicate()
                    return fields(left)
                process.send_signal(signal.SIGCONT)
            time.sleep(0.002)
        process.kill()
        process.communicate()
        return None

    def run(self):
        killed = []
        for round_ in range(2):
            process = self.start(600)
            left = self.kill_while_trying(process, [candidate(k) for k in killed])
            self.check(f"round {round_}: killed while it tried something", left is not None, "it ended before")
            if left is None:
                return
            killed.append(left)
            kept = [r for r in records(self.records) if r["seconds"] != "inf"]
            self.check(f"round {round_}: what was found is kept", kept, "no record is left")
            self.check(f"round {round_}: once is not enough", not any(r["seconds"] == "inf" for r in records(self.records)),
                       self.records.read_text())
        self.last_run(killed)

    def last_run(self, killed):
        """As if the first had been killed once more; the second has been suspected since the journal was read."""
        second_time = killed[0]
        self.start(1).communicate(timeout=LIMIT)
        self.check("both are suspects", all(candidate(k) in [candidate(r) for r in records(self.suspects)] for k in killed),
                   self.suspects.read_text())
        self.journal.write_text("; ".join(f"{k}={v}" for k, v in second_time.items()) + "\n")
        process = self.start(8)
        said = ""
        while "trying" not in said and process.poll() is None:
            said += process.stderr.readline()
        second = self.start(8)
        _, words = second.communicate(timeout=LIMIT)
        self.check("another process is refused", second.returncode == 1 and "another process is tuning" in words, words)
        out, err = process.communicate(timeout=LIMIT)
        tried = [line for line in (said + err).splitlines() if "trying" in line]
        self.check("the next run ends well", process.returncode == 0, err[-500:])
        crashed = [candidate(r) for r in records(self.records) if r["seconds"] == "inf"]
        self.check("the other is not condemned", candidate(killed[1]) not in crashed, crashed)
        for k in [second_time]:
            name = " ".join(candidate(k))
            self.check(f"{name} is known to have crashed", candidate(k) in crashed, crashed)
            self.check(f"{name} is not tried again", not any(line.endswith(f" {k['variant']} {k['parameters']}") for line in tried),
                       "it was")
            self.check(f"{name} is not taken", f"{k['variant']} {k['parameters']} " not in out, out)
        good = [r for r in records(self.records) if r["seconds"] != "inf"]
        self.check("there are records for both forms", {r["form"] for r in good} == {"-", "causal"}, good)
        self.check("the journal is empty", self.journal.read_text() == "", self.journal.read_text())


def main():
    with tempfile.TemporaryDirectory() as folder:
        test = Test(sys.argv[1], Path(folder))
        test.run()
    print(f"{test.passed} passed, {test.failed} failed, 0 skipped")
    return 1 if test.failed or not test.passed else 0


if __name__ == "__main__":
    sys.exit(main())
