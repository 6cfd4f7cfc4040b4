"""A place where commands run and are measured: this machine, or the tree that the other builders live in."""

import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
PEERS = os.path.join(ROOT, "scripts/peers.sh")


class Failed(Exception):
    """A builder did not do what it was asked; the text says what it said."""


class Wrong(Failed):
    """What it made is not what it should have made; its time does not count."""


class Measured:
    """What one timed command, or several at once, took."""

    def __init__(self, answer):
        self.seconds = answer["seconds"]
        # MiB: the largest process, and the daemons it talks to. What a step runs counts in the first of these, but not in the second.
        self.memory = answer["memory"] + answer["daemons"]
        self.own = answer["own"] + answer["daemons"] if "own" in answer else None
        self.files = answer.get("files")  # open at once in one process, at most
        self.together = answer["together"] + answer["daemons"] if "together" in answer else None  # MiB, of all processes


class Room:
    """An agent, and the words for talking to it."""

    def __init__(self, shared=None):
        self.shared, self.is_tree, command = shared, shared is not None, ["python3", "-SE", os.path.join(HERE, "agent.py")]
        if self.is_tree:
            self.variables = {"HOME": "/root", "TMPDIR": "/tmp", "TERM": "dumb",
                              "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
            command = [PEERS, "with", *command]
        else:
            self.variables, command[0] = dict(os.environ), os.path.realpath(sys.executable)
        # A session of its own: an interrupt is for the bench, which ends its rooms then. And if that is killed, they end, too.
        command = ["setpriv", "--pdeathsig", "KILL" if self.is_tree else "TERM", *command]
        self.agent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
                                      env=dict(os.environ, KILN_PEERS_SHARED=shared or ""))

    def ask(self, **request):
        try:
            print(json.dumps(request), file=self.agent.stdin, flush=True)
            line = self.agent.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            where = "the tree of scripts/peers.sh (`scripts/peers.sh setup` makes it)" if self.is_tree else "this machine"
            raise Failed(f"nothing can be run in {where}: the agent ended with {self.agent.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def measure(self, commands, log, env=None, daemons=(), timeout=600, sample=False):
        """Runs commands at once; `log` gets the output, with a number behind its name when there are several."""
        logs = [log] if len(commands) == 1 else [f"{log}-{number}" for number in range(len(commands))]
        runs = [{"argv": argv, "env": self.variables | (env or {}), "log": name} for argv, name in zip(commands, logs)]
        answer = self.ask(do="measure", runs=runs, daemons=list(daemons), timeout=timeout, sample=sample)
        if answer["late"]:
            raise Failed(f"not done in {timeout} s")
        for code, run in zip(answer["codes"], runs):
            if code:
                with open(run["log"], errors="replace") as file:
                    said = file.read().strip()[-600:]
                raise Failed(f"exit {code}: {' '.join(run['argv'])[:200]}\n{said}")
        return Measured(answer)

    def run(self, command, log, env=None, timeout=600):
        """Runs a command that is not measured; its output."""
        self.measure([command], log, env, timeout=timeout)
        with open(log, errors="replace") as file:
            return file.read()

    def start(self, argv, log, env=None):
        return self.ask(do="start", argv=argv, env=self.variables | (env or {}), log=log)["pid"]

    def stop(self, pid):
        self.ask(do="stop", pid=pid)

    def is_alive(self):
        return self.agent.poll() is None

    def close(self):
        try:
            self.agent.stdin.close()
        except BrokenPipeError:
            pass  # it was abandoned
        self.agent.wait()
        if self.is_tree:
            subprocess.run([PEERS, "sweep"], env=dict(os.environ, KILN_PEERS_SHARED=self.shared), check=False)

    def abandon(self):
        """Ends all that runs; nothing can be asked any more."""
        if self.is_tree:
            self.agent.kill()  # its name spaces go with it
        else:
            self.agent.terminate()
