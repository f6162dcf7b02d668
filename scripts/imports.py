#!/usr/bin/env python3
"""Who imports whom: folders of Rust sources, their lines, arrows between them, and circles.  usage: imports.py [FOLDER]

A module stands for its folder: src/index/read/rows.rs is `index/read`. An arrow is a `use` or a path that names a module of another
folder. A circle is a set of folders of which each reaches each other one.
"""
import re
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def crates(root: Path) -> dict[str, Path]:
    """Name in paths, and folder of the sources."""
    found = {"crate": root / "src"}
    found.update({path.parent.name: path for path in root.glob("crates/*/src")})
    return {name: path for name, path in found.items() if path.is_dir()}


def modules(name: str, source: Path) -> dict[tuple[str, ...], Path]:
    """Path of each module, from its crate's name on."""
    found = {}
    for path in sorted(source.rglob("*.rs")):
        parts = list(path.relative_to(source).with_suffix("").parts)
        if parts[-1] in ("mod", "lib"):
            parts.pop()
        found[(name, *parts)] = path
    return found


def place_of(path: Path, root: Path, by_file: bool) -> str:
    """What a file counts as: itself, or its folder."""
    place = path.relative_to(root)
    return str(place) if by_file else str(place.parent)


def circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    """Sets of more than one that reach each other."""
    def reached(start: str) -> set[str]:
        seen, todo = set(), [start]
        while todo:
            for place in arrows.get(todo.pop(), ()):
                if place not in seen:
                    seen.add(place)
                    todo.append(place)
        return seen

    reach = {place: reached(place) for place in arrows}
    found: list[set[str]] = []
    for place in arrows:
        circle = {other for other in reach[place] if place in reach.get(other, ())} | {place}
        if len(circle) > 1 and circle not in found:
            found.append(circle)
    return found


def survey(root: Path, by_file: bool):
    """Lines, blocks of unsafe code and arrows by place."""
    all_modules = {}
    for name, source in crates(root).items():
        all_modules.update(modules(name, source))
    lines, unsafe, files = defaultdict(int), defaultdict(int), defaultdict(int)
    arrows: dict[str, set[str]] = defaultdict(set)
    for module, path in all_modules.items():
        text = path.read_text()
        own = place_of(path, root, by_file)
        lines[own] += text.count("\n")
        files[own] += 1
        code = re.sub(r"//[^\n]*", "", text)
        unsafe[own] += len(re.findall(r"\bunsafe\s*\{", code))
        arrows[own] |= set()
        groups = re.findall(r"\b((?:crate|super|[a-z_]+)(?:::[a-z_]\w*)*)::\{([^{}]*)\}", code)
        paths = [f"{head}::{item.strip().split('::')[0].split(' ')[0]}" for head, items in groups for item in items.split(",")]
        paths += re.findall(r"\b(?:crate|super|ann|ivflsh)(?:::\w+)+", code)
        for found in paths:
            parts = found.split("::")
            if parts[0] == "super":
                base = list(module)
                while parts and parts[0] == "super":
                    base, parts = base[:-1], parts[1:]
                parts = base + parts
            elif parts[0] == "crate":
                parts[0] = module[0]
            for n in range(len(parts), 1, -1):
                target = all_modules.get(tuple(parts[:n]))
                if target is not None:
                    other = place_of(target, root, by_file)
                    if other != own:
                        arrows[own].add(other)
                    break
    return lines, files, unsafe, arrows


def main() -> None:
    root = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT
    lines, files, unsafe, arrows = survey(root, by_file=False)
    print("| folder | files | lines | unsafe blocks | imports |\n|---|---|---|---|---|")
    for place in sorted(lines):
        print(f"| {place} | {files[place]} | {lines[place]} | {unsafe[place]} | {', '.join(sorted(arrows[place]))} |")
    print(f"\n{sum(lines.values())} lines, {sum(files.values())} files, {sum(unsafe.values())} unsafe blocks")
    for what, by_file in (("folders", False), ("files", True)):
        found = circles(survey(root, by_file)[3])
        print(f"circles of {what}: {[len(circle) for circle in sorted(found, key=len, reverse=True)] or 'none'}")
        if by_file:
            by = survey(root, True)[2]
            print(f"files with unsafe blocks: {sum(1 for n in by.values() if n)}")
        for circle in sorted(found, key=len, reverse=True):
            print(f"  {', '.join(sorted(circle))}")


if __name__ == "__main__":
    main()
