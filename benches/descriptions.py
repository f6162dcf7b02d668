"""What Debian's packages say of themselves: name, summary and description of each, from the archive's translations into English,
which apt fetches into a folder of its own.
"""

import json
import re
import subprocess
from pathlib import Path


def _translations(folder):
    """apt's files of descriptions."""
    lists = folder / "lists"
    found = sorted(lists.glob("*_main_i18n_Translation-en*"))
    if not found:
        print("fetching the descriptions of Debian's packages (20 MB)", flush=True)
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        options = [f"Dir::State::lists={lists.resolve()}", "Acquire::Languages=en", "APT::Sandbox::User=root",
                   f"Dir::Cache::pkgcache={folder.resolve()}/pkgcache", f"Dir::Cache::srcpkgcache={folder.resolve()}/srcpkgcache"]
        command = ["apt-get", "--quiet", "--quiet", *(word for option in options for word in ("-o", option)), "update"]
        subprocess.run(command, check=True)
        found = sorted(lists.glob("*_main_i18n_Translation-en*"))
    return found


def packages(folder):
    """(name, summary, description) of each package, by name; None of them is empty."""
    folder = Path(folder)
    ready = folder / "packages.json"
    if not ready.exists():
        folder.mkdir(parents=True, exist_ok=True)
        of_name = {}
        for file in _translations(folder):
            text = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", str(file)], check=True, capture_output=True, text=True).stdout
            for record in text.split("\n\n"):
                name = re.match(r"Package: (\S+)", record)
                summary = re.search(r"^Description-en: (.*)((?:\n .*)*)", record, re.MULTILINE)
                if name and summary:
                    body = " ".join(re.sub(r"^ \.?", "", line) for line in summary[2].split("\n"))
                    of_name[name[1]] = (name[1], summary[1].strip(), " ".join(body.split()))
        ready.write_text(json.dumps([of_name[name] for name in sorted(of_name) if all(of_name[name])]))
    return [tuple(package) for package in json.loads(ready.read_text())]
