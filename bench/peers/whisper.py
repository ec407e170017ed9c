"""The same in transformers, with its own choice of attention."""

from pathlib import Path

import numpy as np
import torch
from rates import rates
from serve import repeated, serve, timed_blocks
import transformers
from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutput

transformers.logging.set_verbosity_error()
PROMPT = torch.tensor([[50258, 50259, 50359, 50363]])


def read(folder, name):
    return torch.from_numpy(np.fromfile(folder / f"{name}.f32", dtype=np.float32))


class Whisper:
    def __init__(self, folder):
        make = WhisperForConditionalGeneration.from_pretrained
        self.model, self.half = make(folder).eval(), make(folder, dtype=torch.bfloat16).eval()
        self.extractor = WhisperFeatureExtractor.from_pretrained(folder)
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        self.sound = read(folder, "sound").numpy()
        self.features = read(folder, "features").view(1, 80, 3000)
        self.half_features = self.features.bfloat16()
        with torch.no_grad():
            self.heard = self.encode()
        expected = read(folder, "encoder").view_as(self.heard)
        self.difference = ((self.heard - expected).abs().max() / expected.abs().max()).item()

    def encode(self):
        return self.model.model.encoder(self.features).last_hidden_state

    def write(self, beams=1):
        """Whisper's own generate takes the same way, behind checks of its files."""
        written = GenerationMixin.generate(
            self.model,
            encoder_outputs=BaseModelOutput(last_hidden_state=self.heard),
            decoder_input_ids=PROMPT,
            max_new_tokens=64,
            min_new_tokens=64,
            num_beams=beams,
            do_sample=False,
        )
        return written[0, PROMPT.shape[1] :].tolist()

    def transcribe(self):
        mel = self.extractor(self.sound, sampling_rate=16000, return_tensors="pt").input_features
        written = self.model.generate(
            mel, language="en", task="transcribe", max_new_tokens=64, min_new_tokens=64, num_beams=1, do_sample=False
        )
        self.tokenizer.batch_decode(written, skip_special_tokens=True)
        return written[0].tolist()

    def cases(self):
        return {
            "encoder": repeated(self.encode),
            "encoderHalf": repeated(lambda: self.half.model.encoder(self.half_features)),
            "decode": repeated(self.write),
            "beams": repeated(lambda: self.write(5)),
            "transcription": repeated(self.transcribe),
            **rates,
        }

    def export(self, path):
        """The encoder alone, for onnxruntime."""

        class Encoder(torch.nn.Module):
            def __init__(self, encoder):
                super().__init__()
                self.encoder = encoder

            def forward(self, features):
                return self.encoder(features).last_hidden_state

        encoder = Encoder(self.model.model.encoder)
        encoder.eval()
        names = dict(input_names=["features"], output_names=["states"])
        torch.onnx.export(encoder, (self.features,), str(path), dynamo=True, verbose=False, **names)


blocks = None


def answer(request):
    global blocks
    if "load" not in request:
        return blocks(request)
    folder = Path(request["load"])
    whisper = Whisper(folder)
    blocks = timed_blocks(whisper.cases())
    if request["onnx"]:
        whisper.export(folder / "encoder.onnx")
    tokens = {"decode": whisper.write(), "transcription": whisper.transcribe()}
    return {"tokens": tokens, "difference": whisper.difference}


serve(answer)
