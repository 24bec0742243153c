"""`clsplat bench`: what it reports, never how fast anything is."""
import json

FORWARD = ["softmax", "gaussian", "gaussian-isotropic", "gaussian-full", "near-far"]
OPS = [*FORWARD, "gemm", *(f"{op}-backward" for op in FORWARD)]
SHAPE = [1, 2, 40, 72, 16, 32, 9]
FIELDS = {"op", "shape", "dtype", "causal", "variant", "rows", "runs", "seconds", "fastest", "slowest", "gflops", "peak_gflops",
          "fraction_of_peak", "gbytes", "peak_gbytes", "error"}
ERRORS = {"f32": 1e-4, "f16": 1e-2, "bf16": 5e-2}


def flops(op, causal):
    """As the manual counts them; None where it depends on what is visible."""
    _, heads, queries, keys, dim, value_dim, splats = SHAPE
    if op == "gemm":
        return 2 * heads * queries * keys * dim
    backward, op = op.endswith("-backward"), op.removesuffix("-backward")
    if op in ("softmax", "near-far"):  # near-far: of what it replaces
        pairs = sum(min(keys, i + 1 + keys - queries) for i in range(queries)) if causal else queries * keys
        return 2 * heads * pairs * ((3 * dim + 2 * value_dim) if backward else (dim + value_dim))
    features = {"gaussian": 2 * dim, "gaussian-isotropic": dim, "gaussian-full": dim * (dim + 3) / 2}[op]
    if backward:
        return heads * splats * (6 * features * (queries + keys) + 2 * value_dim * (2 * queries + 3 * keys))
    return 2 * heads * splats * (features + value_dim) * (queries + keys)


def report(bench, op, dtype, causal):
    name = f"bench {op} {dtype}{' causal' if causal else ''}"
    arguments = ["--op", op, "--shape", ",".join(map(str, SHAPE)), "--dtype", dtype, "--repeat", 3, "--json"]
    rows = json.loads(bench.works(name, "bench", *arguments, *(["--causal"] if causal else [])) or "[]")
    variants = [r["variant"] for r in rows]
    bench.check(f"{name}: variants", variants[:1] == ["plain"] and variants[-1:] == ["tuned"] and len(set(variants)) == len(variants),
                str(variants))
    for r in rows:
        bench.check(f"{name}: fields of {r['variant']}", set(r) == FIELDS, str(set(r) ^ FIELDS))
        bench.check(f"{name}: what {r['variant']} was", [r["op"], r["shape"], r["dtype"], r["causal"], r["rows"]] ==
                    [op, SHAPE, dtype, causal, SHAPE[2]] and 1 <= r["runs"] <= 3, str(r))
        bench.check(f"{name}: times of {r['variant']}", 0 < r["fastest"] <= r["seconds"] <= r["slowest"] and r["peak_gbytes"] > 0
                    and abs(r["gflops"] / r["peak_gflops"] - r["fraction_of_peak"]) < 1e-4, str(r))
        counted = r["gflops"] * 1e9 * r["seconds"]
        bench.check(f"{name}: flops of {r['variant']}", abs(counted / flops(op, causal) - 1) < 1e-3, f"{counted}")
        bench.check(f"{name}: error of {r['variant']}", r["error"] is not None and r["error"] < ERRORS[dtype], str(r["error"]))


def run(bench):
    for op in [*FORWARD, "gemm", "softmax-backward", "gaussian-backward", "near-far-backward"]:
        report(bench, op, "f32", False)
    report(bench, "softmax", "bf16", True)
    report(bench, "gaussian", "f16", True)
    text = bench.works("bench", "bench", "--shape", "1,2,20,20,16,32,9", "--repeat", 1) or ""
    bench.check("bench: all operations", all(f"\n{op}, f32" in "\n" + text for op in OPS) and "GFLOP/s" in text, text)
    one = json.loads(bench.works("bench --variant", "bench", "--op", "softmax", "--shape", "1,1,20", "--variant", "plain", "--json") or "[]")
    bench.check("bench --variant", [r["variant"] for r in one] == ["plain"] and one[0]["shape"][2:4] == [20, 4096], str(one))
    for name, arguments, words in [("operation", ["--op", "x"], ["--op", "gemm"]), ("shape", ["--shape", "1,2,x"], ["--shape", "x"]),
                                   ("shape of 0", ["--shape", "1,0"], ["--shape"]), ("long shape", ["--shape", "1,1,1,1,1,1,1,1"], ["B,H,N,M"]),
                                   ("wide shape", ["--shape", "1,1,9,9,2000"], ["1024"]), ("type", ["--dtype", "f64"], ["--dtype", "bf16"]),
                                   ("repeat", ["--repeat", "0"], ["--repeat"]), ("causal gemm", ["--op", "gemm", "--causal"], ["--causal"]),
                                   ("variant", ["--op", "gemm", "--shape", "1,1,9,9,9", "--variant", "none"], ["--variant", "plain"])]:
        bench.refused(f"bench: {name}", arguments, words, statuses=[2], command="bench")
