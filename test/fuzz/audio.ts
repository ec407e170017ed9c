/** Right calls of what lib/audio writes by hand. */
import { rmSync } from 'node:fs'
import { Generator } from '../../lib/index.js'
import { chunk, formatChunk, riff } from '../audio/wav-bytes.js'
import { add, exported, type Loose, lib, many, of, options } from './define.js'
import { dense as f, made } from './values.js'

const sound = f([1600])
const batch = f([2, 1600], 'normal', 'float64')
const wav = made('a WAV file of 400 frames in memory', () =>
  riff([formatChunk({ channels: 2 }), chunk('data', Buffer.alloc(1600))]),
)

exported(
  'resample',
  of(sound, 44100, 16000),
  of(batch, 3, 2, options({ quality: 'high' })),
  of(sound, 2, 1, options({ quality: 'kaiser', lowpassFilterWidth: 4, rolloff: 0.9, beta: 8 })),
)
add(
  'Resampler',
  async (from, to, settings, samples) => {
    const resampler = new lib.Resampler!(from, to, settings)
    try {
      return [await resampler.push(samples), await resampler.flush()]
    } finally {
      resampler.dispose()
    }
  },
  of(44100, 16000, options({}), sound),
  of(2, 3, options({ quality: 'high' }), batch),
)
exported(
  'melFilterBank',
  of(400, 80, 16000),
  of(64, 8, 8000, options({ fMin: 20, fMax: 3000, melScale: 'htk', norm: 'none' })),
)
exported('logMelSpectrogram', of(sound), of(batch, options({ nMels: 128, length: null })))
exported('seamlessFeatures', of(sound), of(batch, options({ nMels: 24 })))
exported(
  'spectrogram',
  of(sound),
  of(batch, options({ nFft: 64, hopLength: 16, winLength: 48, window: 'hamming', padding: 0, power: false })),
)
exported(
  'melSpectrogram',
  of(sound, 16000),
  of(batch, 8000, options({ nMels: 20, padMode: 'constant', log: 'ln', floor: 1e-5, magnitudeEpsilon: 1e-9 })),
)
exported(
  'griffinLim',
  of(f([9, 6])),
  of(
    f([2, 17, 5], 'normal', 'float64'),
    options({
      nFft: 32,
      hopLength: 4,
      winLength: 16,
      padding: 12,
      padMode: 'constant',
      iterations: 2,
      momentum: 0.5,
      init: 'zero',
      seed: 1,
    }),
  ),
)
exported(
  'inverseMelSpectrogram',
  of(f([4, 6]), 16000, options({ nFft: 64 })),
  of(
    f([2, 4, 6]),
    8000,
    options({ nFft: 64, log: 'ln', power: true, iterations: 3, fMin: 20, fMax: 3000, melScale: 'htk' }),
  ),
)
exported(
  'kaldiFbank',
  of(sound),
  of(batch, options({ nMels: 40, window: 'hann', snipEdges: false, useEnergy: true, htkCompat: true, vtlnWarp: 1.1 })),
  of(
    sound,
    options({ dither: 1, generator: made('new Generator()', () => new Generator({ seed: 1 })), subtractMean: true }),
  ),
)
exported(
  'nemoLogMel',
  of(sound),
  of(batch, options({ nMels: 20, sampleRate: 8000, nFft: 64, winLength: 48, hopLength: 16, preemphasis: 0 })),
)
exported(
  'normalizeWav2Vec2',
  of(sound),
  of(batch, options({ attentionMask: f([2, 1600]), epsilon: 1e-5, paddingValue: -1 })),
)
exported('padAudio', of(many(f([3]), f([5]))), of(many(f([3])), options({ length: 4, normalize: true })))
exported('mixChannels', of(f([2, 5])), of(f([2, 5]), [0.5, 0.25]), of(f([5])))
exported(
  'energyVad',
  of(sound, 16000),
  of(sound, 8000, options({ topDb: 20, floorDb: -50, minSilence: 0.1, padding: 0 })),
)
exported('splitOnSilence', of(sound, 16000), of(sound, 8000, options({ maxSeconds: 0.1, frameSeconds: 0.01 })))
add(
  'readAudio',
  async (...args) => (await lib.readAudio!(...args)).samples,
  of(wav),
  of(wav, options({ sampleRate: 16000, channels: 'all', start: 0.01, duration: 0.02, quality: 'high', maxBytes: 1e6 })),
  of(wav, options({ channels: 1 })),
)
exported(
  'readClip',
  of(wav),
  of(sound, options({ leastSamples: 4, mostSamples: 100, longAudio: 'cut', sampleRate: 16000, channels: 0 })),
  of(wav, options({ maxSeconds: 0.01, maxBytes: 1e6, allowEmpty: true })),
)
exported(
  'decodeAudio',
  of(options({ bytes: wav, path: 'a.wav' })),
  of(options({ bytes: wav, path: null }), options({ sampleRate: 8000 })),
)
exported('clipSeconds', of(wav))
add(
  'readAudioStream',
  async (...args) => {
    let chunks = 0
    for await (const _ of lib.readAudioStream!(...args) as AsyncIterable<Loose>) if ((chunks += 1) > 100) break
    return chunks
  },
  of(wav),
  of(wav, options({ chunkSeconds: 0.01, sampleRate: 16000, channels: 'all' })),
)
add(
  'writeWav',
  async (path, ...rest) => {
    await lib.writeWav!(path, ...rest)
    rmSync(path, { force: true })
  },
  of('sound.wav', f([10]), options({ sampleRate: 8000 })),
  of('sound.wav', f([2, 10]), options({ sampleRate: 8000, format: 'float32' })),
)
