"""`clsplat tune`: what it prints, shows, exports and imports; what it finds is tested in tests/tune."""
import json

SHAPE = "1,2,160,160,32,32,48"
FIELDS = {"op", "best", "seconds", "first_seconds", "tried", "rejected"}


def search(bench, environment):
    out = bench.works("tune --json", "tune", "--op", "gaussian-full", "--shape", SHAPE, "--budget", 2, "--json", env=environment)
    found = json.loads(out or "[]")
    bench.check("tune --json", [set(f) for f in found] == [FIELDS] * 2 and all(f["seconds"] > 0 and f["tried"] >= 1 for f in found),
                str(found))
    out = bench.works("tune", "tune", "--op", "gemm", "--shape", "1,1,70,70,32", "--dtype", "bf16", "--budget", 1, env=environment)
    bench.check("tune", (out or "").startswith("gemm ") and " tried, " in out, str(out))


def records(bench, environment):
    shown = json.loads(bench.works("tune --show --json", "tune", "--show", "--json", env=environment) or "[]")
    found = {(r["op"], r["form"], r["type"]) for r in shown}
    bench.check("tune --show --json", {("write", "full", "F32"), ("read", "full", "F32"), ("gemm", "-", "BF16")} <= found, str(found))
    text = bench.works("tune --show", "tune", "--show", env=environment) or ""
    bench.check("tune --show", len(text.splitlines()) == len(shown) and all(r["parameters"] in text for r in shown), text)
    taken, again, home = bench.path("taken.txt"), bench.path("again.txt"), bench.path("another")
    other = dict(environment, XDG_DATA_HOME=str(home))
    bench.works("tune --export", "tune", "--export", taken, env=environment)
    bench.works("tune --import --export", "tune", "--import", taken, "--export", again, env=other)
    bench.check("tune: what is exported is imported", taken.read_text() == again.read_text(), again.read_text())
    with (home / "clsplat" / "tuning.txt").open("a") as file:
        file.write("op=softmax; nonsense\n")
    status, out, err = bench.run("tune", "--show", env=other)
    bench.check("tune: a damaged line", status == 0 and out and "warning" in err and "nonsense" in err, err)
    status, _, err = bench.run("bench", "--op", "gemm", "--shape", "1,1,20,20,16", "--repeat", 1, env=other)
    bench.check("bench beside a damaged line", status == 0 and "nonsense" in err, err)


def misuse(bench, environment):
    for name, arguments, words, status in [
            ("operation", ["--op", "soft"], ["--op", "soft"], 2), ("shape", ["--shape", "1,2,x"], ["--shape"], 2),
            ("type", ["--dtype", "f64"], ["--dtype", "bf16"], 2), ("budget", ["--budget", "soon"], ["--budget", "soon"], 2),
            ("budget of 0", ["--budget", "0"], ["--budget"], 2), ("argument", ["x"], ["x"], 2),
            ("columns", ["--op", "softmax", "--shape", "1,1,9,9,2000"], ["1024"], 1),
            ("missing import", ["--import", bench.path("none.txt")], ["none.txt"], 1),
            ("export into nowhere", ["--export", bench.path("no/such/file")], ["no/such/file"], 1)]:
        bench.refused(f"tune: {name}", arguments, words, statuses=[status], command="tune", env=environment)
    homeless = {k: v for k, v in environment.items() if k not in ("HOME", "XDG_DATA_HOME")}
    bench.refused("tune without a home", ["--op", "gemm"], ["XDG_DATA_HOME"], statuses=[1], command="tune", env=homeless)


def run(bench, environment):
    environment = dict(environment, XDG_DATA_HOME=str(bench.path("data")))
    search(bench, environment)
    records(bench, environment)
    misuse(bench, environment)
