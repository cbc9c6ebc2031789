"""One thread for all networks.

gradio answers each visitor in a thread of its own, and Jittor is not made for several
threads: its graph, its random generator and its flags belong to the whole process.
"""

import queue
from concurrent.futures import Future


class Worker:
    """Runs functions one after another, in the thread that calls `serve`."""

    def __init__(self):
        self.jobs = queue.SimpleQueue()
        self.is_closed = False

    def call(self, function, *arguments):
        """The result of a function, which may raise; callable from any thread."""
        future = Future()
        if self.is_closed:
            raise RuntimeError("the page is closed")
        self.jobs.put((future, function, arguments))
        return future.result()

    def serve(self):
        """Runs what `call` asks for, until `stop`."""
        try:
            while True:
                job = self.jobs.get()
                if job is None:
                    return
                run(*job)
        finally:
            self.is_closed = True
            self.refuse_the_rest()

    def stop(self):
        """Makes `serve` return after what was asked for before; from any thread."""
        self.jobs.put(None)

    def refuse_the_rest(self):
        """Nobody may wait for ever for an answer that does not come."""
        while not self.jobs.empty():
            job = self.jobs.get()
            if job is not None:
                future, _, _ = job
                future.set_exception(RuntimeError("the page is closed"))


def run(future, function, arguments):
    try:
        result = function(*arguments)
    except Exception as error:
        future.set_exception(error)
    except BaseException as error:  # Ctrl-C ends the thread too
        future.set_exception(RuntimeError("the page is closed"))
        raise error
    else:
        future.set_result(result)
