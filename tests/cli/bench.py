"""Runs the command and counts what passed."""
import hashlib
import subprocess
import time

LIMIT = 20  # seconds for a refusal, on a busy machine


def lines(text, most=400):
    return " | ".join(text.strip().splitlines())[:most]


class Bench:
    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder
        self.passed = self.failed = self.skipped = 0

    def path(self, name):
        return self.folder / name

    def write(self, name, content):
        path = self.path(name)
        path.write_bytes(content)
        return path

    def check(self, name, good, why=""):
        self.passed += bool(good)
        if not good:
            self.failed += 1
            print(f"FAIL {name}: {why}", flush=True)
        return good

    def skip(self, name, why):
        self.skipped += 1
        print(f"skipped: {name}: {why}", flush=True)

    def summary(self):
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped")
        return 1 if self.failed or not self.passed else 0

    def run(self, *arguments, limit=120, **options):
        """(exit status, stdout, stderr); the status is None when it ran out of time."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        try:
            p = subprocess.run([self.binary, *map(str, arguments)], timeout=limit, **options)
        except subprocess.TimeoutExpired:
            return None, "", f"no answer within {limit} s"
        return p.returncode, (p.stdout or b"").decode(errors="replace"), p.stderr.decode(errors="replace")

    def works(self, name, *arguments, **options):
        """stdout of a run that must succeed; None after a failure."""
        status, out, err = self.run(*arguments, **options)
        return out if self.check(name, status == 0, f"exit status {status}: {lines(err)}") else None

    def contents(self):
        """Every path below the folder, and what is in it."""
        return {p: hashlib.sha256(p.read_bytes()).digest() if p.is_file() and p.stat().st_size < 1 << 24 else None
                for p in self.folder.rglob("*")}

    def refused(self, name, arguments, words, statuses=range(1, 126), command="attend", **options):
        """The run must fail as the contract says: few lines that name `words`, and every file as it was before."""
        before, started = self.contents(), time.time()
        status, out, err = self.run(command, *arguments, limit=LIMIT, **options)
        complaints = []
        if status not in statuses:
            complaints.append(f"exit status {status}")
        if not 1 <= len(err.splitlines()) <= 5:
            complaints.append(f"{len(err.splitlines())} lines on stderr")
        if not err.startswith(f"clsplat {command}: "):
            complaints.append("stderr does not begin with the command")
        complaints += [f"stderr does not say `{w}`" for w in words if str(w) not in err]
        if out:
            complaints.append("something on stdout")
        if self.contents() != before:
            complaints.append("files have changed")
        if time.time() - started > LIMIT:
            complaints.append("too slow")
        return self.check(name, not complaints, f"{', '.join(complaints)}: {lines(err)}")
