"""The same folder in CTranslate2, with faster-whisper's spectrogram."""

import ctranslate2
import faster_whisper
import numpy as np
import torch
from faster_whisper.feature_extractor import FeatureExtractor
from rates import rates
from serve import repeated, serve, timed_blocks
from tokenizers import Tokenizer as Pieces

PROMPT = [[50258, 50259, 50359, 50363]]
END = 50257


class Whisper:
    def __init__(self, folder, kind, sound, threads):
        self.model = ctranslate2.models.Whisper(folder, compute_type=kind, intra_threads=threads)
        self.pieces = Pieces.from_file(f"{folder}/tokenizer.json")
        self.extractor, self.sound = FeatureExtractor(), sound
        self.features = self.spectrogram()
        self.heard = self.model.encode(self.features)

    def spectrogram(self):
        mel = self.extractor(self.sound)[:, :3000]
        return ctranslate2.StorageView.from_array(np.ascontiguousarray(mel[None], dtype=np.float32))

    def write(self, heard):
        # 64 tokens: it halves max_length, and never may end.
        rules = {"suppress_blank": True, "suppress_tokens": [-1, END]}
        return self.model.generate(heard, PROMPT, beam_size=1, max_length=128, **rules)[0].sequences_ids[0]

    def transcribe(self):
        tokens = self.write(self.model.encode(self.spectrogram()))
        self.pieces.decode(tokens)

    def cases(self, name):
        return {
            f"encoder{name}": repeated(lambda: self.model.encode(self.features)),
            f"decode{name}": repeated(lambda: self.write(self.heard)),
            f"transcription{name}": repeated(self.transcribe),
        }


blocks = None


def answer(request):
    global blocks
    if "load" not in request:
        return blocks(request)
    sound = np.fromfile(request["load"]["sound"], dtype=np.float32)
    cases, first = {}, {}
    for name, kind in [("", "float32"), ("Int8", "int8")]:
        whisper = Whisper(request["load"]["folder"], kind, sound, request["threads"])
        cases |= whisper.cases(name)
        states = torch.from_numpy(np.array(whisper.heard.to(ctranslate2.DataType.float32)))
        first[name] = {"states": states[0, :8].flatten().tolist(), "tokens": whisper.write(whisper.heard)}
    cases |= rates
    blocks = timed_blocks(cases)
    versions = {"ctranslate2": ctranslate2.__version__, "faster_whisper": faster_whisper.__version__}
    return {"first": first, "versions": versions}


serve(answer)
