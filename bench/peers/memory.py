"""Trains, and says how much memory the process holds."""

from serve import serve
from training_step import make_training_step

step = make_training_step()


def resident_bytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


def answer(request):
    for _ in range(request["steps"]):
        step()
    return {"rss": resident_bytes()}


serve(answer)
