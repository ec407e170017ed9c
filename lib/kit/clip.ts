import { resolve } from 'node:path'
import { type FitOptions, openClip, SPEECH_RATE } from '../audio/clip.js'
import { ConfigError, DataError } from '../base/errors.js'
import { ops, scope, type Tensor } from '../tensor/index.js'

/** An audio file that a record names, or a part of it in seconds. */
export interface RecordClip {
  path: string
  start?: number | undefined
  end?: number | undefined
}

export interface ClipReaderOptions extends FitOptions {
  /** Base folder of relative paths. Default: the working directory. */
  audioRoot?: string | undefined
  /** Mean of all channels (default), or the index of one. */
  channels?: 'mean' | number | undefined
  /** Action for another sample rate or several channels: convert (default), or report a bad record. */
  otherAudio?: 'convert' | 'refuse' | undefined
  /** Maximum number of seconds that are read. Default: the whole file. */
  maxSeconds?: number | undefined
  /** Whether a clip may have 0 samples. Default false. */
  allowEmpty?: boolean | undefined
}

/** Record that names a clip, for messages. */
export interface ClipOwner {
  /** The record, such as `data.jsonl, line 3`. Undefined if the code that catches the error adds it. */
  record?: string
  /** The field of the record. Default 'audio'. */
  field?: string
  /** Further fields of the error. */
  fields?: Record<string, unknown>
}

/** Reader of the clips that records name, as float32 [samples] at 16 kHz. */
export class ClipReader {
  readonly #options: ClipReaderOptions

  constructor(options: ClipReaderOptions = {}) {
    this.#options = options
  }

  /** Read a clip. @throws DataError that names record and file, for a file that is missing, broken, empty, refused, or has NaN */
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
        const message = `${subject}: expected 1 channel of ${SPEECH_RATE} Hz, got ${found}. Set otherAudio to 'convert'.`
        throw new DataError(message, { file })
      })
    } catch (cause) {
      // A path with an invalid value is an error of the record.
      const isFault = cause instanceof ConfigError || (cause instanceof DataError && record !== undefined)
      if (!isFault) throw cause
      const message = cause.message.startsWith(begin) ? cause.message : `${begin}${cause.message}`
      throw new DataError(message, { file, ...fields, cause })
    }
  }
}

/** Join clips [samples] with silence between them, and after the last one with `trailingGap`. @param gap samples of silence */
export function joinSamples(clips: readonly Tensor[], gap: number, trailingGap: boolean): Tensor {
  const [first] = clips
  if (first === undefined)
    throw new ConfigError('joinSamples: clips: expected at least one clip, got none. Pass a clip.', {
      argument: 'clips',
    })
  return scope(() => {
    const silence = first.newZeros([gap])
    const parts = clips.flatMap((clip) => [clip, silence])
    return ops.cat(trailingGap ? parts : parts.slice(0, -1))
  })
}
