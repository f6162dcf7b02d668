"""A throwaway PostgreSQL server, for the tests, the demo and the benchmark.

    with Cluster() as cluster:
        with cluster.connect() as connection:
            connection.execute("SELECT 1")

PostgreSQL refuses to run as root, so when root starts it the server belongs to the user `postgres`. A server has a
folder of its own, listens on a Unix socket in that folder only, and is stopped and removed when the block ends. Should
this process be killed, a small guard process does it.
"""

import contextlib
import ctypes
import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

SUPERUSER = "postgres"
PORT = 5432  # names the socket file; nothing listens on a network port

SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",  # a crash of the server loses nothing by it, only a crash of the machine does
    "shared_buffers": "128MB",
    "max_wal_size": "4GB",
    "autovacuum": "off",  # tests vacuum when they mean to
    "statement_timeout": "300s",
    "wal_retrieve_retry_interval": "100ms",  # a standby need not wait for seconds
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] ",
    "lc_messages": "C",
}


def server_user():
    """The system user that servers run as: this one, or `postgres` when this one is root."""
    return "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


def as_server_user(command):
    """The command, prefixed to run as `server_user()`."""
    command = [str(word) for word in command]
    return ["runuser", "-u", server_user(), "--", *command] if os.geteuid() == 0 else command


def process_status(process):
    """What /proc/PID/stat says after the name: state, parent, …; nothing for a process that is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_there(process):
    """Whether a process exists. Takes leave of it if it is dead and this process is its parent."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process, os.WNOHANG)
    return process_status(process) is not None


def adopt_orphans():
    """Make this process the parent of those whose parent ends, as a postmaster's does. Killed ones then go at once;
    otherwise a server cannot start again before the system's first process has taken leave of its last postmaster."""
    set_child_subreaper = 36
    ctypes.CDLL(None, use_errno=True).prctl(set_child_subreaper, 1, 0, 0, 0)


def children(parent):
    """The processes that a process has started and that are still there."""
    statuses = {int(entry): process_status(entry) for entry in os.listdir("/proc") if entry.isdigit()}
    return [process for process, status in statuses.items() if status and int(status[1]) == parent]


class Cluster:
    """One server. Use it as a context manager, or call `start()` and, whatever happens, `destroy()`."""

    def __init__(self, pg_config=None, settings=None, standby_of=None, copy_of=None, environment=None):
        """`standby_of`: a server to follow. `copy_of`: a data folder of which a copy is started. `environment`: variables that the
        server has besides."""
        self.pg_config = pg_config or os.environ.get("PG_CONFIG") or "pg_config"
        self.bindir = Path(self._ask_pg_config("--bindir"))
        self.version = int(self._ask_pg_config("--version").split()[1].split(".")[0].rstrip("abcdefghijklmnopqrstuvwxyz"))
        self.settings = SETTINGS | (settings or {})
        self.standby_of, self.copy_of = standby_of, copy_of
        self.environment = environment or {}
        self.folder = self.data = self.log = None
        self.guard = None

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.destroy()
            raise

    def __exit__(self, *_):
        self.destroy()

    # Life

    def start(self):
        """Start the server; the first time, make its folder and its data as well."""
        if self.folder is None:
            self._create()
        self._run("pg_ctl", "-D", self.data, "-l", self.log, "-w", "-t", "120", "start", environment=self.environment)
        return self

    def stop(self):
        """An orderly shutdown."""
        self._run("pg_ctl", "-D", self.data, "-m", "fast", "-w", "-t", "120", "stop")

    def crash(self):
        """Kill the server without a checkpoint: the next start has to recover from the WAL."""
        self._run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "-t", "120", "stop")

    def kill(self):
        """SIGKILL to all processes of the server at one moment: it loses all that it has not written."""
        postmaster = int((self.data / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGSTOP)  # starts no more processes
        processes = [postmaster, *children(postmaster)]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)
        give_up = time.monotonic() + 60
        while any(is_there(process) for process in processes):
            if time.monotonic() > give_up:
                raise TimeoutError("a process of the server survives SIGKILL")
            time.sleep(0.002)

    def kill_while_starting(self, delay):
        """Start the server and kill it so many seconds after its first processes are there: amid recovery, or after it."""
        started = len(self.log.read_text())
        self._run("pg_ctl", "-D", self.data, "-l", self.log, "-W", "start")
        while "database system was" not in self.log.read_text()[started:]:
            time.sleep(0.001)
        time.sleep(delay)
        self.kill()

    def restart(self):
        self.stop()
        return self.start()

    def promote(self):
        """Make a standby a primary."""
        self._run("pg_ctl", "-D", self.data, "-w", "-t", "120", "promote")

    def destroy(self):
        """Stop the server and remove all that it wrote. Never fails, may be called again."""
        if self.folder is not None:
            if (self.data / "postmaster.pid").exists():
                self._run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "-t", "60", "stop", check=False)
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None
        self._dismiss_guard()

    def save(self, name):
        """A copy of the data folder of a server that is stopped, beside it."""
        subprocess.run(as_server_user(["cp", "-r", self.data, self.folder / name]), check=True)
        return self.folder / name

    def keep(self):
        """Leave the server running when this process ends, and return the folder for `adopt`."""
        folder, self.folder = self.folder, None
        self._dismiss_guard()
        return folder

    def adopt(self, folder):
        """Take charge of a server that another process left running in this folder."""
        self.folder = Path(folder)
        self.data, self.log = self.folder / "data", self.folder / "server.log"
        return self

    def standby(self, settings=None):
        """A new physical standby of this server, to be used as a context manager."""
        return Cluster(self.pg_config, settings, standby_of=self)

    # Use

    def limit_memory(self, size, process=None):
        """Let processes that the server starts from now on (or this one) have so many bytes of addresses, as `ulimit -v`
        does; None: no limit."""
        process = process or int((self.data / "postmaster.pid").read_text().split()[0])
        size = "unlimited" if size is None else size
        subprocess.run(as_server_user(["prlimit", "--pid", process, f"--as={size}:"]), check=True)

    def limit_room(self, process, room):
        """Let a process have so many bytes of addresses more than it has now."""
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[0])
        self.limit_memory(pages * os.sysconf("SC_PAGE_SIZE") + room, process)

    def connect(self, dbname="postgres", **options):
        """A psycopg connection, in autocommit mode unless told otherwise."""
        options = {"autocommit": True} | options
        return psycopg.connect(host=str(self.folder), port=PORT, user=SUPERUSER, dbname=dbname, **options)

    def url(self, dbname="postgres", driver="postgresql"):
        """The server's address as a URL, as SQLAlchemy and others want it."""
        return f"{driver}://{SUPERUSER}@/{dbname}?host={self.folder}&port={PORT}"

    def psql_line(self, dbname="postgres"):
        """What to type into a shell to look at this server."""
        return shlex.join([str(self.bindir / "psql"), "-h", str(self.folder), "-p", str(PORT), "-U", SUPERUSER, dbname])

    def psql(self, sql, dbname="postgres"):
        """Run a script through psql and return what it prints, unaligned and without headings."""
        command = shlex.split(self.psql_line(dbname)) + ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        return subprocess.run(command, input=sql, text=True, check=True, capture_output=True).stdout

    def dump(self, dbname):
        """The database as pg_dump writes it."""
        command = [self.bindir / "pg_dump", "-h", self.folder, "-p", PORT, "-U", SUPERUSER, dbname]
        return subprocess.run([str(word) for word in command], text=True, check=True, capture_output=True).stdout

    def create_database(self, name, extension=None):
        """Make a database, with the extension in it when one is named."""
        with self.connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        if extension:
            with self.connect(name) as connection:
                connection.execute(f"CREATE EXTENSION {extension}")
        return name

    def wait_for_replay(self, timeout=120):
        """On a standby: wait until it has replayed all that its primary has written so far."""
        with self.standby_of.connect() as primary, self.connect() as standby:
            target = primary.execute("SELECT pg_logical_emit_message(true, 'until', 'here')").fetchone()[0]
            give_up = time.monotonic() + timeout
            while not standby.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (target,)).fetchone()[0]:
                if time.monotonic() > give_up:
                    raise TimeoutError(f"the standby did not reach {target} in {timeout} s\n{self.log_tail()}")
                time.sleep(0.05)

    def wait_for_promotion(self, timeout=120):
        """Wait for the end of recovery."""
        with self.connect() as connection:
            give_up = time.monotonic() + timeout
            while connection.execute("SELECT pg_is_in_recovery()").fetchone()[0]:
                if time.monotonic() > give_up:
                    raise TimeoutError(f"recovery did not end in {timeout} s\n{self.log_tail()}")
                time.sleep(0.02)

    def wal_records(self):
        """The records in all files of WAL, in order: (LSN, resource manager, first relation that it changes)."""
        wal = self.data / "pg_wal"
        files = sorted(file.name for file in wal.iterdir() if len(file.name) == 24)
        dump = self._run("pg_waldump", "-p", wal, files[0], files[-1], check=False)  # the last file does not end with a record
        found = (re.match(r"rmgr: (\S+) .* lsn: (\S+), prev(?:.* rel (\S+) )?", line) for line in dump.splitlines())
        return [(match[2], match[1], match[3]) for match in found if match]

    def log_tail(self, lines=40):
        """The end of the server's log."""
        if self.log is None or not self.log.exists():
            return "(no server log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    # Within

    def _create(self):
        self.adopt(tempfile.mkdtemp(prefix="vector_ext-", dir=os.environ.get("VECTOR_EXT_TMP", "/tmp")))
        if os.geteuid() == 0:
            shutil.chown(self.folder, server_user())
        self._post_guard()
        if self.copy_of is not None:
            subprocess.run(as_server_user(["cp", "-r", self.copy_of, self.data]), check=True)
        elif self.standby_of is None:
            # Tests damage pages; from PostgreSQL 18 on checksums, which would find that first, are the default.
            checksums = ["--no-data-checksums"] if self.version >= 18 else []
            self._run("initdb", "-D", self.data, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync",
                      *checksums)
        else:
            self._run("pg_basebackup", "-D", self.data, "-h", self.standby_of.folder, "-p", PORT, "-U", SUPERUSER,
                      "-R", "-X", "stream", "-c", "fast", "--no-sync")
        settings = self.settings | {"unix_socket_directories": str(self.folder), "port": str(PORT)}
        with open(self.data / "postgresql.conf", "a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def _run(self, program, *arguments, check=True, environment=None):
        """Run one of the server's programs as the server's user, and quote its output when it fails."""
        variables = [f"{name}={value}" for name, value in (environment or {}).items()]
        command = as_server_user(["env", *variables, self.bindir / program, *arguments])
        done = subprocess.run(command, cwd=self.folder, text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if check and done.returncode != 0:
            raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stdout}\n{self.log_tail()}")
        return done.stdout

    def _ask_pg_config(self, option):
        return subprocess.run([self.pg_config, option], text=True, check=True, capture_output=True).stdout.strip()

    def _post_guard(self):
        """Start a process that outlives this one and cleans up if this one is killed.

        It waits for the end of a pipe whose other end only this process holds.
        """
        stop = shlex.join(as_server_user([self.bindir / "pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop"]))
        script = f"read -r line; cd /; {stop} >/dev/null 2>&1; rm -rf {shlex.quote(str(self.folder))}"
        self.guard = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL, start_new_session=True)

    def _dismiss_guard(self):
        if self.guard is not None:
            self.guard.kill()
            self.guard.wait()
            self.guard.stdin.close()
            self.guard = None


def exit_on_signals():
    """Turn SIGTERM and SIGHUP into an exit that unwinds, as Ctrl-C does, so that servers are stopped."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
