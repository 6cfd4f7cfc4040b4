"""Runs commands and measures them, where they run: this machine for kiln, the tree of scripts/peers.sh for the others.

Reads one JSON request a line, answers one a line; see `Room` in room.py. The clock starts right before a command is
spawned and stops when it has been waited for, so that entering name spaces is nobody's time. A program of its own, and small:
what a child was before it became the command counts as its memory (about 12 MiB here).
"""

import json
import os
import signal
import sys
import threading
import time

MIB = 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")
DAEMONS = {"dockerd", "containerd", "buildkitd"}


def spawn(run):
    log = os.open(run["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
        # A group of its own, so that one that takes too long can be ended with all it has started.
        return os.posix_spawnp(run["argv"][0], run["argv"], run["env"], file_actions=actions, setpgroup=0)
    finally:
        os.close(log)


RUNNING = {}  # what is being measured: pid to its request


def end(group):
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def processes():
    """pid to parent, name."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    head, tail = file.read().rsplit(")", 1)
            except OSError:
                continue
            found[int(entry)] = (int(tail.split()[1]), head.split("(", 1)[1])
    return found


def descendants(roots):
    """The processes below some, with themselves: pid to name."""
    everything, found, added = processes(), {}, set(roots)
    while added:
        found.update({pid: everything[pid][1] for pid in added if pid in everything})
        added = {pid for pid, (parent, _) in everything.items() if parent in found and pid not in found}
    return found


class Sampler(threading.Thread):
    """Looks at the processes of one program twenty times a second: open files and memory of one, memory of all together."""

    def __init__(self, roots, name):
        super().__init__(daemon=True)
        self.roots, self.name, self.files, self.largest, self.together, self.over = roots, name, 0, 0, 0, threading.Event()

    def run(self):
        while not self.over.wait(0.05):
            private = shared = 0
            for pid, name in descendants(list(self.roots)).items():
                if name != self.name:
                    continue
                try:
                    self.files = max(self.files, len(os.listdir(f"/proc/{pid}/fd")))
                    with open(f"/proc/{pid}/statm") as file:
                        _, resident, common = map(int, file.read().split()[:3])
                    self.largest = max(self.largest, high_water(pid))
                except OSError:
                    continue
                private, shared = private + resident - common, max(shared, common)
            self.together = max(self.together, (private + shared) * PAGE / MIB)


def high_water(pid):
    """MiB that a process has taken at most; 0 for one that is about to end."""
    with open(f"/proc/{pid}/status") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def daemons_of(roots):
    return [pid for pid, name in descendants(roots).items() if name[:15] in DAEMONS]


def forget_peak(roots):
    for pid in daemons_of(roots):
        try:
            with open(f"/proc/{pid}/clear_refs", "w") as file:
                file.write("5")
        except OSError:
            pass


def peak(roots):
    """MiB that the daemons have taken at most since `forget_peak`, each one's most added up."""
    total = 0
    for pid in daemons_of(roots):
        try:
            total += high_water(pid)
        except OSError:
            pass
    return total


def measure(request):
    """Runs one or several commands at once."""
    runs, watched = request["runs"], request["daemons"]
    forget_peak(watched)
    children, late = RUNNING, threading.Event()
    children.clear()
    sampler = Sampler(children, os.path.basename(runs[0]["argv"][0])[:15]) if request["sample"] else None

    def stop():
        late.set()
        for child in list(children):
            end(child)

    timer = threading.Timer(request["timeout"], stop)
    timer.start()
    started = time.perf_counter()
    for run in runs:
        children[spawn(run)] = run
        if sampler and not sampler.is_alive():
            sampler.start()
    codes, memory = [], 0
    for child in list(children):
        _, status, usage = os.wait4(child, 0)
        codes.append(os.waitstatus_to_exitcode(status))
        memory = max(memory, usage.ru_maxrss / 1024)
    seconds = time.perf_counter() - started
    timer.cancel()
    answer = {"seconds": seconds, "codes": codes, "memory": memory, "daemons": peak(watched), "late": late.is_set()}
    if sampler:
        sampler.over.set()
        sampler.join()
        answer |= {"files": sampler.files, "own": sampler.largest, "together": max(sampler.together, memory)}
    return answer


def stop_daemon(request):
    try:
        os.kill(request["pid"], signal.SIGTERM)
        for _ in range(200):
            if os.waitpid(request["pid"], os.WNOHANG)[0]:
                break
            time.sleep(0.05)
        else:
            end(request["pid"])
            os.waitpid(request["pid"], 0)
    except (ChildProcessError, ProcessLookupError):
        pass
    end(request["pid"])
    return {}


ANSWERS = {"measure": measure, "start": lambda request: {"pid": spawn(request)}, "stop": stop_daemon}


def give_up(*_):
    for child in list(RUNNING):
        end(child)
    os._exit(130)


def main():
    signal.signal(signal.SIGTERM, give_up)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = ANSWERS[request["do"]](request)
        except OSError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
