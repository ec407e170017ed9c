import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { misuse, requireOptions, requireString, requireWhole } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import type { Lock } from '../../../base/lock.js'
import { DataLoader } from '../../../data/loader.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import { FeatureFile, lockFeatures } from '../../../kit/feature-file.js'
import { configurations, weightsHash } from '../../../kit/fingerprint.js'
import { evaluating } from '../../../nn/index.js'
import { noGrad, scope, type Tensor } from '../../../tensor/index.js'
import type { EmotionModality } from '../network/config.js'
import type { EmotionTower } from '../network/towers.js'
import { readUtterance } from './bad-clips.js'
import type { EmotionSample } from './collate.js'

export interface FeatureCacheOptions {
  /** Utterances that a tower reads at once [16]. */
  batchSize?: number
  /** Called as vectors come: how many utterances are done, of how many, and how many of them were there. */
  onProgress?: (state: { modality: EmotionModality; done: number; total: number; hits: number }) => void
  signal?: AbortSignal
}

/**
 * Vectors of frozen towers on the disk, so that each utterance is read once, by whatever run. Its key is the SHA-256 of the
 * bytes that the tower reads, of all that its recipe and its network's configuration say, of its weights and of its dtype:
 * whatever of these changes, it is computed anew. A file for each tower holds them (see `FeatureFile`), and what a kill left goes on.
 *
 * One process writes to a folder at a time; others wait for nothing and get BusyError.
 */
export class FeatureCache {
  readonly #folder: string
  readonly #lock: Lock
  readonly #files = new Map<string, FeatureFile>()

  private constructor(folder: string, lock: Lock) {
    this.#folder = folder
    this.#lock = lock
  }

  /** @throws BusyError where another process has it; DataError where the folder cannot be made */
  static open(folder: string): FeatureCache {
    requireString('FeatureCache', 'folder', folder)
    return new FeatureCache(folder, lockFeatures(folder, 'a feature cache'))
  }

  /** What tells a tower from others: its recipe, configuration, weights and dtype. */
  static async keyOf(tower: EmotionTower): Promise<string> {
    const dtype = tower.network?.parameters()[0]?.dtype ?? 'none'
    const weights = tower.network ? await weightsHash(tower.network) : 'none'
    const config = tower.network ? configurations(tower.network) : 'none'
    const facts = [tower.modality, tower.size, JSON.stringify(sorted(tower.recipe)), config, weights, dtype]
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
    const file = await this.#fileOf(await FeatureCache.keyOf(tower))
    const total = dialogs.reduce((sum, { utterances }) => sum + utterances.length, 0)
    const keys: (string | undefined)[][] = []
    const wanted: Wanted[] = []
    const asked = new Set<string>()
    const values = new Map<string, Float32Array>()
    let [done, hits] = [0, 0]
    for (const dialog of dialogs) {
      const own: (string | undefined)[] = []
      for (const place of dialog.utterances.keys()) {
        signal?.throwIfAborted()
        const source = await tower.source(dialog, place)
        const key = source === undefined ? undefined : createHash('sha256').update(source).digest('hex')
        own.push(key)
        if (key !== undefined && !asked.has(key)) {
          asked.add(key)
          const kept = await file.get(key)
          if (kept) values.set(key, new Float32Array(kept.buffer, kept.byteOffset, tower.size))
          else wanted.push({ dialog, place, key, length: source?.length ?? 0 })
          if (!values.has(key)) continue
        }
        done += 1
        if (key !== undefined && values.has(key)) hits += 1
      }
      keys.push(own)
    }
    onProgress?.({ modality: tower.modality, done, total, hits })
    // Those of like length together, so that little padding is computed. Of files the length says nothing, and nothing is lost.
    wanted.sort((a, b) => b.length - a.length)
    const compute = async () => {
      // The next clips are read while the tower has these.
      const batches = new DataLoader<Wanted, unknown[]>(wanted, {
        ...{ batchSize, collateAhead: true },
        collate: async (some) => {
          const inputs: unknown[] = []
          for (const { dialog, place } of some) {
            signal?.throwIfAborted()
            inputs.push(await readUtterance(tower, dialog, place))
          }
          return inputs
        },
      })
      let from = 0
      for await (const inputs of batches) {
        signal?.throwIfAborted()
        const some = wanted.slice(from, from + batchSize)
        from += batchSize
        // What cannot be read has no vector, and is not kept as one that has none: it may be mended.
        const there = some.flatMap((one, i) => (inputs[i] === undefined ? [] : [{ one, input: inputs[i] }]))
        if (there.length === 0) {
          done += some.length
          continue
        }
        const made = await this.#encoded(
          tower,
          there.map(({ one }) => one),
          there.map(({ input }) => input),
        )
        for (const { key, vector } of made) {
          values.set(key, vector)
          await file.append(key, new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength))
        }
        done += some.length
        onProgress?.({ modality: tower.modality, done, total, hits })
      }
    }
    if (wanted.length > 0) await noGrad(() => (tower.network ? evaluating(tower.network, compute) : compute()))
    return keys.map((own) => own.map((key) => (key === undefined ? undefined : values.get(key))))
  }

  async #encoded(tower: EmotionTower, some: readonly Wanted[], inputs: readonly unknown[]) {
    return scope(async () => {
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
    })
  }

  async #fileOf(key: string): Promise<FeatureFile> {
    const known = this.#files.get(key)
    if (known) return known
    const made = await FeatureFile.open(join(this.#folder, `${key.slice(0, 32)}.vectors`))
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

interface Wanted {
  dialog: EmotionDialog
  place: number
  key: string
  length: number
}

const sorted = (recipe: Readonly<Record<string, unknown>>) =>
  Object.fromEntries(Object.entries(recipe).sort(([a], [b]) => (a < b ? -1 : 1)))

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
