"""llama_quantize.py <folder of node-llama-cpp's libraries> <from.gguf> <to.gguf> <llama_ftype>: llama.cpp's own quantisation,
which its Node package does not show. Only the first two fields of the parameters are named: they stand still from version to version.
"""

import ctypes
import sys
from pathlib import Path


class Parameters(ctypes.Structure):
    _fields_ = [("threads", ctypes.c_int32), ("ftype", ctypes.c_int32), ("rest", ctypes.c_char * 1024)]


folder, source, target, ftype = sys.argv[1:]
library = None
for pattern in ("libggml-base.so", "libggml.v*.so", "libllama.v*.so"):
    library = ctypes.CDLL(str(next(Path(folder).glob(pattern))), ctypes.RTLD_GLOBAL)

usual = library.llama_model_quantize_default_params
usual.restype = Parameters
parameters = usual()
parameters.ftype = int(ftype)
quantize = library.llama_model_quantize
quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(Parameters)]
quantize.restype = ctypes.c_uint32
sys.exit(quantize(source.encode(), target.encode(), ctypes.byref(parameters)))
