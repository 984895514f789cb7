"""A real Slurm of one node on loopback, as Debian packages it: munge, slurmctld, slurmd. Started as root, stopped
with all its processes, everything it writes in one folder."""

import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import tempfile
import time

from measure import free_port


class Slurm:
    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="slurm-"))
        self.folder.chmod(0o755)
        self.processes = []

    def __enter__(self):
        munge = pwd.getpwnam("munge")
        key, run = self.folder / "munge.key", self.folder / "munge"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        run.mkdir(mode=0o755)
        for path in (key, run):
            os.chown(path, munge.pw_uid, munge.pw_gid)
        self.start("munged", "-F", "--force", f"--key-file={key}", f"--socket={run}/socket",
                   f"--pid-file={run}/pid", f"--seed-file={run}/seed", f"--log-file={run}/log",
                   user="munge", group="munge")
        host = socket.gethostname().split(".")[0]
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        self.conf = self.folder / "slurm.conf"
        # As quick as Slurm can be set to start a job: a scheduler that runs at every submission, no accounting.
        self.conf.write_text(f"""
ClusterName=bench
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
AuthInfo=socket={run}/socket
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd.pid
SlurmctldLogFile={self.folder}/slurmctld.log
SlurmdLogFile={self.folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
ReturnToService=2
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
""")
        self.environment = {**os.environ, "SLURM_CONF": str(self.conf)}
        time.sleep(0.5)
        self.start("slurmctld", "-D")
        self.start("slurmd", "-D", "-N", host)
        deadline = time.monotonic() + 30
        while self.command("sinfo", "-h", "-o", "%T").strip() not in ("idle", "mixed"):
            assert time.monotonic() < deadline, (self.folder / "slurmctld.log").read_text()[-3000:]
            time.sleep(0.2)
        return self

    def start(self, program, *arguments, **identity):
        found = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        self.processes.append(subprocess.Popen(
            [found, *arguments], env=getattr(self, "environment", os.environ), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **identity))

    def command(self, *words, **options):
        return subprocess.run(words, env=self.environment, check=False, capture_output=True, text=True, timeout=60,
                              **options).stdout

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
