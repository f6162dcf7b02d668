#!/usr/bin/env python3
"""Fails if a crate of Cargo.lock has a licence that we have not agreed to, or comes from elsewhere than crates.io.

usage: cargo metadata --locked --format-version 1 | licenses.py
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


def main():
    packages = json.load(sys.stdin)["packages"]
    found = list(complaints(packages))
    print("\n".join(found) or f"{len(packages)} crates")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
