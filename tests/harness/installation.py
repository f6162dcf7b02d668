"""Copies of a PostgreSQL installation, in which a test can put extensions without touching the original.

Files are symbolic links to the original's, except for the programs: a server looks for its files beside its own program.
"""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Installation:
    """A copy of the installation that `pg_config` is of, in a folder."""

    def __init__(self, folder, pg_config=None):
        original = pg_config or os.environ.get("PG_CONFIG") or "pg_config"
        ask = lambda option: Path(subprocess.run([original, option], text=True, check=True, capture_output=True).stdout.strip())
        places = {option: ask(option) for option in ("--bindir", "--pkglibdir", "--sharedir", "--includedir-server")}
        if places["--pkglibdir"].is_relative_to(libraries := ask("--libdir")):
            places["--libdir"] = libraries  # with the libraries that its programs look for beside themselves
        common = Path(os.path.commonpath(places.values()))
        inside = {option: Path(folder) / place.relative_to(common) for option, place in places.items()}
        for option, place in places.items():
            copy = inside[option]
            if copy.exists():
                continue  # within another place
            copy.parent.mkdir(parents=True, exist_ok=True)
            links = [] if option == "--bindir" else ["-s"]
            subprocess.run(["cp", "-a", "-L" if option == "--bindir" else "-P", *links, place, copy], check=True)
        self.pg_config = str(inside["--bindir"] / "pg_config")
        self.extensions = inside["--sharedir"] / "extension"
        self.libraries = inside["--pkglibdir"]
        for folder in (Path(folder), *Path(folder).parents):  # a server of another user runs in it
            if os.stat(folder).st_uid == os.getuid() and os.stat(folder).st_mode & 0o5 != 0o5:
                folder.chmod(os.stat(folder).st_mode | 0o55)

    def run(self, *command, check=True, **variables):
        """Run a script of scripts/ for this installation; returns its outcome."""
        environment = os.environ | {"PG_CONFIG": self.pg_config} | variables
        return subprocess.run([str(ROOT / "scripts" / command[0]), *command[1:]], text=True, check=check, capture_output=True,
                              env=environment)

    def remove(self, pattern):
        """Remove the extension's files whose names match."""
        for folder in (self.extensions, self.libraries):
            for file in folder.glob(pattern):
                file.unlink()

    def add(self, other, *patterns):
        """Add files of extensions of another installation."""
        for mine, theirs in ((self.extensions, other.extensions), (self.libraries, other.libraries)):
            for pattern in patterns:
                for file in theirs.glob(pattern):
                    target = mine / file.name
                    target.unlink(missing_ok=True)
                    shutil.copy(file, target)
