#!/usr/bin/env python3
"""Reads the public headers and prints them as a module of ctypes declarations, so that the binding never differs from them.

    binding.py include/clsplat > _c.py

What it knows is what the headers use: functions of the library (inline ones are for C and C++ alone), enums, structs of numbers, pointers, arrays and other structs, callbacks, functions marked
CLSPLAT_API, and the one list of statuses. Anything else is an error that names file and words.
"""
import re
import sys
from pathlib import Path

NUMBERS = {
    "bool": "c_bool", "char": "c_char", "int": "c_int", "unsigned": "c_uint", "float": "c_float", "double": "c_double",
    "size_t": "c_size_t", "int32_t": "c_int32", "uint32_t": "c_uint32", "int64_t": "c_int64", "uint64_t": "c_uint64",
    "uint8_t": "c_uint8", "uint16_t": "c_uint16", "cl_uint": "c_uint32", "cl_mem": "c_void_p", "cl_context": "c_void_p",
    "cl_command_queue": "c_void_p", "cl_event": "c_void_p", "cl_device_id": "c_void_p",
}
HEAD = '"""Made from the public headers by binding.py: what the C library declares."""\nfrom ctypes import *  # noqa: F403\n'


class Reader:
    """Declarations seen so far, in the order of the headers."""

    def __init__(self):
        self.types = dict(NUMBERS)
        self.callbacks, self.out, self.functions = set(), [], []
        self.sized = set()  # structs that begin with their size: passed by address, which ctypes takes of them by itself

    def type_of(self, words, stars):
        """The ctypes type of `words` with `stars` behind it; pointers but for strings and callbacks have no type."""
        name = " ".join(w for w in words.split() if w not in ("const", "struct"))
        if name in self.callbacks and stars == 1:
            return name
        if stars == 1 and name in self.sized:
            return f"POINTER({name})"
        if stars:
            return "c_char_p" if name == "char" and stars == 1 and "const" in words else "c_void_p"
        if name == "void":
            return "None"
        if name not in self.types:
            raise ValueError(f"there is no type {name}")
        return self.types[name]

    def variables(self, text):
        """(name, type) of `float a, *b, c[4]`."""
        first, *rest = [part.strip() for part in text.split(",")]
        words = re.match(r"((?:\w+\s+)*\w+)(?=[\s*]+\w+)", first)
        if not words:
            raise ValueError(f"no declaration: {first}")
        declarators = [first[words.end():], *rest]
        for declarator in declarators:
            match = re.fullmatch(r"\s*((?:\*|const\b|\s)*)(\w+)\s*(?:\[(\w+)\])?", declarator)
            if not match:
                raise ValueError(f"no declarator: {declarator}")
            kind = self.type_of(words[1], match[1].count("*"))
            yield match[2], f"{kind} * {match[3]}" if match[3] else kind

    def enum(self, body, name):
        """Constants, and the type's name if it has one."""
        value = -1
        for entry in filter(None, (e.strip() for e in body.split(","))):
            constant, _, given = (p.strip() for p in entry.partition("="))
            value = int(given, 0) if given else value + 1
            self.out.append(f"{constant} = {value}")
        if name:
            self.types[name] = "c_int"

    def struct(self, body, name):
        fields = [f for line in filter(None, (x.strip() for x in body.split(";"))) for f in self.variables(line)]
        listed = "".join(f'        ("{field}", {kind}),\n' for field, kind in fields)
        self.types[name] = name
        sized = ""
        if fields[0] == ("size", "c_size_t"):
            self.sized.add(name)
            sized = ("\n    def __init__(self, *values, **named):\n        super().__init__(0, *values, **named)\n"
                     "        self.size = sizeof(self)  # noqa: F405\n")
        self.out.append(f"\n\nclass {name}(Structure):  # noqa: F405\n    _fields_ = [\n{listed}    ]\n{sized}")

    def parameters(self, text):
        if text.strip() in ("", "void"):
            return []
        result = []
        for parameter in text.split(","):
            named = parameter if re.search(r"[\s*]\w+\s*(\[\w*\])?$", parameter.strip()) else parameter + " unnamed"
            array = re.sub(r"(\w+)\s*\[\w*\]$", r"*\1", named.strip())
            result += [kind for _, kind in self.variables(array)]
        return result

    def signature(self, text):
        """(name, result, parameters) of a prototype."""
        match = re.fullmatch(r"(.*?)([\s*]+)(\w+)\s*\((.*)\)", text, re.S)
        if not match:
            raise ValueError(f"no prototype: {text}")
        return match[3], self.type_of(match[1], match[2].count("*")), self.parameters(match[4])

    def declaration(self, text):
        """One of the file scope, without its semicolon."""
        block = re.fullmatch(r"(typedef )?(enum|struct)\s*(\w*)\s*\{(.*)\}\s*(\w*)", text, re.S)
        if block:
            (self.enum if block[2] == "enum" else self.struct)(block[4], block[5] or block[3])
        elif text.startswith("CLSPLAT_API"):
            self.functions.append(self.signature(text.replace("CLSPLAT_API", "").strip()))
        elif re.fullmatch(r"typedef struct (\w+) \1", text):
            self.types[text.split()[-1]] = "c_void_p"
        elif text.startswith("typedef") and "(" in text:
            name, result, parameters = self.signature(text[len("typedef"):].strip())
            self.callbacks.add(name)
            self.out.append(f"{name} = CFUNCTYPE({', '.join([result, *parameters])})  # noqa: F405")
        elif text:
            raise ValueError(f"not understood: {text}")


def declarations(text):
    """The declarations of a header: comments and the preprocessor's lines gone, the list of statuses written out."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S).replace("\\\n", " ")
    entries = re.search(r"#define CLSPLAT_STATUS_LIST\(X\)(.*)", text)
    listed = "".join(f"CLSPLAT_{name} = {value}," for name, value in re.findall(r"X\((\w+), (\d+),", entries[1])) if entries else ""
    text = re.sub(r"^\s*#.*$", "", text, flags=re.M).replace("CLSPLAT_STATUS_LIST(X)", listed)
    text = re.sub(r"\bCLSPLAT_DEFAULTS\((\w+)\)", r"CLSPLAT_API void \1_defaults_sized(\1 *defaults);", text)
    text = re.sub(r"\bstatic inline [^{;]*\{[^}]*\}", "", text)
    text = re.sub(r'extern "C"\s*\{', "", text)
    begin = depth = 0
    for at, letter in enumerate(text):
        depth += (letter == "{") - (letter == "}")
        if depth < 0:  # the end of extern "C"
            return
        if letter == ";" and depth == 0:
            yield " ".join(text[begin:at].split())
            begin = at + 1


def in_order(folder, name, seen):
    """A header's paths after those of the headers that it includes."""
    if name in seen:
        return
    seen.add(name)
    text = (folder / name).read_text(encoding="utf-8")
    for included in re.findall(r"#include <clsplat/(\w+\.h)>", text):
        yield from in_order(folder, included, seen)
    yield folder / name


def main():
    folder, reader = Path(sys.argv[1]), Reader()
    for path in in_order(folder, "clsplat.h", set()):
        for declaration in declarations(path.read_text(encoding="utf-8")):
            try:
                reader.declaration(declaration)
            except (ValueError, KeyError) as error:
                sys.exit(f"{path}: {error}")
    version = re.findall(r"#define CLSPLAT_VERSION_\w+ (\d+)", (folder / "clsplat.h").read_text(encoding="utf-8"))
    print(HEAD)
    print(f'VERSION = "{".".join(version)}"')
    print("\n".join(reader.out))
    print("\nFUNCTIONS = {")
    for name, result, parameters in reader.functions:
        print(f'    "{name}": ({result}, [{", ".join(parameters)}]),')
    print("}")


if __name__ == "__main__":
    main()
