"""The same files read by the libraries that Python uses for them, each called as its documentation says."""

import os
import pickle

from safetensors.torch import load_file
from rates import rates
from serve import repeated, serve, timed_blocks

FOLDER = os.environ["VOXTORCH_BENCH_FILES"]


def file(name):
    return os.path.join(FOLDER, name)


def load_pickle(name):
    with open(file(name), "rb") as stream:
        return pickle.load(stream)


serve(
    timed_blocks(
        {
            "safetensorsCopy": repeated(lambda: load_file(file("model.safetensors"), backend="pread")),
            "safetensorsMap": repeated(lambda: load_file(file("model.safetensors"))),
            "safetensorsDefault": repeated(lambda: load_file(file("model.safetensors"))),
            "pickle": repeated(lambda: load_pickle("mosi.pkl")),
            **rates,
        }
    )
)
