#!/usr/bin/env python3
"""Fails if files of a crate import each other in a ring of more than two.

An import is a path that begins with `crate`, `super`, `self` or a submodule. It counts for the file
that defines the item: re-exports are followed, and are not imports themselves. Comments and the
tests inside a file do not count.
"""

import re
import sys
from pathlib import Path

USE = re.compile(r"^ *(pub(?:\(\w+\))? )?use ([^;]+);", re.MULTILINE)
INLINE = re.compile(r"\b\w+(?:::\w+)+")


def texts(src):
    """The text of each file, by the path of its module."""
    found = {}
    for file in sorted(src.rglob("*.rs")):
        parts = file.relative_to(src).with_suffix("").parts
        module = parts[:-1] if parts[-1] in ("lib", "main", "mod") else parts
        text = re.split(r"#\[cfg\((?:all\()?test\b.*\n(?:#.*\n)*(?:pub\S* )?mod ", file.read_text())[0]
        found[module] = found.get(module, "") + re.sub(r"//.*", "", text)
    return found


def leaves(tree):
    """The paths of a `use`: `a::{b, c::d}` has `a::b` and `a::c::d`."""
    path, depths, complete = [], [0], False
    for token in re.findall(r"\w+|[{},]", re.sub(r" as \w+", "", tree) + ","):
        if token == "{":
            depths.append(len(path))
        elif token in ",}":
            if complete:
                yield tuple(path)
            if token == "}":
                depths.pop()
            del path[depths[-1] :]
            complete = False
        else:
            path.append(token)
            complete = True


def imports(src):
    """The modules that each module imports."""
    found = texts(src)
    uses = {m: [(pub, p) for pub, tree in USE.findall(t) for p in leaves(tree)] for m, t in found.items()}
    names = {m: {path[-1]: path for _, path in paths} for m, paths in uses.items()}

    def definer(module, path):
        first, *rest = path
        if first == "crate":
            module = ()
        elif first == "super":
            module = module[:-1]
        elif first != "self":
            rest = path
            if (*module, first) not in found:
                return None
        for name in rest:
            if name == "super":
                module = module[:-1]
            elif (*module, name) in found:
                module = (*module, name)
            elif name in names[module]:
                return definer(module, names[module][name])
            else:
                break
        return module

    edges = {}
    for module, text in found.items():
        inline = [tuple(path.split("::")) for path in INLINE.findall(USE.sub("", text))]
        paths = inline + [path for pub, path in uses[module] if not pub]
        edges[module] = {definer(module, path) for path in paths} - {None, module}
    return edges


def ring(edges):
    """The shortest ring of more than two modules: an import, and another way back than its own."""
    shortest = None
    for first in edges:
        for second in edges[first]:
            ways = [(first, second)]
            seen = {second}
            for way in ways:
                for after in sorted(edges[way[-1]]):
                    if after == first and len(way) > 2:
                        shortest = min(shortest or way, way, key=len)
                    elif after not in seen and after != first:
                        seen.add(after)
                        ways.append((*way, after))
    return shortest


failed = False
for src in map(Path, sys.argv[1:]):
    if found := ring(imports(src)):
        names = ["::".join(module) or "lib" for module in (*found, found[0])]
        print(f"{src}: a ring of {len(found)} files: {' -> '.join(names)}")
        failed = True
sys.exit(failed)
