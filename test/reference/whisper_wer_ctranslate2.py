"""Wrong words of Whisper in faster-whisper (CTranslate2), beside ours, on the same clips and counted alike:

    node test/reference/whisper_wer_check.mjs --sounds FOLDER --write ours.json whisper-base float32 int8
    python -P test/reference/whisper_wer_ctranslate2.py ours.json FOLDER_OF_MODEL_BIN [float32] [int8]

Lower case without punctuation, and with openai-whisper's normalizer, which writes numbers in digits. -P, since a whisper.py
stands beside this file. Both sides greedy, with timestamps, and with their own fall-back to higher temperatures.
"""

import json
import re
import sys

import jiwer
from faster_whisper import WhisperModel
from whisper.normalizers import EnglishTextNormalizer

normal = EnglishTextNormalizer()


def plain(text):
    return " ".join(re.sub(r"[^\w' ]+|_", " ", text.lower()).split())


def rate(pairs):
    shares = []
    for words in (plain, normal):
        said, written = zip(*((words(text), words(heard)) for text, heard in pairs if words(text)))
        shares.append(100 * jiwer.wer(list(said), list(written)))
    return f"{shares[0]:.2f} % of the words of {len(said)} clips ({shares[1]:.2f} % normalised)"


ours = json.load(open(sys.argv[1]))
for form, clips in ours.items():
    print(f"voxtorch {form}: {rate([(one['text'], one['written']) for one in clips])}", flush=True)
clips = next(iter(ours.values()))
for compute in sys.argv[3:] or ("float32", "int8"):
    model = WhisperModel(sys.argv[2], device="cpu", compute_type=compute)
    pairs = []
    for one in clips:
        segments, _ = model.transcribe(one["path"], language="en", beam_size=1)
        one[compute] = "".join(segment.text for segment in segments)
        pairs.append((one["text"], one[compute]))
    print(f"faster-whisper {compute}: {rate(pairs)}", flush=True)
json.dump(ours, open(sys.argv[1].replace(".json", "-both.json"), "w"), indent=1)
