import { writeAtomically } from '../base/atomic.js'
import { requireOneOf, requireOptions, requireString, requireWhole } from '../base/check.js'
import { ConfigError, DataError } from '../base/errors.js'
import { noGrad, type Tensor } from '../tensor/index.js'
import { encodePcm, MOST_CHANNELS, type WavSampleFormat, writtenBytes } from './pcm.js'
import { requireSamples } from './resample.js'

export interface WriteWavOptions {
  /** Sample rate in Hz. */
  sampleRate: number
  /**
   * Sample format. Default `'pcm16'`. Integer formats clip values beyond -1 and 1; their resolution is 2^-15, 2^-23 or 2^-31.
   * Samples read from a file of the same format are written back exactly.
   */
  format?: WavSampleFormat
}

const FRAMES_AT_ONCE = 1 << 16

/**
 * Write samples [frames] or [channels, frames] to a WAV file, atomically.
 * @throws ConfigError for a tensor of another shape or dtype, NaN in an integer format, or more than the 4 GiB of a WAV file;
 *   DataError if the file cannot be written
 */
export async function writeWav(path: string, samples: Tensor, options: WriteWavOptions): Promise<void> {
  const where = 'writeWav'
  requireString(where, 'path', path)
  requireSamples(where, samples)
  requireOptions(where, options, ['sampleRate', 'format'])
  const { sampleRate, format = 'pcm16' } = options
  requireWhole(where, 'sampleRate', sampleRate, 1)
  requireOneOf(where, 'format', format, Object.keys(writtenBytes))
  const shape = samples.shape
  const [channels, frames] = shape.length === 1 ? [1, shape[0]!] : [shape[0] ?? 0, shape[1] ?? 0]
  if (
    (shape.length !== 1 && shape.length !== 2) ||
    channels < 1 ||
    channels > MOST_CHANNELS ||
    samples.dtype.startsWith('complex')
  ) {
    throw new ConfigError(
      `writeWav: samples: expected real [frames] or [1 to ${MOST_CHANNELS} channels, frames], got ${samples.dtype} [${shape}].`,
    )
  }
  const bytes = channels * frames * writtenBytes[format]
  if (bytes > 0xffffffff - 100 || sampleRate > 0xffffffff) {
    throw new ConfigError(
      `writeWav: expected less than 4 GiB of samples, and a sample rate below 2^32 Hz, got ${bytes} bytes at ${sampleRate} Hz. Split the samples.`,
    )
  }
  const rows = shape.length === 1 ? [samples] : undefined
  await writeAtomically(path, DataError, async (write) => {
    await write(header(channels, sampleRate, format, bytes))
    for (let at = 0; at < frames; at += FRAMES_AT_ONCE) {
      const count = Math.min(FRAMES_AT_ONCE, frames - at)
      const planes: Float32Array[] = []
      for (let channel = 0; channel < channels; channel += 1)
        planes.push(await floats(rows, samples, channel, at, count))
      await write(encodePcm(planes, format, at))
    }
    if (bytes % 2 === 1) await write(new Uint8Array(1))
  })
}

/** Encode samples of one channel as 16-bit PCM; NaN becomes 0. */
export const pcm16Bytes = (parts: readonly Float32Array[]): Uint8Array =>
  Buffer.concat(parts.map((part) => encodePcm([part.map((value) => (Number.isNaN(value) ? 0 : value))], 'pcm16', 0)))

/** Encode samples of one channel as a 16-bit WAV file in memory. */
export function wavBytes(parts: readonly Float32Array[], sampleRate: number): Uint8Array {
  const bytes = pcm16Bytes(parts)
  return Buffer.concat([header(1, sampleRate, 'pcm16', bytes.length), bytes])
}

async function floats(
  rows: Tensor[] | undefined,
  samples: Tensor,
  channel: number,
  at: number,
  count: number,
): Promise<Float32Array> {
  const temporaries: Tensor[] = []
  const keep = (tensor: Tensor) => {
    temporaries.push(tensor)
    return tensor
  }
  try {
    return await noGrad(async () => {
      const row = rows?.[0] ?? keep(samples.select(0, channel))
      return (await keep(keep(row.narrow(0, at, count)).to({ dtype: 'float32', device: 'cpu' })).data()) as Float32Array
    })
  } finally {
    for (const tensor of temporaries) tensor.dispose()
  }
}

/** Return a RIFF header with a 'fmt ' chunk; float formats also have the 'fact' chunk that the standard requires. */
function header(channels: number, sampleRate: number, format: WavSampleFormat, bytes: number): Buffer {
  const width = writtenBytes[format]
  const float = format === 'float32'
  const head = Buffer.alloc(float ? 58 : 44)
  head.write('RIFF', 0, 'latin1')
  head.writeUInt32LE(head.length - 8 + bytes + (bytes % 2), 4)
  head.write('WAVEfmt ', 8, 'latin1')
  head.writeUInt32LE(float ? 18 : 16, 16)
  head.writeUInt16LE(float ? 3 : 1, 20)
  head.writeUInt16LE(channels, 22)
  head.writeUInt32LE(sampleRate, 24)
  head.writeUInt32LE((sampleRate * channels * width) % 2 ** 32, 28)
  head.writeUInt16LE(channels * width, 32)
  head.writeUInt16LE(8 * width, 34)
  if (float) {
    head.write('fact', 38, 'latin1')
    head.writeUInt32LE(4, 42)
    head.writeUInt32LE(bytes / channels / width, 46)
  }
  head.write('data', head.length - 8, 'latin1')
  head.writeUInt32LE(bytes, head.length - 4)
  return head
}
