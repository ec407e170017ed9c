import { existsSync, statSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { dirname, extname, join } from 'node:path'
import { type AudioClip, clipSeconds } from '../../audio/clip.js'
import { makeDirectory, writeAtomicallySync } from '../../base/atomic.js'
import {
  argumentError,
  defined,
  requireFunction,
  requireNumber,
  requireObject,
  requireOptions,
  requireSignal,
  requireString,
  shown,
} from '../../base/check.js'
import { ConfigError, DataError } from '../../base/errors.js'
import { ProgressBar, type ProgressStream } from '../../data/progress.js'
import { readJson } from '../../files/json/json.js'
import { type AudioFramesInWindows, BATCH_SECONDS, UnitExtractor } from './unit-extractor.js'

/** A clip and its name in a folder of units. */
export interface NamedClip {
  /** A relative path without extension, such as `84/121123/84_121123_000007`. */
  name: string
  audio: AudioClip
  /** Name in messages. Default: the path of the audio, or `name`. */
  place?: string
}

export interface ExtractUnitsOptions {
  /** Show a progress bar on stderr, or on a stream. Default false. */
  progress?: boolean | ProgressStream
  /** Maximum seconds of audio per batch, padding included. Default 16. */
  batchSeconds?: number
  /** Called with the name of each clip that was longer than the extractor's window. */
  onWindows?: (heard: Omit<AudioFramesInWindows, 'clip'> & { name: string }) => void
  /** Stops between two batches. Finished batches are written, and the next call continues. */
  signal?: AbortSignal
}

export interface ExtractedUnits {
  /** Number of clips with units. */
  clips: number
  /** Number of clips that this call extracted; the others existed. */
  extracted: number
}

/** File that identifies the extractor of a folder's units. */
const INDEX = 'units.json'
const ENDING = '_unit.txt'

/**
 * A folder with the units of many clips: `<name>_unit.txt` each, one line of integers separated by spaces, like USDM's first stage. Files are
 * written atomically, so an interrupted run can continue.
 */
export class UnitFolder {
  readonly folder: string
  readonly units: number

  private constructor(folder: string, units: number) {
    this.folder = folder
    this.units = units
  }

  /**
   * Open a folder for the units of an extractor. A missing folder is created.
   * @throws ConfigError for a folder with the units of another encoder, layer, centroids or resampler
   */
  static async open(folder: string, extractor: UnitExtractor): Promise<UnitFolder> {
    requireString('UnitFolder.open', 'folder', folder)
    if (!(extractor instanceof UnitExtractor))
      throw argumentError('UnitFolder.open', 'extractor', 'a UnitExtractor', extractor)
    const identity = { fingerprint: await extractor.fingerprint(), layer: extractor.layer, units: extractor.units }
    const file = join(folder, INDEX)
    if (existsSync(file)) {
      const found = await indexOf(file)
      if (found.fingerprint !== identity.fingerprint) {
        throw new ConfigError(
          `${folder}: expected units of this extractor, got units of another encoder, layer, centroids or resampler (layer ${String(found.layer)}, ${String(found.units)} units). Use another folder.`,
          { file },
        )
      }
    } else {
      makeDirectory(folder, DataError)
      writeAtomicallySync(file, DataError, `${JSON.stringify(identity, null, 2)}\n`)
    }
    return new UnitFolder(folder, extractor.units)
  }

  /** Return the path of a clip's units. @throws ConfigError for a name that is outside of the folder */
  pathOf(name: string): string {
    requireString('UnitFolder', 'name', name)
    if (name === '' || /(^|[/\\])\.\.?([/\\]|$)|^[/\\]|\0/.test(name))
      throw argumentError('UnitFolder', 'name', 'a path inside of the folder', name)
    return join(this.folder, `${name}${ENDING}`)
  }

  has(name: string): boolean {
    return existsSync(this.pathOf(name))
  }

  /** Read the units of a clip. @throws DataError naming the file, if it is missing or contains other values */
  async read(name: string): Promise<Int32Array> {
    return readUnits(this.pathOf(name), { units: this.units })
  }

  write(name: string, units: Int32Array): void {
    const path = this.pathOf(name)
    makeDirectory(dirname(path), DataError)
    writeAtomicallySync(path, DataError, units.join(' '))
  }

  /**
   * Extract the units of the clips without a file, in batches of clips of similar length, and write each batch after it is finished.
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
      // A group fills a few batches, as the samples of all its clips are in memory.
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

  /** Extract a group of clips. An error names its clip. */
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
      // The clips are extracted one by one, so that the error names the bad one.
      for (const clip of clips) if (!this.has(clip.name)) await this.#fillSome(extractor, [clip], options, bar)
    }
  }
}

/** Return the length of an audio file from its header, or 0 if it is unknown: it only affects the order of batches. */
async function lengthOf(audio: AudioClip): Promise<number> {
  const path = typeof audio === 'object' && audio !== null && 'path' in audio ? audio.path : audio
  if (typeof path !== 'string' || /\.npy$/i.test(path)) return 0
  return (await clipSeconds(path).catch(() => 0)) ?? 0
}

async function indexOf(file: string): Promise<{ fingerprint?: unknown; layer?: unknown; units?: unknown }> {
  const value = await readJson(file)
  if (typeof value === 'object' && value !== null) return value
  throw new DataError(`${file}: expected an object with the fingerprint of the units, got ${shown(value)}`, { file })
}

/** Return the audio files in a folder and its subfolders, sorted, as relative paths. @internal */
export async function audioFiles(where: string, folder: string): Promise<string[]> {
  requireString(where, 'input', folder)
  if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory()) {
    throw new ConfigError(`${where}: expected a folder of audio files, got ${folder}, which does not exist`, {
      argument: 'input',
    })
  }
  const files = (await readdir(folder, { recursive: true })).filter((path) => AUDIO_FILE.test(path)).sort()
  if (files.length > 0) return files
  throw new ConfigError(`${where}: expected audio files in ${folder}, got none`, { argument: 'input' })
}

const AUDIO_FILE = /\.(wav|flac|mp3|ogg|opus|aiff?|npy)$/i

/**
 * Extract the units of all audio files in a folder and its subfolders into another folder, with the same names (see {@link UnitFolder}).
 * Existing files are kept, so an interrupted run continues.
 *
 * ```ts
 * await extractUnits(extractor, { input: 'LibriTTS/dev-clean', output: 'units', progress: true })
 * ```
 * @throws ConfigError if there are no audio files, if two differ only in their extension, and for an output folder with other units;
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
  const files = await audioFiles('extractUnits', input)
  const clips = new Map<string, NamedClip>()
  for (const path of files) {
    const name = path.slice(0, path.length - extname(path).length).replaceAll('\\', '/')
    if (clips.has(name))
      throw new ConfigError(
        `extractUnits: expected audio files with different names, got ${join(input, name)} with two extensions. Rename one.`,
        { name },
      )
    clips.set(name, { name, audio: join(input, path) })
  }
  const folder = await UnitFolder.open(output, extractor)
  return folder.fill(extractor, [...clips.values()], options)
}

export interface ReadUnitsOptions {
  /** Number of units; larger values are an error. Default: no limit. */
  units?: number
}

/**
 * Read a file of units: integers separated by white space.
 * @throws DataError naming the file, if it is missing, empty, or contains other values
 */
export async function readUnits(path: string, options: ReadUnitsOptions = {}): Promise<Int32Array> {
  requireString('readUnits', 'path', path)
  requireOptions('readUnits', options, ['units'])
  let bytes: Uint8Array
  try {
    if (statSync(path).size > MAX_BYTES) throw new Error(`it has more than ${MAX_BYTES} bytes`)
    bytes = await readFile(path)
  } catch (cause) {
    throw new DataError(`${path}: expected a readable file of units: ${(cause as Error).message}`, {
      file: path,
      cause,
    })
  }
  return parseUnits(bytes, path, options.units)
}

// 50 hours of speech.
const MAX_BYTES = 1 << 26

/** Parse the bytes of a file of units. @internal */
export function parseUnits(bytes: Uint8Array, file: string, units = 2 ** 31): Int32Array {
  const words = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    .toString('latin1')
    .split(/[ \t\r\n]+/)
    .filter((word) => word !== '')
  if (words.length === 0) throw new DataError(`${file}: expected units, got none`, { file })
  return Int32Array.from(words, (word, i) => {
    const unit = /^\d{1,10}$/.test(word) ? Number(word) : Number.NaN
    if (unit < units) return unit
    const what = JSON.stringify(word.slice(0, 40))
    throw new DataError(
      `${file}: number ${i + 1}: expected a unit${units < 2 ** 31 ? ` from 0 to ${units - 1}` : ''}, got ${what}`,
      { file, place: i + 1 },
    )
  })
}
