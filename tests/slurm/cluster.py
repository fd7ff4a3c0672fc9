"""A real Slurm cluster on this machine, for tests: two nodes with two fake GPUs each, in a folder of its own.

`python tests/slurm/cluster.py COMMAND...` starts it, runs the command in it, and stops everything again. It needs root,
and installs missing packages with apt. `--without-accounting` leaves out the database, so that `sacct` fails.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = {
    "munged": "munge",
    "mungekey": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sinfo": "slurm-client",
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
}
PACKAGES = [*dict.fromkeys(PROGRAMS.values()), "slurm-wlm-mysql-plugin"]
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

SLURM_CONF = """\
ClusterName=volprompt
SlurmctldHost=localhost
SlurmctldPort={slurmctld}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,sched_min_interval=0
MpiDefault=none
ReturnToService=2
MinJobAge=300
KillWait=2
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={n1} CPUs=16 RealMemory=64000 Gres=gpu:fake:2
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={n2} CPUs=16 RealMemory=64000 Gres=gpu:fake:2
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=ALL MaxTime=INFINITE State=UP
"""
WITH_ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={slurmdbd}
AccountingStoragePass={folder}/munge.socket
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
"""
SLURMDBD_CONF = """\
DbdHost=localhost
DbdPort={slurmdbd}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mariadb}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm
"""
# A fake GPU is a device like /dev/null: Slurm numbers devices, and never opens them.
GRES_CONF = "NodeName=n[1-2] Name=gpu Type=fake File={folder}/nvidia[0-1]\n"


class Cluster:
    """The cluster, from entering to leaving a `with` block; its commands need `environment`."""

    def __init__(self, accounting: bool = True) -> None:
        self.accounting = accounting
        self.folder = Path()
        self.environment: dict[str, str] = {}
        self._daemons: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> Cluster:
        install()
        self.folder = Path(tempfile.mkdtemp(prefix="volprompt-slurm-"))
        self.folder.chmod(0o755)  # munge checks it
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH", "CUDA"))}
        self.environment = {**kept, "SLURM_CONF": str(self.folder / "slurm.conf")}
        self.environment["PATH"] = f"{self.folder}/bin:{kept.get('PATH', '')}:{PATH}"
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self, *command: str, check: bool = True) -> str:
        """What a command prints in the cluster."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def stop(self) -> None:
        """Cancel all jobs, end all daemons and remove the folder."""
        if "slurmctld" in self._daemons:
            self.run("scancel", "--user", "root", check=False)
            deadline = time.monotonic() + 10
            while self.run("squeue", "--noheader", check=False).strip() and time.monotonic() < deadline:
                time.sleep(0.2)
        for daemon in reversed(self._daemons.values()):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self) -> None:
        folder = self.folder
        ports = dict(zip(("slurmctld", "slurmdbd", "n1", "n2", "mariadb"), free_ports(5), strict=True))
        values = {"folder": folder, "password": secrets.token_hex(16), **ports}
        (folder / "state").mkdir()
        for number in range(2):
            os.mknod(folder / f"nvidia{number}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        (folder / "gres.conf").write_text(GRES_CONF.format(**values))
        (folder / "slurm.conf").write_text((SLURM_CONF + WITH_ACCOUNTING * self.accounting).format(**values))

        # The plugin starts srun without SLURM_CONF, so as to find the configuration of the whole machine.
        (folder / "bin").mkdir()
        (folder / "bin" / "srun").write_text(
            f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun", path=PATH)} "$@"\n'
        )
        (folder / "bin" / "srun").chmod(0o755)

        self.run("mungekey", "--create", f"--keyfile={folder}/munge.key")
        options = [f"--{kind}-file={folder}/munge.{kind}" for kind in ("key", "log", "pid", "seed")]
        self._daemon("munged", "munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *options)
        self._wait("munge", lambda: (folder / "munge.socket").exists())
        if self.accounting:
            self._start_accounting(values)
        self._daemon("slurmctld", "slurmctld", "-D")
        for node in ("n1", "n2"):
            self._daemon(node, "slurmd", "-D", "-N", node)
        states = ("sinfo", "-h", "-N", "-p", "cpu", "-o", "%t")
        self._wait("the nodes", lambda: self.run(*states, check=False).split() == ["idle", "idle"])

    def _start_accounting(self, values: dict[str, object]) -> None:
        folder = self.folder
        data = f"--datadir={folder}/mariadb"
        self.run("mariadb-install-db", "--no-defaults", data, "--user=root", "--auth-root-authentication-method=normal")
        (folder / "users.sql").write_text(
            "CREATE DATABASE slurm; CREATE USER 'slurm'@'%' IDENTIFIED BY '{password}';"
            "GRANT ALL ON slurm.* TO 'slurm'@'%';".format(**values)
        )
        options = [data, "--user=root", "--bind-address=127.0.0.1", f"--port={values['mariadb']}"]
        options += [f"--socket={folder}/mariadb.socket", "--innodb-lock-wait-timeout=900"]
        options += ["--innodb-flush-log-at-trx-commit=0", "--skip-name-resolve"]
        self._daemon("mariadb", "mariadbd", "--no-defaults", *options)
        root = ("mariadb", "--no-defaults", f"--socket={folder}/mariadb.socket", "-u", "root", "-e")
        self._wait("MariaDB", lambda: "1" in self.run(*root, "SELECT 1", check=False))
        self.run(*root, f"source {folder}/users.sql")
        configuration = folder / "slurmdbd.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(SLURMDBD_CONF.format(**values))
        self._daemon("slurmdbd", "slurmdbd", "-D")
        accounts = ("sacctmgr", "-i", "add")
        self._wait("slurmdbd", lambda: "root" in self.run("sacctmgr", "-nP", "list", "user", check=False))
        self.run(*accounts, "cluster", "volprompt", check=False)
        self.run(*accounts, "account", "lab", "cluster=volprompt")
        self.run("sacctmgr", "-i", "add", "user", "root", "account=lab", check=False)
        self.run("sacctmgr", "-i", "modify", "user", "root", "set", "DefaultAccount=lab", check=False)

    def _daemon(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            self._daemons[name] = subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                start_new_session=True,
            )

    def _wait(self, what: str, ready: Callable[[], bool], seconds: float = 180) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            ended = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            if ended or time.monotonic() > deadline:
                logs = [path for path in self.folder.iterdir() if path.suffix in (".log", ".out")]
                texts = [f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in logs]
                raise RuntimeError("\n".join([f"{what}: did not start; ended: {ended or 'none'}", *texts]))
            time.sleep(0.2)


def install() -> None:
    """Install what is missing with apt. Ends the program with a clear message where that cannot be."""
    if os.geteuid() != 0:
        sys.exit("The test cluster needs root: its nodes start jobs. Run this as root, in a container for example.")
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        sys.exit(f"The test cluster needs {', '.join(missing)}: install Slurm, MUNGE and MariaDB.")
    # The packages of daemons would start them; this policy keeps them from it.
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *PACKAGES]):
            done = subprocess.run(["apt-get", *command], env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"apt-get {command[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    finally:
        if ours:
            policy.unlink()


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nothing uses."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without-accounting", action="store_true", help="no database: sacct fails, squeue works")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what to run in the cluster, such as bash")
    arguments = parser.parse_args()
    if not arguments.command:
        parser.error("name a command, such as bash")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with Cluster(accounting=not arguments.without_accounting) as cluster:
        return subprocess.run(arguments.command, env=cluster.environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
