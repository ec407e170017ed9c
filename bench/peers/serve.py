"""One JSON line in, one JSON line out, until stdin closes. The same protocol as serve.mjs."""

import json
import platform
import sys
import time

import torch


def versions():
    return {"python": platform.python_version(), "torch": torch.__version__, "torch_threads": str(torch.get_num_threads())}


def serve(answer):
    print(json.dumps(versions()), flush=True)
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:  # the other side must hear of it, whatever it is
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)


# Nanoseconds: what takes longer than this once is warm after its first run, and by itself ever after.
LONG = 1e9


def timed_blocks(cases):
    """cases: name -> function(n) that runs the case n times. The first block of a case finds n."""
    counts = {}
    long = set()

    def time_of(run, n):
        start = time.perf_counter_ns()
        run(n)
        return time.perf_counter_ns() - start

    def answer(request):
        run, budget = cases[request["case"]], request["milliseconds"] * 1e6
        name = request["case"]
        if request.get("once"):
            return {"nanoseconds": time_of(run, 1)}
        if name not in counts:
            n = 1
            if time_of(run, 1) > max(budget, LONG):
                long.add(name)
                counts[name] = 1
            else:
                while time_of(run, n) < budget / 2:
                    n *= 2
                counts[name] = max(1, round(n * budget / time_of(run, n)))
        n = counts[name]
        if request.get("warm") or name not in long:
            run(max(1, n // 10))  # caches and clock are warm when the measured part starts
        return {"nanoseconds": time_of(run, n) / n}

    return answer


def repeated(job):
    """job, run without a graph, as a case of timed_blocks."""

    def run(n):
        with torch.no_grad():
            for _ in range(n):
                job()

    return run
