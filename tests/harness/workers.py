"""Functions that run beside each other, each in a process of its own."""

import multiprocessing
import time
import traceback

FORK = multiprocessing.get_context("fork")


class Workers:
    """Processes that run one function each. What they return, or why they failed, is known after `join`.

    As a context manager: on leaving, processes that still run are killed.
    """

    def __init__(self):
        self.processes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process, pipe in self.processes:
            process.kill()
            process.join()
            pipe.close()

    def start(self, function, *arguments):
        ours, theirs = FORK.Pipe(duplex=False)
        process = FORK.Process(target=_run, args=(theirs, function, arguments), daemon=True)
        process.start()
        theirs.close()
        self.processes.append((process, ours))

    def failed(self):
        """Whether one of them has ended, which before `join` means that it failed."""
        return any(not process.is_alive() for process, _ in self.processes)

    def join(self, timeout):
        """Wait for all, and return what they returned. AssertionError when one failed or does not come to its end."""
        give_up = time.monotonic() + timeout
        results, failures = [], []
        for number, (process, pipe) in enumerate(self.processes):
            if not pipe.poll(max(0, give_up - time.monotonic())):
                failures.append(f"worker {number} hangs (process {process.pid})")
                continue
            try:
                failure, result = pipe.recv()
            except EOFError:
                failure, result = f"worker {number} died", None
            if failure:
                failures.append(failure)
            results.append(result)
        assert not failures, "\n".join(failures)
        return results


def _run(pipe, function, arguments):
    try:
        answer = None, function(*arguments)
    except BaseException:
        answer = traceback.format_exc(), None
    pipe.send(answer)
    pipe.close()
