import { existsSync, statSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { dirname, extname, join } from 'node:path'
import { type AudioClip, clipSeconds } from '../../audio/clip.js'
import { makeDirectory, writeAtomicallySync } from '../../base/atomic.js'
import {
  defined,
  misuse,
  requireFunction,
  requireNumber,
  requireObject,
  requireOptions,
  requireSignal,
  requireString,
} from '../../base/check.js'
import { ConfigError, DataError } from '../../base/errors.js'
import { ProgressBar, type ProgressStream } from '../../data/progress.js'
import { readJson } from '../../files/json/json.js'
import { BATCH_SECONDS, type HeardInWindows, UnitExtractor } from './unit-extractor.js'

/** A clip and what its units are called in a folder. */
export interface NamedClip {
  /** A relative path without an ending, such as `84/121123/84_121123_000007`. */
  name: string
  audio: AudioClip
  /** How it is called in messages. Default: the audio's path, or the name. */
  place?: string
}

export interface ExtractUnitsOptions {
  /** A bar on stderr, or on the stream given. Default false. */
  progress?: boolean | ProgressStream
  /** The most seconds of audio in a batch, padding included. Default 16. */
  batchSeconds?: number
  /** Told of each clip that was longer than the extractor's window, by its name. */
  onWindows?: (heard: Omit<HeardInWindows, 'clip'> & { name: string }) => void
  /** Gives up between two batches; all before stay written, and the next call goes on from them. */
  signal?: AbortSignal
}

export interface ExtractedUnits {
  /** How many clips have units now. */
  clips: number
  /** How many of them were extracted by this call; the others were there. */
  extracted: number
}

/** What says by what a folder's units were made. */
const INDEX = 'units.json'
const ENDING = '_unit.txt'

/**
 * Units of many clips, in a folder: `<name>_unit.txt` each, one line of whole numbers with blanks between them, as USDM's
 * first stage writes them. A file appears whole or not at all, so a run that was ended goes on where it was.
 */
export class UnitFolder {
  readonly folder: string
  readonly units: number

  private constructor(folder: string, units: number) {
    this.folder = folder
    this.units = units
  }

  /**
   * Opens a folder for the units of an extractor, and makes it where it is not there.
   * @throws ConfigError for a folder with the units of another encoder, layer, centroids or resampler
   */
  static async open(folder: string, extractor: UnitExtractor): Promise<UnitFolder> {
    requireString('UnitFolder.open', 'folder', folder)
    if (!(extractor instanceof UnitExtractor))
      throw misuse('UnitFolder.open', 'extractor', 'a UnitExtractor', extractor)
    const made = { fingerprint: await extractor.fingerprint(), layer: extractor.layer, units: extractor.units }
    const file = join(folder, INDEX)
    if (existsSync(file)) {
      const found = await indexOf(file)
      if (found.fingerprint !== made.fingerprint) {
        throw new ConfigError(
          `${folder} has units of another encoder, layer, centroids or resampler (layer ${String(found.layer)}, ${String(found.units)} units); take another folder`,
          { file },
        )
      }
    } else {
      makeDirectory(folder, DataError)
      writeAtomicallySync(file, DataError, `${JSON.stringify(made, null, 2)}\n`)
    }
    return new UnitFolder(folder, extractor.units)
  }

  /** The file of a clip's units. @throws ConfigError for a name that leads out of the folder */
  pathOf(name: string): string {
    requireString('UnitFolder', 'name', name)
    if (name === '' || /(^|[/\\])\.\.?([/\\]|$)|^[/\\]|\0/.test(name))
      throw misuse('UnitFolder', 'name', 'a path below the folder', name)
    return join(this.folder, `${name}${ENDING}`)
  }

  has(name: string): boolean {
    return existsSync(this.pathOf(name))
  }

  /** @throws DataError naming the file, where it is not there or holds what is no unit */
  async read(name: string): Promise<Int32Array> {
    return readUnits(this.pathOf(name), { units: this.units })
  }

  write(name: string, units: Int32Array): void {
    const path = this.pathOf(name)
    makeDirectory(dirname(path), DataError)
    writeAtomicallySync(path, DataError, units.join(' '))
  }

  /**
   * Extracts the units of the clips that have none yet, in batches of clips of like length, and writes each batch when it is done.
   * @throws DataError naming the clip that cannot be used; the batches before it are written
   */
  async fill(
    extractor: UnitExtractor,
    clips: readonly NamedClip[],
    options: ExtractUnitsOptions = {},
  ): Promise<ExtractedUnits> {
    requireOptions('UnitFolder.fill', options, ['progress', 'batchSeconds', 'onWindows', 'signal'])
    const { progress = false, batchSeconds = BATCH_SECONDS, onWindows, signal } = options
    requireNumber('UnitFolder.fill', 'batchSeconds', batchSeconds, { least: 0 })
    if (onWindows !== undefined) requireFunction('UnitFolder.fill', 'onWindows', onWindows)
    requireSignal('UnitFolder.fill', signal)
    const missing = new Map(clips.filter(({ name }) => !this.has(name)).map((clip) => [clip.name, clip]))
    const timed = await Promise.all(
      [...missing.values()].map(async (clip) => ({ clip, seconds: await lengthOf(clip.audio) })),
    )
    timed.sort((a, b) => a.seconds - b.seconds || (a.clip.name < b.clip.name ? -1 : 1))
    using bar = progress
      ? new ProgressBar({
          total: timed.length,
          label: 'units',
          unit: 'clip',
          ...(typeof progress === 'object' && { stream: progress }),
        })
      : undefined
    for (let from = 0; from < timed.length; ) {
      signal?.throwIfAborted()
      // As many as fill a few batches: a clip's samples are in memory only so long.
      let to = from + 1
      for (let sum = timed[from]?.seconds ?? 0; to < timed.length; to++) {
        sum += timed[to]?.seconds ?? 0
        if (sum > 4 * batchSeconds) break
      }
      const some = timed.slice(from, to).map(({ clip }) => clip)
      await this.#fillSome(extractor, some, { batchSeconds, ...defined({ onWindows, signal }) }, bar)
      from = to
    }
    return { clips: clips.length, extracted: missing.size }
  }

  /** The error says whose clip it is. */
  async #fillSome(
    extractor: UnitExtractor,
    clips: readonly NamedClip[],
    options: Pick<ExtractUnitsOptions, 'batchSeconds' | 'onWindows' | 'signal'>,
    bar: ProgressBar | undefined,
  ): Promise<void> {
    const { onWindows, ...rest } = options
    const nameOf = (clip: number) => clips[clip]?.name ?? ''
    try {
      await extractor.extractBatch(
        clips.map(({ audio }) => audio),
        {
          ...rest,
          ...(onWindows && { onWindows: ({ clip, ...heard }) => onWindows({ name: nameOf(clip), ...heard }) }),
          onUnits: (units, clip) => {
            this.write(nameOf(clip), units)
            bar?.tick(1)
          },
        },
      )
    } catch (cause) {
      if (!(cause instanceof DataError)) throw cause
      if (clips.length === 1) {
        const [{ name, audio, place }] = clips as [NamedClip]
        const called = place ?? (typeof audio === 'string' ? audio : name)
        throw cause.message.includes(called)
          ? cause
          : new DataError(`${called}: ${cause.message}`, { clip: name, cause })
      }
      // One by one, which names it.
      for (const clip of clips) if (!this.has(clip.name)) await this.#fillSome(extractor, [clip], options, bar)
    }
  }
}

/** Of a file by its header, else 0: it only decides about batches. */
async function lengthOf(audio: AudioClip): Promise<number> {
  const path = typeof audio === 'object' && audio !== null && 'path' in audio ? audio.path : audio
  if (typeof path !== 'string' || /\.npy$/i.test(path)) return 0
  return (await clipSeconds(path).catch(() => 0)) ?? 0
}

async function indexOf(file: string): Promise<{ fingerprint?: unknown; layer?: unknown; units?: unknown }> {
  const value = await readJson(file)
  if (typeof value === 'object' && value !== null) return value
  throw new DataError(`${file} does not say what units these are`, { file })
}

/** The sound files below a folder, sorted, as paths from there. @internal */
export async function soundFiles(where: string, folder: string): Promise<string[]> {
  requireString(where, 'input', folder)
  if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory()) {
    throw new ConfigError(`${where}: there is no folder ${folder}`, { argument: 'input' })
  }
  const files = (await readdir(folder, { recursive: true })).filter((path) => SOUND.test(path)).sort()
  if (files.length > 0) return files
  throw new ConfigError(`${where}: ${folder} holds no sound file`, { argument: 'input' })
}

const SOUND = /\.(wav|flac|mp3|ogg|opus|aiff?|npy)$/i

/**
 * Extracts the units of all sound files below a folder into another, with the same names (see {@link UnitFolder}). What is there
 * already stays, so that a run that was ended goes on where it was.
 *
 * ```ts
 * await extractUnits(extractor, { input: 'LibriTTS/dev-clean', output: 'units', progress: true })
 * ```
 * @throws ConfigError where there is no sound file, where two differ in their endings only, and for a folder with other units;
 * DataError naming the clip that cannot be used
 */
export async function extractUnits(
  extractor: UnitExtractor,
  places: { input: string; output: string },
  options: ExtractUnitsOptions = {},
): Promise<ExtractedUnits> {
  requireObject('extractUnits', 'places', places)
  requireOptions('extractUnits', places, ['input', 'output'])
  const { input, output } = places
  const files = await soundFiles('extractUnits', input)
  const clips = new Map<string, NamedClip>()
  for (const path of files) {
    const name = path.slice(0, path.length - extname(path).length).replaceAll('\\', '/')
    if (clips.has(name))
      throw new ConfigError(`extractUnits: ${input} holds ${name} twice, with other endings`, { name })
    clips.set(name, { name, audio: join(input, path) })
  }
  const folder = await UnitFolder.open(output, extractor)
  return folder.fill(extractor, [...clips.values()], options)
}

export interface ReadUnitsOptions {
  /** How many units there are; larger numbers are refused. Default: any. */
  units?: number
}

/**
 * Reads a file of units: whole numbers with white space between them.
 * @throws DataError naming the file, for one that is not there, is empty, or holds what is no unit
 */
export async function readUnits(path: string, options: ReadUnitsOptions = {}): Promise<Int32Array> {
  requireString('readUnits', 'path', path)
  requireOptions('readUnits', options, ['units'])
  let bytes: Uint8Array
  try {
    if (statSync(path).size > MOST_BYTES) throw new Error('it is too large for units of one clip')
    bytes = await readFile(path)
  } catch (cause) {
    throw new DataError(`${path} cannot be read: ${(cause as Error).message}`, { file: path, cause })
  }
  return parseUnits(bytes, path, options.units)
}

// 50 hours.
const MOST_BYTES = 1 << 26

/** The units in the bytes of a file. @internal */
export function parseUnits(bytes: Uint8Array, file: string, units = 2 ** 31): Int32Array {
  const words = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    .toString('latin1')
    .split(/[ \t\r\n]+/)
    .filter((word) => word !== '')
  if (words.length === 0) throw new DataError(`${file} holds no units`, { file })
  return Int32Array.from(words, (word, i) => {
    const unit = /^\d{1,10}$/.test(word) ? Number(word) : Number.NaN
    if (unit < units) return unit
    const what = JSON.stringify(word.slice(0, 40))
    throw new DataError(
      `${file}: number ${i + 1} is ${what}, which is no unit${units < 2 ** 31 ? ` of ${units}` : ''}`,
      {
        file,
        place: i + 1,
      },
    )
  })
}
