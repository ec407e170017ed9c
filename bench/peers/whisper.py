"""The same in transformers, with eager attention."""

import torch
from serve import serve, timed_blocks
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutput

wave = torch.randn(480_000).numpy()
features = torch.randn(1, 80, 3000)
wide, tall = torch.randn(1024, 1024), torch.randn(1024, 1024)
matrix, vector = torch.randn(4096, 4096), torch.randn(4096)

config = WhisperConfig(
    d_model=512,
    encoder_layers=6,
    encoder_attention_heads=8,
    encoder_ffn_dim=2048,
    decoder_layers=6,
    decoder_attention_heads=8,
    decoder_ffn_dim=2048,
    pad_token_id=50257,
    bos_token_id=50257,
    eos_token_id=50257,
    decoder_start_token_id=50258,
    begin_suppress_tokens=None,
)
made = WhisperForConditionalGeneration._from_config
model = made(config, attn_implementation="eager").eval()
half = made(config, attn_implementation="eager").eval().bfloat16()
extractor = WhisperFeatureExtractor()
prompt = torch.tensor([[50258, 50259, 50359, 50363]])
with torch.no_grad():
    heard = model.model.encoder(features).last_hidden_state


def write(beams=1, **inputs):
    # Whisper's own generate takes the same way, behind checks of its files.
    GenerationMixin.generate(
        model, decoder_input_ids=prompt, max_new_tokens=64, min_new_tokens=64, num_beams=beams, do_sample=False, **inputs
    )


def transcribe():
    mel = extractor(wave, sampling_rate=16000, return_tensors="pt").input_features
    write(inputs=mel)


def repeatedly(job):
    def run(n):
        with torch.no_grad():
            for _ in range(n):
                job()

    return run


def known(beams):
    return lambda: write(beams, encoder_outputs=BaseModelOutput(last_hidden_state=heard))


serve(
    timed_blocks(
        {
            "encoder": repeatedly(lambda: model.model.encoder(features)),
            "encoderHalf": repeatedly(lambda: half.model.encoder(features.bfloat16())),
            "decode": repeatedly(known(1)),
            "beams": repeatedly(known(5)),
            "transcription": repeatedly(transcribe),
            "gemm": repeatedly(lambda: wide @ tall),
            "gemv": repeatedly(lambda: matrix @ vector),
        }
    )
)
