"""Ids by mistral_common of conversations with audio: test/fixtures/models/audio-lm-tekken.safetensors, with a small tekken.json of bytes
alone in the folder of that name. In an environment of its own with `mistral_common[audio]` and its dependencies.
"""

import base64
import io
import json

import numpy
import soundfile
from mistral_common.protocol.instruct.chunk import AudioChunk, TextChunk
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.transcription.request import TranscriptionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from common import FIXTURES, Fixture, main


PATTERN = r'\p{L}+|\p{N}|\s+|[^\s\p{L}\p{N}]+'
# Of Voxtral's file, as far as they matter.
SPECIAL = {
    **{0: '<unk>', 1: '<s>', 2: '</s>', 3: '[INST]', 4: '[/INST]', 5: '[AVAILABLE_TOOLS]', 6: '[/AVAILABLE_TOOLS]', 7: '[TOOL_RESULTS]'},
    **{8: '[/TOOL_RESULTS]', 9: '[TOOL_CALLS]', 10: '[IMG]', 11: '<pad>', 12: '[IMG_BREAK]', 13: '[IMG_END]', 14: '[PREFIX]', 15: '[MIDDLE]'},
    **{16: '[SUFFIX]', 17: '[SYSTEM_PROMPT]', 18: '[/SYSTEM_PROMPT]', 19: '[TOOL_CONTENT]', 24: '[AUDIO]', 25: '[BEGIN_AUDIO]', 34: '[TRANSCRIBE]'},
}
COUNT = 36


def tekken(folder):
    special = [dict(rank=rank, token_str=SPECIAL.get(rank, f'<SPECIAL_{rank}>'), is_control=True) for rank in range(COUNT)]
    vocab = [dict(rank=i, token_bytes=base64.b64encode(bytes([i])).decode(), token_str=None) for i in range(256)]
    config = dict(pattern=PATTERN, num_vocab_tokens=256, default_vocab_size=256 + COUNT, default_num_special_tokens=COUNT, version='v7')
    audio = dict(
        sampling_rate=16000, frame_rate=12.5, chunk_length_s=0.96,
        audio_encoding_config=dict(num_mel_bins=128, hop_length=160, window_size=400),
    )
    path = folder / 'tekken.json'
    path.write_text(json.dumps(dict(config=config, vocab=vocab, special_tokens=special, audio=audio)))
    return path


def wav(count):
    buffer = io.BytesIO()
    soundfile.write(buffer, numpy.zeros(count, numpy.float32), 16000, format='WAV')
    return base64.b64encode(buffer.getvalue()).decode()


def chunk(part):
    if part['type'] == 'text':
        return TextChunk(text=part['text'])
    return AudioChunk(input_audio=dict(data=wav(part['audio']), format='wav'))


def content(value):
    return value if isinstance(value, str) else [chunk(part) for part in value]


ROLES = dict(system=SystemMessage, user=UserMessage, assistant=AssistantMessage)
CONVERSATIONS = [
    [{'role': 'user', 'content': 'Écoute '}],
    [{'role': 'user', 'content': [{'type': 'audio', 'audio': 4000}, {'type': 'text', 'text': ' Who?'}]}],
    [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'Who?'}],
    [
        {'role': 'user', 'content': [{'type': 'audio', 'audio': 16001}, {'type': 'audio', 'audio': 16000}]},
        {'role': 'assistant', 'content': 'A bird.'},
        {'role': 'user', 'content': [{'type': 'text', 'text': 'And'}, {'type': 'audio', 'audio': 40000}, {'type': 'text', 'text': '?'}]},
    ],
]


def prompts():
    fixture = Fixture()
    folder = FIXTURES / 'models/audio-lm-tekken'
    folder.mkdir(exist_ok=True)
    tokenizer = MistralTokenizer.from_file(str(tekken(folder)))
    for i, messages in enumerate(CONVERSATIONS):
        made = [ROLES[one['role']](content=content(one['content'])) for one in messages]
        encoded = tokenizer.encode_chat_completion(ChatCompletionRequest(messages=made))
        fixture.case(dict(name=f'chat-{i}', messages=messages, ids=encoded.tokens))
    for language in [None, 'en']:
        request = TranscriptionRequest(model='voxtral', audio=dict(data=wav(4000), format='wav'), language=language)
        encoded = tokenizer.encode_transcription(request)
        fixture.case(dict(name=f'transcription-{language}', language=language, samples=4000, ids=encoded.tokens))
    return fixture


if __name__ == '__main__':
    main({'models/audio-lm-tekken': prompts})
