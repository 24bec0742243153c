"""Compilers for devices that are not here, and what their code needs there: registers, spills, local memory.

A compiler answers with {kernel: found}, found being {"error": words} or numbers: `registers`, `spills` (registers that went to memory),
`scratch` (bytes of private memory an item, or a hardware thread on Intel's), `local` (bytes), `width` (of a wave or a SIMD), `waves`
(on a SIMD at once, AMD's), `products` (instructions of matrix units in the program), and `undefined` (what does not link)."""
import os
import re
import subprocess
import tempfile
from pathlib import Path

# A SIMD's registers, how many are given out at a time, waves at most, SIMDs that share 64 KiB of local memory.
CHIPS = {"gfx900": (256, 4, 10, 4), "gfx90a": (512, 8, 8, 4), "gfx942": (512, 8, 8, 4), "gfx1030": (1024, 16, 16, 2), "gfx1100": (1536, 24, 16, 2)}
# Which pose of pose.c has their limits.
POSES = {**{chip: "amd" for chip in CHIPS}, "gfx1100": "rdna3", "gfx90a": "cdna", "gfx942": "cdna", "skl": "intel", "tgllp": "intel", "dg2": "arc",
         "pvc": "pvc", "spirv": "amd"}


class Tools:
    """Programs unpacked by tools.sh, and the seconds of processor time that they took."""

    def __init__(self, root):
        self.root, self.seconds = Path(root), 0.0
        libraries = ":".join(str(p) for p in (self.root / "usr/lib/x86_64-linux-gnu", self.root / "usr/lib/llvm-22/lib", self.root / "usr/lib/llvm-15/lib",
                                              self.root / "usr/lib/x86_64-linux-gnu/intel-opencl"))
        self.environment = dict(os.environ, LD_LIBRARY_PATH=libraries)

    def path(self, name):
        return str(self.root / "usr/bin" / name)

    def run(self, name, *words):
        """The exit status, and what it said."""
        with tempfile.TemporaryFile() as said:
            child = subprocess.Popen([self.path(name), *map(str, words)], env=self.environment, stdout=said, stderr=subprocess.STDOUT)
            _, child.returncode, usage = os.wait4(child.pid, 0)
            self.seconds += usage.ru_utime + usage.ru_stime
            said.seek(0)
            return child.returncode, said.read().decode(errors="replace")


def definitions(program):
    return [f for f in program["flags"] if f.startswith(("-D", "-cl-std"))]


def failed(program, words):
    return {kernel: {"error": words.strip()[-600:]} for kernel in program["kernels"]}


def waves_of(chip, registers, local, width, items):
    """Waves that a SIMD can hold at once: registers and local memory limit them."""
    has, granule, most, simds = CHIPS[chip]
    waves = min(most, has // (-(-max(registers, 1) // granule) * granule))
    return min(waves, (65536 // local) * -(-items // width) / simds) if local else waves


def undefined(tools, target, assembly, folder):
    """"WHAT in WHOM" for what the linker does not find."""
    here = ("-target", "amdgcn-amd-amdhsa", f"-mcpu={target}", "-nogpulib")
    tools.run("clang-22", *here, "-c", assembly, "-o", folder / "code.o")
    _, said = tools.run("ld.lld-22", "-shared", "--error-limit=0", "-o", folder / "code.co", folder / "code.o")
    found = set()
    for m in re.finditer(r"undefined hidden symbol: (\w+)\n((?:>>> referenced by .*\n)*)", said):
        found |= {f"{m[1]} in {user}" for user in re.findall(r":\((\w+)\)", m[2]) if not user.startswith("__clang_ocl_kern_imp_")}
    return sorted(found)


def amd(tools, target, source, program, folder):
    out = folder / "code.s"
    code, said = tools.run("clang-22", "-x", "cl", *definitions(program), "-Xclang", "-finclude-default-header", "-target", "amdgcn-amd-amdhsa",
                           f"-mcpu={target}", "-nogpulib", "-O3", "-Xclang", "-mlink-builtin-bitcode", "-Xclang",
                           tools.root / "usr/lib/clc/amdgcn-amd-amdhsa.bc", "-S", "-o", out, source)
    if code:
        return failed(program, said)
    text, made, missing = out.read_text(), {}, undefined(tools, target, out, folder)
    for block in text.split("amdhsa.kernels:")[-1].split("\n  - ")[1:]:
        fields = dict(re.findall(r"^    \.(\w+):\s+(\S+)$", "    " + block, re.MULTILINE))
        name = fields.get("name")
        if name not in program["kernels"]:
            continue
        registers, local, width = (int(fields[f]) for f in ("vgpr_count", "group_segment_fixed_size", "wavefront_size"))
        made[name] = {"undefined": missing, "registers": registers, "spills": int(fields["vgpr_spill_count"]),
                      "scratch": int(fields["private_segment_fixed_size"]), "local": local, "width": width,
                      "products": len(re.findall(r"^\s+v_(?:wmma|mfma)_", text, re.MULTILINE)), "waves": waves_of(target, registers, local, width, program["kernels"][name])}
    return made


def intel(tools, target, source, program, folder):
    if any(f.startswith("-DUNITS=") for f in program["flags"]):  # their instructions are to be seen
        tools.environment |= {"IGC_ShaderDumpEnable": "1", "IGC_DumpToCustomDir": f"{folder}/"}
    _, said = tools.run("ocloc", "compile", "--format", "zebin", "-file", source, "-device", target, "-options", " ".join(program["flags"]), "-out_dir", folder)
    binary = next(folder.glob("*.bin"), None)
    if not binary:
        return failed(program, said)
    tools.run("llvm-objcopy-22", "--dump-section", f".ze_info={folder / 'info'}", binary, folder / "null")
    if not (folder / "info").exists():
        return failed(program, "no .ze_info in " + binary.name)
    products = sum(len(re.findall(r"\bdpas", p.read_text(errors="replace"))) for p in folder.glob("*.asm"))
    text, made = (folder / "info").read_text().split("kernels_misc_info")[0], {}
    spills = {m[1]: int(m[3]) for m in re.finditer(r"kernel (\w+)\s+compiled SIMD\d+ allocated (\d+) regs and spilled around (\d+)", said)}
    for block in text.split("\n  - name:")[1:]:
        name = block.split()[0]
        if name not in program["kernels"]:
            continue
        numbers = {m[1]: int(m[2]) for m in re.finditer(r"^\s+(simd_size|grf_count|slm_size):\s+(\d+)", block, re.MULTILINE)}
        private = sum(int(n) for n in re.findall(r"- type:\s+\w+\n\s+usage:\s+\w+\n\s+size:\s+(\d+)", block))
        made[name] = {"undefined": [], "registers": numbers.get("grf_count", 0), "spills": spills.get(name, 0), "scratch": private,
                      "products": products, "local": numbers.get("slm_size", 0), "width": numbers.get("simd_size", 0), "waves": 0}
    return made


def spirv(tools, target, source, program, folder):
    """Whether it translates and validates; the numbers are a driver's."""
    code, said = tools.run("clang-15", "-x", "cl", *definitions(program), "-Xclang", "-finclude-default-header", "-target", "spir64", "-O0",
                           "-Xclang", "-disable-O0-optnone", "-emit-llvm", "-c", "-o", folder / "code.bc", source)
    if code == 0:
        code, said = tools.run("llvm-spirv-15", folder / "code.bc", "-o", folder / "code.spv")
    if code == 0:
        code, said = tools.run("spirv-val", folder / "code.spv")
    if code:
        return failed(program, said)
    return {kernel: {"undefined": [], "registers": 0, "spills": 0, "scratch": 0, "local": 0, "width": 0, "waves": 0} for kernel in program["kernels"]}


def compile_for(tools, target, program, folder):
    """{kernel: found}, each with `seconds` of processor time."""
    source = folder / program["source"]
    source.write_text(program["text"])
    tools.seconds = 0.0
    made = (spirv if target == "spirv" else amd if target in CHIPS else intel)(tools, target, source, program, folder)
    for kernel in program["kernels"]:
        made.setdefault(kernel, {"error": "the compiler made no such kernel"})["seconds"] = round(tools.seconds, 1)
    return made
