"""Has writeWav write files and reads them with libsndfile.

    python test/reference/audio_wav_check.py [MODULE]     MODULE exports writeWav; default dist/index.js

Prints (soundfile 0.14.0):
    8 files: ok
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parents[2]
SUBTYPES = {'pcm16': 'PCM_16', 'pcm24': 'PCM_24', 'pcm32': 'PCM_32', 'float32': 'FLOAT'}
WRITE = """
const { tensor, writeWav } = await import(process.argv[1])
const samples = tensor(Float32Array.from({ length: 2001 * 3 }, (_, i) => Math.sin(i * i) * 1.05), { shape: [3, 2001] })
for (const format of process.argv[3].split(' ')) {
  await writeWav(`${process.argv[2]}/${format}-3.wav`, samples, { sampleRate: 22050, format })
  await writeWav(`${process.argv[2]}/${format}-1.wav`, samples.select(0, 0), { sampleRate: 8000, format })
}
"""


def main():
    module = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / 'dist/index.js'
    i = np.arange(2001 * 3, dtype=np.float64)
    samples = (np.sin(i * i) * 1.05).astype(np.float32).reshape(3, 2001)
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(
            ['node', '--input-type=module', '-e', WRITE, '--', module.as_uri(), directory, ' '.join(SUBTYPES)], check=True
        )
        for name, subtype in SUBTYPES.items():
            for channels, rate in ((3, 22050), (1, 8000)):
                path = f'{directory}/{name}-{channels}.wav'
                facts = soundfile.info(path)
                assert (facts.subtype, facts.channels, facts.samplerate, facts.frames) == (subtype, channels, rate, 2001), facts
                got, _ = soundfile.read(path, dtype='float64', always_2d=True)
                wanted = samples[:channels].T.astype(np.float64)
                if name != 'float32':
                    scale = 2.0 ** (int(name[3:]) - 1)
                    wanted = np.clip(np.floor(wanted * scale + 0.5), -scale, scale - 1) / scale
                # JavaScript's sine may differ from numpy's in the last place.
                assert np.abs(got - wanted).max() <= 2 / 2**15 if name == 'pcm16' else np.abs(got - wanted).max() < 2e-7, name
    print(f'{2 * len(SUBTYPES)} files: ok')


if __name__ == '__main__':
    main()
