import { bytesOf, misuse } from '../base/check.js'
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

/** What a header without a codec says; of a WAV it may lead to MP3 frames. */
function readHeader(
  bytes: ByteSource,
  format: keyof typeof headers | 'wav',
  allowTruncated: boolean,
): Promise<WavFile & { missingBytes?: number }> {
  return format === 'wav' ? readWavHeader(bytes, { allowTruncated }) : headers[format](bytes)
}

/** Bytes of an uncompressed file that are read at once. */
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
    /** Bytes of samples that a WAV's header promises and that are not there. */
    readonly missingBytes: number,
    private readonly pcm: PcmFile | undefined,
    private readonly first: Decoded | undefined,
    private readonly rest: AsyncGenerator<Decoded> | undefined,
  ) {}

  /** @throws DataError when there is no such file, or it holds no audio that is known here */
  static async open(
    where: string,
    input: AudioInput,
    { signal, allowTruncated = false }: { signal?: AbortSignal | undefined; allowTruncated?: boolean | undefined } = {},
  ): Promise<AudioSource> {
    const bytes = await openBytes(where, input)
    try {
      const { format, begin } = await sniffAudio(bytes)
      if (!isPcm(format)) return await AudioSource.#decoding(bytes, format, begin, bytes.size - begin, format, signal)
      const found = await readHeader(bytes, format, allowTruncated)
      if ('coded' in found) {
        return await AudioSource.#decoding(
          bytes,
          found.coded,
          found.begin,
          found.bytes,
          format,
          signal,
          found.missingBytes,
        )
      }
      const { sampleRate, channels, frames, missingBytes = 0 } = found
      return new AudioSource(bytes, format, sampleRate, channels, frames, missingBytes, found, undefined, undefined)
    } catch (error) {
      await closeBytes(bytes)
      throw error
    }
  }

  /** Samples that a decoder makes of a part of the file. */
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
    if (first === undefined) throw bytes.error(`it holds no ${codec} audio that can be decoded`, { format })
    const { sampleRate, channelData } = first
    return new AudioSource(bytes, format, sampleRate, channelData.length, undefined, missing, undefined, first, decoded)
  }

  async close(): Promise<void> {
    await this.rest?.return(undefined)
    await closeBytes(this.bytes)
  }

  /**
   * Frames [begin, end), or to the end of the file, in blocks with one array for each channel. Compressed files are
   * decoded from their beginning, and once.
   * @param maxBytes the most bytes of samples of all channels that may be decoded
   */
  blocks(begin: number, end: number, maxBytes = Number.POSITIVE_INFINITY): AsyncGenerator<Float32Array[]> {
    return this.pcm === undefined ? this.decodedBlocks(begin, end, maxBytes) : this.pcmBlocks(this.pcm, begin, end)
  }

  private async *pcmBlocks(pcm: PcmFile, begin: number, end: number): AsyncGenerator<Float32Array[]> {
    const last = Math.min(end, pcm.frames)
    const block = blockOf(pcm)
    const step = Math.max(1, Math.floor(BLOCK_BYTES / block.bytes)) * block.frames
    // Blocks of many frames are read from their beginning.
    for (let frame = begin - (begin % block.frames); frame < last; frame += step) {
      const count = Math.ceil(Math.min(step, last - frame) / block.frames)
      const bytes = await this.bytes.bytes(pcm.begin + (frame / block.frames) * block.bytes, count * block.bytes)
      const planes = decodePcm(bytes, pcm)
      const from = Math.max(0, begin - frame)
      const to = Math.min(count * block.frames, last - frame)
      if (from < to) yield planes.map((plane) => plane.subarray(from, to))
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
        const what = `it unfolds to more than ${maxBytes} bytes of samples; set maxBytes to allow that`
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
  throw misuse(where, 'input', 'a path or the bytes of a file', input)
}

async function closeBytes(bytes: ByteSource): Promise<void> {
  if (bytes instanceof FileSource) await bytes.close()
}

/** Blocks with samples in them, all at one rate and of the same channels. */
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
      bytes.error(`${what} changes from ${from} to ${to} at frame ${frames}`)
    if (block.sampleRate !== first.sampleRate) throw changes('its sample rate', first.sampleRate, block.sampleRate)
    if (block.channelData.length !== first.channelData.length) {
      throw changes('the number of its channels', first.channelData.length, block.channelData.length)
    }
    if (!(block.sampleRate > 0)) throw bytes.error(`it claims a sample rate of ${block.sampleRate} Hz`)
    frames += block.channelData[0]!.length
    yield block
  }
  return undefined
}
