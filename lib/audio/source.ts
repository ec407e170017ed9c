import { argumentError, bytesOf } from '../base/check.js'
import { DataError } from '../base/errors.js'
import { type ByteSource, FileSource, MemorySource, Place } from '../files/byte-source.js'
import type { Decoded } from './codecs/decoder.js'
import { decodeCompressed } from './decoder.js'
import { blockOf, decodePcm, type PcmFile } from './pcm.js'
import { readAiffHeader, readAuHeader, readCafHeader } from './pcm-headers.js'
import type { AudioFormat, AudioInput, CodedFormat } from './sniff.js'
import { sniffAudio } from './sniff.js'
import { readWave64Header, readWavHeader, type WavFile } from './wav-header.js'

const headers = {
  w64: readWave64Header,
  aiff: readAiffHeader,
  au: readAuHeader,
  caf: readCafHeader,
}
const isPcm = (format: AudioFormat): format is keyof typeof headers | 'wav' =>
  format === 'wav' || Object.hasOwn(headers, format)

/** Read the header of an uncompressed format; a WAV file may also contain MP3. */
function readHeader(
  bytes: ByteSource,
  format: keyof typeof headers | 'wav',
  allowTruncated: boolean,
): Promise<WavFile & { missingBytes?: number }> {
  return format === 'wav' ? readWavHeader(bytes, { allowTruncated }) : headers[format](bytes)
}

/** Bytes per read of an uncompressed file. */
const BLOCK_BYTES = 1 << 20

/** An open audio file with the properties of its header. */
export class AudioSource {
  private constructor(
    readonly bytes: ByteSource,
    readonly format: AudioFormat,
    readonly sampleRate: number,
    /** Channels of the file, or of the first decoded block. */
    readonly channels: number,
    /** Frames of the whole file, if its header is reliable. */
    readonly frames: number | undefined,
    /** Bytes of samples that the header of a WAV file declares but the file lacks. */
    readonly missingBytes: number,
    private readonly pcm: PcmFile | undefined,
    private readonly first: Decoded | undefined,
    private readonly rest: AsyncGenerator<Decoded> | undefined,
  ) {}

  /** Open an audio file and read its header. @throws DataError for a missing file or an unknown format */
  static async open(
    where: string,
    input: AudioInput,
    { signal, allowTruncated = false }: { signal?: AbortSignal | undefined; allowTruncated?: boolean | undefined } = {},
  ): Promise<AudioSource> {
    const bytes = await openBytes(where, input)
    try {
      const { format, begin } = await sniffAudio(bytes)
      if (!isPcm(format)) return await AudioSource.#decoding(bytes, format, begin, bytes.size - begin, format, signal)
      const header = await readHeader(bytes, format, allowTruncated)
      if ('coded' in header) {
        return await AudioSource.#decoding(
          bytes,
          header.coded,
          header.begin,
          header.bytes,
          format,
          signal,
          header.missingBytes,
        )
      }
      const { sampleRate, channels, frames, missingBytes = 0 } = header
      return new AudioSource(bytes, format, sampleRate, channels, frames, missingBytes, header, undefined, undefined)
    } catch (error) {
      await closeBytes(bytes)
      throw error
    }
  }

  /** Open a part of the file with a decoder. */
  static async #decoding(
    bytes: ByteSource,
    codec: CodedFormat,
    begin: number,
    length: number,
    format: AudioFormat,
    signal: AbortSignal | undefined,
    missing = 0,
  ): Promise<AudioSource> {
    const coded = length === bytes.size ? bytes : bytes.slice(begin, length)
    const decoded = checked(coded, codec, signal)
    const first = (await decoded.next()).value
    if (first === undefined)
      throw bytes.error(`expected ${codec} audio with samples, got none that can be decoded`, { format })
    const { sampleRate, channelData } = first
    return new AudioSource(bytes, format, sampleRate, channelData.length, undefined, missing, undefined, first, decoded)
  }

  async close(): Promise<void> {
    await this.rest?.return(undefined)
    await closeBytes(this.bytes)
  }

  /**
   * Yield the frames [begin, end), or to the end of the file, in blocks of one array per channel. Compressed files are decoded
   * from their beginning, and only once.
   * @param options.maxBytes limit on the decoded bytes of all channels
   * @param options.reusesMemory whether a block of an uncompressed file is valid only until the next one is requested
   */
  blocks(
    begin: number,
    end: number,
    { maxBytes = Number.POSITIVE_INFINITY, reusesMemory = false } = {},
  ): AsyncGenerator<Float32Array[]> {
    if (this.pcm === undefined) return this.decodedBlocks(begin, end, maxBytes)
    return this.pcmBlocks(this.pcm, begin, end, reusesMemory)
  }

  private async *pcmBlocks(
    pcm: PcmFile,
    begin: number,
    end: number,
    reusesMemory: boolean,
  ): AsyncGenerator<Float32Array[]> {
    let memory: Uint8Array | undefined
    let planes: Float32Array[] | undefined
    const last = Math.min(end, pcm.frames)
    const block = blockOf(pcm)
    const step = Math.max(1, Math.floor(BLOCK_BYTES / block.bytes)) * block.frames
    // ADPCM blocks are decoded from their beginning.
    for (let frame = begin - (begin % block.frames); frame < last; frame += step) {
      const count = Math.ceil(Math.min(step, last - frame) / block.frames)
      memory = reusesMemory && memory !== undefined ? memory : Buffer.allocUnsafe(count * block.bytes)
      const bytes = memory.subarray(0, count * block.bytes)
      await this.bytes.read(bytes, pcm.begin + (frame / block.frames) * block.bytes)
      const decoded = decodePcm(bytes, pcm, planes)
      if (reusesMemory) planes ??= decoded
      const from = Math.max(0, begin - frame)
      const to = Math.min(count * block.frames, last - frame)
      if (from < to) yield decoded.map((plane) => plane.subarray(from, to))
    }
  }

  private async *decodedBlocks(begin: number, end: number, maxBytes: number): AsyncGenerator<Float32Array[]> {
    let frame = 0
    let block = this.first
    while (block !== undefined && frame < end) {
      const length = block.channelData[0]!.length
      const from = Math.max(0, begin - frame)
      const to = Math.min(length, end - frame)
      frame += length
      if (4 * block.channelData.length * frame > maxBytes) {
        const what = `expected at most ${maxBytes} bytes of decoded samples, got more. Set maxBytes to allow it.`
        throw this.bytes.error(what, { maxBytes })
      }
      if (from < to) yield block.channelData.map((plane) => plane.subarray(from, to))
      block = frame < end ? (await this.rest!.next()).value : undefined
    }
  }
}

async function openBytes(where: string, input: AudioInput): Promise<ByteSource> {
  if (typeof input === 'string') return FileSource.open(input, DataError)
  const place = new Place('the audio in memory', DataError)
  if (input instanceof Uint8Array || input instanceof ArrayBuffer) {
    return new MemorySource(bytesOf(where, 'input', input), place)
  }
  throw argumentError(where, 'input', 'a path or the bytes of a file', input)
}

async function closeBytes(bytes: ByteSource): Promise<void> {
  if (bytes instanceof FileSource) await bytes.close()
}

/** Yield non-empty decoded blocks, and check that their sample rate and channels are constant. */
async function* checked(
  bytes: ByteSource,
  format: CodedFormat,
  signal: AbortSignal | undefined,
): AsyncGenerator<Decoded, undefined> {
  let frames = 0
  let first: Decoded | undefined
  for await (const block of decodeCompressed(bytes, format, signal)) {
    if (block.channelData.length === 0) continue
    first ??= block
    const changes = (what: string, from: number, to: number) =>
      bytes.error(`${what}: expected ${from} throughout, got ${to} at frame ${frames}`)
    if (block.sampleRate !== first.sampleRate) throw changes('sample rate', first.sampleRate, block.sampleRate)
    if (block.channelData.length !== first.channelData.length) {
      throw changes('number of channels', first.channelData.length, block.channelData.length)
    }
    if (!(block.sampleRate > 0))
      throw bytes.error(`sample rate: expected a positive number, got ${block.sampleRate} Hz`)
    frames += block.channelData[0]!.length
    yield block
  }
  return undefined
}
