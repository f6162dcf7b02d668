#!/usr/bin/env python3
"""Fails if a crate of Cargo.lock has a licence that we have not agreed to, or comes from elsewhere than Rust's registry.

usage: cargo metadata --locked --format-version 1 | licenses.py [--list | --sbom VERSION]
  --list           tells the crates that are linked into the library, with their licences, instead
  --sbom VERSION   the same as a software bill of materials (CycloneDX 1.5, JSON) of that version of vector_ext
"""

import json
import re
import sys

# What may be linked into, or used to build and test, an extension under the PostgreSQL licence: permissive ones.
ALLOWED = {"MIT", "MIT-0", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "ISC", "Zlib",
           "0BSD", "Unlicense", "CC0-1.0", "Unicode-3.0", "PostgreSQL"}
SOURCE = "registry+https://github.com/rust-lang/crates.io-index"


def permits(expression):
    """Whether an SPDX expression can be met by allowed licences. Raises ValueError if it is none."""
    words = re.findall(r"[()]|[^\s()/]+|/", expression)  # a/b is how it was written once
    at = 0

    def take(*expected):
        nonlocal at
        if at < len(words) and words[at] in expected:
            at += 1
            return True
        return False

    def either():
        result = both()
        while take("OR", "/"):
            result = both() or result
        return result

    def both():
        result = one()
        while take("AND"):
            result = one() and result
        return result

    def one():
        nonlocal at
        if take("("):
            result = either()
            if not take(")"):
                raise ValueError(expression)
            return result
        if at == len(words) or words[at] in (")", "OR", "AND", "WITH", "/"):
            raise ValueError(expression)
        name, at = words[at], at + 1
        if take("WITH"):
            if at == len(words):
                raise ValueError(expression)
            name, at = f"{name} WITH {words[at]}", at + 1
        return name in ALLOWED

    result = either()
    if at != len(words):
        raise ValueError(expression)
    return result


def complaints(packages):
    for package in packages:
        name = f"{package['name']} {package['version']}"
        if package["source"] not in (None, SOURCE):
            yield f"{name} comes from {package['source']}"
        try:
            if not permits(package["license"] or ""):
                yield f"{name} has the licence {package['license']}"
        except ValueError:
            yield f"{name} has no licence that is understood: {package['license']}"


def linked(metadata):
    """The packages that vector_ext is linked with: not those for its tests or for building it, nor itself."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = next(package["id"] for package in metadata["packages"] if package["name"] == "vector_ext")
    found, left = set(), [root]
    while left:
        at = left.pop()
        if at not in found:
            found.add(at)
            left += [d["pkg"] for d in nodes[at]["deps"] if any(kind["kind"] is None for kind in d["dep_kinds"])]
    return sorted((p for p in metadata["packages"] if p["id"] in found and p["source"]), key=lambda p: (p["name"], p["version"]))


def sbom(metadata, version):
    components = [{"type": "library", "name": p["name"], "version": p["version"], "purl": f"pkg:cargo/{p['name']}@{p['version']}",
                   "licenses": [{"expression": p["license"].replace("/", " OR ")}]} for p in linked(metadata)]
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": components,
            "metadata": {"component": {"type": "library", "name": "vector_ext", "version": version}}}


def main():
    metadata = json.load(sys.stdin)
    match sys.argv[1:]:
        case []:
            found = list(complaints(metadata["packages"]))
            print("\n".join(found) or f"{len(metadata['packages'])} crates")
            return bool(found)
        case ["--list"]:
            for package in linked(metadata):
                print(f"{package['name']} {package['version']}: {package['license']}")
        case ["--sbom", version]:
            print(json.dumps(sbom(metadata, version), indent=1))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    sys.exit(main())
