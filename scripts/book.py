"""Puts the book's chapters together: documents of this repository, and docs/book, whose pages take in sections of them. Every link is
checked, anchors too; one to a file that is no chapter becomes the file's name.

    book.py FOLDER      writes FOLDER/book.toml and FOLDER/src, for mdBook
"""

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUMMARY = ROOT / "docs/book/SUMMARY.md"
TOML = """[book]
title = "vector_ext"
description = "Vector similarity search in PostgreSQL"
language = "en"

[output.html]
no-section-label = true
"""
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
IMAGES = (".svg", ".png")


def without_code(text):
    """The text with the same length, code blanked: no links, no headings in it."""
    return re.sub(r"^```.*?^```|`[^`\n]*`", lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.MULTILINE | re.DOTALL)


def slug(heading):
    heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(text):
    """Anchors of headings; another of the same name has a number."""
    seen, found = {}, set()
    for line, plain in zip(text.splitlines(), without_code(text).splitlines()):
        if match := re.match(r"#{1,6} ", plain):
            name = slug(line[match.end():])
            number = seen[name] = seen.get(name, -1) + 1
            found.add(f"{name}-{number}" if number else name)
    return found


def section(file, heading):
    """The body of a section of a document."""
    text = (ROOT / file).read_text()
    starts = [(m.start(), m.end(), len(m[1])) for m in re.finditer(r"^(#+) .*\n", without_code(text), re.MULTILINE)]
    for i, (start, end, level) in enumerate(starts):
        if text[start:end].lstrip("#").strip() == heading:
            # The first one of a document ends where the next begins.
            after = next((s for s, _, other in starts[i + 1:] if level == 1 or other <= level), len(text))
            return text[end:after].strip()
    raise SystemExit(f"{file} has no section {heading!r}")


class Book:
    def __init__(self):
        self.summary = SUMMARY.read_text()
        self.names = {}  # document: chapter
        for _, _, target in LINK.findall(self.summary):
            self.names[target] = target.removeprefix("docs/book/").replace("/", "-").lower()
        self.sections = {}  # (document, anchor of a section): chapter that takes it in
        self.texts = {document: self.expanded(document) for document in self.names}
        self.images, self.wrong = {}, []

    def expanded(self, document):
        """A chapter with its sections, their links as from the chapter's own place."""
        def take_in(match):
            file, heading = match[1], match[2].strip('"')
            body = section(file, heading)
            for anchor in {slug(heading), *anchors(body)}:
                self.sections.setdefault((file, anchor), document)
            return self.moved(body, file, document)
        return re.sub(r"^\{\{section (\S+) (\".*\"|\S+)\}\}$", take_in, (ROOT / document).read_text(), flags=re.MULTILINE)

    def moved(self, text, source, target):
        """Links of a text from one document, put into another: from the root of the repository, marked by a slash."""
        def moved(image, label, link):
            if "://" in link or link.startswith("mailto:"):
                return None
            path, _, anchor = link.partition("#")
            whole = (ROOT / source).parent / path if path else ROOT / source
            return f"{image}[{label}](/{whole.resolve().relative_to(ROOT)}{'#' + anchor if anchor else ''})"
        return self.links(text, moved)

    @staticmethod
    def links(text, change):
        """The text with its links changed, where `change` has something else for them; not those in code."""
        out, last = [], 0
        plain = without_code(text)
        for match in LINK.finditer(text):
            if plain[match.start()] == " " or (new := change(*match.groups())) is None:
                continue
            out += [text[last:match.start()], new]
            last = match.end()
        return "".join(out) + text[last:]

    def chapter(self, document):
        """A chapter's text, with links to chapters."""
        def change(image, label, link):
            if "://" in link or link.startswith("mailto:"):
                return None
            path, _, anchor = link.partition("#")
            if not path:
                if anchor not in anchors(self.texts[document]):
                    self.wrong.append(f"{document}: #{anchor}")
                return None
            whole = ROOT / path[1:] if path.startswith("/") else (ROOT / document).parent / path
            if not whole.exists() or not whole.resolve().is_relative_to(ROOT):
                self.wrong.append(f"{document}: {link}")
                return None
            file = str(whole.resolve().relative_to(ROOT))
            if whole.suffix in IMAGES:
                self.images[file.replace("/", "-")] = whole
                return f"{image}[{label}]({file.replace('/', '-')})"
            chapter = file if file in self.names else self.sections.get((file, anchor))
            if chapter is None:
                return label if label.strip("`") == path else f"{label} (`{file}`)"
            if anchor and anchor not in anchors(self.texts[chapter]):
                # The section that has become a chapter is the chapter.
                if (file, anchor) not in self.sections:
                    self.wrong.append(f"{document}: {link}")
                anchor = ""
            return f"[{label}]({self.names[chapter]}{'#' + anchor if anchor else ''})"
        return self.links(self.texts[document], change)

    def write(self, folder):
        source = folder / "src"
        shutil.rmtree(folder, ignore_errors=True)
        source.mkdir(parents=True)
        for document, name in self.names.items():
            (source / name).write_text(self.chapter(document))
        for name, image in self.images.items():
            shutil.copy(image, source / name)
        (source / "SUMMARY.md").write_text(self.links(self.summary, lambda image, label, link: f"[{label}]({self.names[link]})"))
        (folder / "book.toml").write_text(TOML)
        if self.wrong:
            raise SystemExit("links that lead nowhere:\n  " + "\n  ".join(self.wrong))


if __name__ == "__main__":
    Book().write(Path(sys.argv[1]))
