import { type ByteSource, FileSource, MemorySource, Place } from '../data/byte-source.js'
import { misuse } from '../data/check.js'
import { DataError } from '../native/errors.js'
import { type Decoded, decodeCompressed } from './decoder.js'
import type { AudioFormat, AudioInput } from './formats.js'
import { decodePcm } from './pcm.js'
import { sniffAudio } from './sniff.js'
import { readWavHeader, type WavHeader } from './wav-header.js'

/** Bytes of a WAV file that are read at once. */
const BLOCK_BYTES = 1 << 20

/** An open file and what is known of it before its samples are read. */
export class AudioSource {
  private constructor(
    readonly bytes: ByteSource,
    readonly format: AudioFormat,
    readonly sampleRate: number,
    /** Of the file, or of the first that a decoder makes of it. */
    readonly channels: number,
    /** Frames of the whole file, where its header is to be trusted. */
    readonly frames: number | undefined,
    private readonly wav: WavHeader | undefined,
    private readonly first: Decoded | undefined,
    private readonly rest: AsyncGenerator<Decoded> | undefined,
  ) {}

  /** @throws DataError when there is no such file, or it holds no audio that is known here */
  static async open(where: string, input: AudioInput): Promise<AudioSource> {
    const bytes = await openBytes(where, input)
    try {
      const { format, begin } = await sniffAudio(bytes)
      if (format === 'wav') {
        const wav = await readWavHeader(bytes)
        return new AudioSource(bytes, format, wav.sampleRate, wav.channels, wav.frames, wav, undefined, undefined)
      }
      const coded = begin === 0 ? bytes : bytes.slice(begin, bytes.size - begin)
      const decoded = checked(coded, format, format === 'flac' ? await readFlacInfo(coded) : {})
      const first = (await decoded.next()).value
      if (first === undefined) throw bytes.error(`it holds no ${format} audio that can be decoded`, { format })
      const { sampleRate, channelData } = first
      return new AudioSource(bytes, format, sampleRate, channelData.length, undefined, undefined, first, decoded)
    } catch (error) {
      await closeBytes(bytes)
      throw error
    }
  }

  async close(): Promise<void> {
    await this.rest?.return(undefined)
    await closeBytes(this.bytes)
  }

  /**
   * Frames [begin, end), or to the end of the file, in blocks with one array for each channel. Compressed files are
   * decoded from their beginning, and once.
   */
  blocks(begin: number, end: number): AsyncGenerator<Float32Array[]> {
    return this.wav === undefined ? this.decodedBlocks(begin, end) : this.wavBlocks(this.wav, begin, end)
  }

  private async *wavBlocks(wav: WavHeader, begin: number, end: number): AsyncGenerator<Float32Array[]> {
    const { encoding, channels, frameBytes } = wav
    const last = Math.min(end, wav.frames)
    const step = Math.max(1, Math.floor(BLOCK_BYTES / frameBytes))
    for (let frame = begin; frame < last; frame += step) {
      const count = Math.min(step, last - frame)
      yield decodePcm(await this.bytes.bytes(wav.begin + frame * frameBytes, count * frameBytes), encoding, channels)
    }
  }

  private async *decodedBlocks(begin: number, end: number): AsyncGenerator<Float32Array[]> {
    let frame = 0
    let block = this.first
    while (block !== undefined && frame < end) {
      const length = block.channelData[0]!.length
      const from = Math.max(0, begin - frame)
      const to = Math.min(length, end - frame)
      if (from < to) yield block.channelData.map((plane) => plane.subarray(from, to))
      frame += length
      block = frame < end ? (await this.rest!.next()).value : undefined
    }
  }
}

async function openBytes(where: string, input: AudioInput): Promise<ByteSource> {
  if (typeof input === 'string') return FileSource.open(input, DataError)
  const place = new Place('the audio in memory', DataError)
  if (input instanceof Uint8Array) return new MemorySource(input, place)
  if (input instanceof ArrayBuffer) return new MemorySource(new Uint8Array(input), place)
  throw misuse(where, 'input', 'a path or the bytes of a file', input)
}

async function closeBytes(bytes: ByteSource): Promise<void> {
  if (bytes instanceof FileSource) await bytes.close()
}

/** Blocks with samples in them, all at one rate, and as many frames as promised. */
async function* checked(
  bytes: ByteSource,
  format: AudioFormat,
  { frames: promised, bits }: FlacInfo,
): AsyncGenerator<Decoded, undefined> {
  let frames = 0
  let sampleRate = 0
  for await (const block of decodeCompressed(bytes, format, bits)) {
    if (block.channelData.length === 0) continue
    if (sampleRate !== 0 && block.sampleRate !== sampleRate) {
      throw bytes.error(`its sample rate changes from ${sampleRate} to ${block.sampleRate} Hz at frame ${frames}`)
    }
    sampleRate = block.sampleRate
    if (!(sampleRate > 0)) throw bytes.error(`it claims a sample rate of ${sampleRate} Hz`)
    frames += block.channelData[0]!.length
    yield block
  }
  if (promised !== undefined && frames !== promised) {
    throw bytes.error(`it promises ${promised} frames, ${frames} could be decoded; the file was cut or is damaged`, {
      frames,
    })
  }
  return undefined
}

interface FlacInfo {
  /** Of the whole file; undefined where the encoder did not know. */
  frames?: number | undefined
  /** Of each sample. */
  bits?: number
}

/** What the STREAMINFO of a FLAC file says, bare or in Ogg (RFC 9639, section 8.2). */
async function readFlacInfo(bytes: ByteSource): Promise<FlacInfo> {
  const head = await bytes.bytes(0, Math.min(bytes.size, 128))
  const at = head.indexOf('fLaC', 0, 'latin1')
  if (at < 0 || head.length < at + 42 || (head[at + 4]! & 127) !== 0) return {}
  const bits = (((head[at + 20]! & 1) << 4) | (head[at + 21]! >> 4)) + 1
  const frames = (head[at + 21]! & 15) * 2 ** 32 + head.readUInt32BE(at + 22)
  return { bits, frames: frames === 0 ? undefined : frames }
}
