import { resolve } from 'node:path'
import { type FitOptions, openClip, SPEECH_RATE } from '../audio/clip.js'
import { ConfigError, DataError } from '../base/errors.js'
import { ops, scope, type Tensor } from '../tensor/index.js'

/** A sound file that a record names, or a part of it in seconds. */
export interface RecordClip {
  path: string
  start?: number | undefined
  end?: number | undefined
}

export interface ClipReaderOptions extends FitOptions {
  /** What paths are relative to. Default: the current folder. */
  audioRoot?: string | undefined
  /** Of several: their mean (default), or one by its number. */
  channels?: 'mean' | number | undefined
  /** What another sampling rate or several channels do: they are converted (default), or make a bad record. */
  otherAudio?: 'convert' | 'refuse' | undefined
  /** No more of a file is read than these. Default: all of it. */
  maxSeconds?: number | undefined
  /** Whether a clip may have no samples. Default false. */
  allowEmpty?: boolean | undefined
}

/** Whose clip it is, for messages. */
export interface ClipOwner {
  /** The record, such as `data.jsonl, line 3`; left out where whoever catches the error says it. */
  record?: string
  /** The record's field. Default 'audio'. */
  field?: string
  /** For the error. */
  fields?: Record<string, unknown>
}

/** Reads the clips that records name, as float32 [samples] of 16 kHz. */
export class ClipReader {
  readonly #options: ClipReaderOptions

  constructor(options: ClipReaderOptions = {}) {
    this.#options = options
  }

  /** @throws DataError naming the record and the file, for one that is missing, broken, empty, holds NaN, or is refused */
  async read(clip: RecordClip, owner: ClipOwner = {}): Promise<Tensor> {
    const { audioRoot = '', otherAudio = 'convert', ...options } = this.#options
    const { record, field = 'audio', fields = {} } = owner
    const file = resolve(audioRoot, clip.path)
    const begin = record === undefined ? '' : `${record}: `
    const subject = `${begin}its ${field} ${clip.path}`
    try {
      return await scope(async () => {
        const place = { where: 'the record', subject, argument: field }
        const { samples, source } = await openClip(place, { ...clip, path: file }, options)
        if (otherAudio === 'convert' || !source) return samples
        if (source.sampleRate === SPEECH_RATE && source.channels === 1) return samples
        const found = `${source.channels} channels of ${source.sampleRate} Hz`
        const message = `${subject} has ${found}, expected 1 of ${SPEECH_RATE}; otherAudio: 'convert' converts it`
        throw new DataError(message, { file })
      })
    } catch (cause) {
      // A path that can be none is the record's fault.
      const isFault = cause instanceof ConfigError || (cause instanceof DataError && record !== undefined)
      if (!isFault) throw cause
      const message = cause.message.startsWith(begin) ? cause.message : `${begin}${cause.message}`
      throw new DataError(message, { file, ...fields, cause })
    }
  }
}

/** Clips [samples] one after the other as one, with samples of silence between them, and behind the last if told so. */
export function joinSamples(clips: readonly Tensor[], gap: number, trailingGap: boolean): Tensor {
  const [first] = clips
  if (first === undefined) throw new ConfigError('There are no clips to join', { argument: 'clips' })
  return scope(() => {
    const silence = first.newZeros([gap])
    const parts = clips.flatMap((clip) => [clip, silence])
    return ops.cat(trailingGap ? parts : parts.slice(0, -1))
  })
}
