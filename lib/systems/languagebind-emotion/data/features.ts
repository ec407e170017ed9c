import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { makeDirectory } from '../../../base/atomic.js'
import { misuse, requireOptions, requireString, requireWhole } from '../../../base/check.js'
import { BusyError, DataError } from '../../../base/errors.js'
import { Lock, takeLock } from '../../../base/lock.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import { evaluating } from '../../../nn/index.js'
import { noGrad, scope, type Tensor } from '../../../tensor/index.js'
import type { EmotionModality } from '../network/config.js'
import { type EmotionTower, weightsHash } from '../network/towers.js'
import type { EmotionSample } from './collate.js'

const KEY = 32
const SUM = 4

export interface FeatureCacheOptions {
  /** Utterances that a tower reads at once [16]. */
  batchSize?: number
  /** Called as vectors come: how many utterances are done, of how many, and how many of them were there. */
  onProgress?: (state: { modality: EmotionModality; done: number; total: number; hits: number }) => void
  signal?: AbortSignal
}

/**
 * Vectors of frozen towers on the disk, so that each utterance is read once, by whatever run. Its key is the SHA-256 of the
 * bytes that the tower reads, of all that its recipe says, of its weights and of its dtype: whatever of these changes, it is
 * computed anew. A file for each tower holds them one after the other, each with a checksum; what a kill left half written
 * is cut off when it is opened, and the rest goes on. Memory holds where they are, not what they are.
 *
 * One process writes to a folder at a time; others wait for nothing and get BusyError.
 */
export class FeatureCache {
  readonly #folder: string
  readonly #lock: Lock
  readonly #files = new Map<string, VectorFile>()

  private constructor(folder: string, lock: Lock) {
    this.#folder = folder
    this.#lock = lock
  }

  /** @throws BusyError where another process has it; DataError where the folder cannot be made */
  static open(folder: string): FeatureCache {
    requireString('FeatureCache', 'folder', folder)
    makeDirectory(folder, DataError)
    const lock = takeLock(join(folder, 'lock'), { name: 'a feature cache' })
    if (lock instanceof Lock) return new FeatureCache(folder, lock)
    const { pid, host } = lock
    throw new BusyError(`${folder} is filled by process ${pid} on ${host}: wait for it, or give another folder`, {
      pid,
      host,
    })
  }

  /** What tells a tower from others: its recipe, weights and dtype. */
  static async keyOf(tower: EmotionTower): Promise<string> {
    const dtype = tower.network?.parameters()[0]?.dtype ?? 'none'
    const weights = tower.network ? await weightsHash(tower.network) : 'none'
    const facts = [tower.modality, tower.size, JSON.stringify(sorted(tower.recipe)), weights, dtype]
    return createHash('sha256').update(facts.join('\0')).digest('hex')
  }

  /**
   * The vectors of all utterances of some dialogs, in their order; undefined where an utterance has nothing for the tower.
   * What is not there is computed, in evaluation mode and without gradients.
   */
  async vectors(
    tower: EmotionTower,
    dialogs: readonly EmotionDialog[],
    options: FeatureCacheOptions = {},
  ): Promise<(Float32Array | undefined)[][]> {
    const where = 'FeatureCache.vectors'
    requireOptions(where, options, ['batchSize', 'onProgress', 'signal'])
    const { batchSize = 16, onProgress, signal } = options
    requireWhole(where, 'batchSize', batchSize, 1)
    if (typeof tower?.encode !== 'function') throw misuse(where, 'tower', 'a tower', tower)
    const file = await this.#fileOf(await FeatureCache.keyOf(tower), tower.size)
    const total = dialogs.reduce((sum, { utterances }) => sum + utterances.length, 0)
    const keys: (string | undefined)[][] = []
    const wanted: { dialog: EmotionDialog; place: number; key: string; length: number }[] = []
    const asked = new Set<string>()
    let [done, hits] = [0, 0]
    for (const dialog of dialogs) {
      const own: (string | undefined)[] = []
      for (const place of dialog.utterances.keys()) {
        signal?.throwIfAborted()
        const source = await tower.source(dialog, place)
        const key = source === undefined ? undefined : createHash('sha256').update(source).digest('hex')
        own.push(key)
        if (key === undefined || file.has(key)) {
          done += 1
          if (key !== undefined) hits += 1
        } else if (asked.has(key)) done += 1
        else wanted.push({ dialog, place, key, length: source?.length ?? 0 })
        if (key !== undefined) asked.add(key)
      }
      keys.push(own)
    }
    onProgress?.({ modality: tower.modality, done, total, hits })
    // Those of like length together, so that little padding is computed. Of files the length says nothing, and nothing is lost.
    wanted.sort((a, b) => b.length - a.length)
    const compute = async () => {
      for (let from = 0; from < wanted.length; from += batchSize) {
        signal?.throwIfAborted()
        const some = wanted.slice(from, from + batchSize)
        await file.append(await this.#compute(tower, some))
        done += some.length
        onProgress?.({ modality: tower.modality, done, total, hits })
      }
    }
    if (wanted.length > 0) await (tower.network ? evaluating(tower.network, compute) : compute())
    const found: (Float32Array | undefined)[][] = []
    for (const own of keys) {
      const rows: (Float32Array | undefined)[] = []
      for (const key of own) rows.push(key === undefined ? undefined : await file.get(key))
      found.push(rows)
    }
    return found
  }

  async #compute(tower: EmotionTower, some: readonly { dialog: EmotionDialog; place: number; key: string }[]) {
    return noGrad(() =>
      scope(async () => {
        const inputs: unknown[] = []
        for (const { dialog, place } of some) inputs.push(await tower.read(dialog, place))
        const rows: Tensor = (await tower.encode(inputs)).to({ device: 'cpu', dtype: 'float32' }).contiguous()
        const values = Float32Array.from((await rows.data()) as Float32Array)
        return some.map(({ dialog, key, place }, i) => {
          const vector = values.subarray(i * tower.size, (i + 1) * tower.size)
          if (!vector.every(Number.isFinite)) {
            const { source, utterances } = dialog
            throw new DataError(`${source}, utterance ${utterances[place]?.id}: its ${tower.modality} gives NaN`, {
              source,
            })
          }
          return { key, vector }
        })
      }),
    )
  }

  async #fileOf(key: string, size: number): Promise<VectorFile> {
    const known = this.#files.get(key)
    if (known) return known
    const made = await VectorFile.open(join(this.#folder, `${key.slice(0, 32)}.vectors`), size)
    this.#files.set(key, made)
    return made
  }

  /** Closes its files, and lets another process have the folder. */
  async close(): Promise<void> {
    for (const file of this.#files.values()) await file.close()
    this.#files.clear()
    this.#lock.release()
  }
}

const sorted = (recipe: Readonly<Record<string, unknown>>) =>
  Object.fromEntries(Object.entries(recipe).sort(([a], [b]) => (a < b ? -1 : 1)))

/** Records of a key, a vector and a checksum, of one length each. */
class VectorFile {
  /** Where the vector of a key begins. */
  readonly #places = new Map<string, number>()
  #end = 0

  private constructor(
    readonly path: string,
    readonly size: number,
    readonly handle: FileHandle,
  ) {}

  static async open(path: string, size: number): Promise<VectorFile> {
    const handle = await open(path, constants.O_RDWR | constants.O_CREAT, 0o666).catch((cause) => {
      throw new DataError(`${path} cannot be opened: ${cause.message}`, { file: path, cause })
    })
    const file = new VectorFile(path, size, handle)
    await file.#index()
    return file
  }

  get #length(): number {
    return KEY + 4 * this.size + SUM
  }

  /** Finds what is whole, and cuts off what is not. */
  async #index(): Promise<void> {
    const { size } = await this.handle.stat()
    const block = Buffer.alloc(this.#length * Math.max(1, Math.floor((1 << 20) / this.#length)))
    for (;;) {
      const { bytesRead } = await this.handle.read(block, 0, block.length, this.#end)
      let at = 0
      for (; at + this.#length <= bytesRead; at += this.#length) {
        const body = block.subarray(at, at + this.#length - SUM)
        if (crc32(body) !== block.readUInt32LE(at + this.#length - SUM)) break
        this.#places.set(body.subarray(0, KEY).toString('hex'), this.#end + at + KEY)
      }
      this.#end += at
      if (at < block.length) break
    }
    if (this.#end < size) await this.handle.truncate(this.#end)
  }

  has(key: string): boolean {
    return this.#places.has(key)
  }

  async append(rows: readonly { key: string; vector: Float32Array }[]): Promise<void> {
    const bytes = Buffer.alloc(this.#length * rows.length)
    for (const [i, { key, vector }] of rows.entries()) {
      const at = i * this.#length
      bytes.write(key, at, KEY, 'hex')
      Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength).copy(bytes, at + KEY)
      bytes.writeUInt32LE(crc32(bytes.subarray(at, at + this.#length - SUM)), at + this.#length - SUM)
    }
    await this.handle.write(bytes, 0, bytes.length, this.#end)
    for (const [i, { key }] of rows.entries()) this.#places.set(key, this.#end + i * this.#length + KEY)
    this.#end += bytes.length
  }

  async get(key: string): Promise<Float32Array> {
    const bytes = Buffer.alloc(4 * this.size)
    const { bytesRead } = await this.handle.read(bytes, 0, bytes.length, this.#places.get(key) as number)
    if (bytesRead < bytes.length)
      throw new DataError(`${this.path} lost its end while it was open`, { file: this.path })
    return new Float32Array(bytes.buffer, bytes.byteOffset, this.size).slice()
  }

  close(): Promise<void> {
    return this.handle.close()
  }
}

/** The vectors of towers without a cache on the disk, or with one; for {@link EmotionSample}. */
export async function emotionVectors(
  towers: readonly EmotionTower[],
  dialogs: readonly EmotionDialog[],
  cache: FeatureCache,
  options: FeatureCacheOptions = {},
): Promise<(dialog: EmotionDialog) => EmotionSample['vectors']> {
  const found = new Map<EmotionDialog, Partial<Record<EmotionModality, readonly (Float32Array | undefined)[]>>>()
  for (const tower of towers) {
    const rows = await cache.vectors(tower, dialogs, options)
    for (const [i, dialog] of dialogs.entries()) found.set(dialog, { ...found.get(dialog), [tower.modality]: rows[i] })
  }
  return (dialog) => found.get(dialog) ?? {}
}
