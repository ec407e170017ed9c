import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { argumentError, requireOptions, requireString, requireWhole } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import type { Lock } from '../../../base/lock.js'
import { DataLoader } from '../../../data/loader.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import { FeatureFile, lockFeatures } from '../../../kit/feature-file.js'
import { configurations, weightsHash } from '../../../kit/fingerprint.js'
import { withEvalMode } from '../../../nn/index.js'
import { noGrad, scope, type Tensor } from '../../../tensor/index.js'
import type { EmotionModality } from '../network/config.js'
import type { EmotionEncoder } from '../network/encoders.js'
import { readUtterance } from './bad-clips.js'
import type { EmotionSample } from './collate.js'

export interface FeatureCacheOptions {
  /** Utterances that an encoder processes at once. Default 16. */
  batchSize?: number
  /** Progress callback: utterances done, their total, and how many of them came from the cache. */
  onProgress?: (state: { modality: EmotionModality; done: number; total: number; hits: number }) => void
  signal?: AbortSignal
}

/**
 * Cache of the vectors of frozen encoders on disk, shared by all runs. The key of a vector is the SHA-256 of the input, of the
 * encoder's recipe, of its network's configuration and weights, and of the dtype. If any of them changes, the vector is computed
 * again. There is one file per encoder (see `FeatureFile`), and an interrupted run resumes.
 *
 * Only one process may have a folder open; others get a BusyError at once.
 */
export class FeatureCache {
  readonly #folder: string
  readonly #lock: Lock
  readonly #files = new Map<string, FeatureFile>()

  private constructor(folder: string, lock: Lock) {
    this.#folder = folder
    this.#lock = lock
  }

  /** Open a cache. @throws BusyError if another process has it open; DataError if the folder cannot be created */
  static open(folder: string): FeatureCache {
    requireString('FeatureCache', 'folder', folder)
    return new FeatureCache(folder, lockFeatures(folder, 'a feature cache'))
  }

  /** Return the key of an encoder: a hash of its recipe, configuration, weights and dtype. */
  static async keyOf(encoder: EmotionEncoder): Promise<string> {
    const dtype = encoder.network?.parameters()[0]?.dtype ?? 'none'
    const weights = encoder.network ? await weightsHash(encoder.network) : 'none'
    const config = encoder.network ? configurations(encoder.network) : 'none'
    const facts = [encoder.modality, encoder.size, JSON.stringify(sorted(encoder.recipe)), config, weights, dtype]
    return createHash('sha256').update(facts.join('\0')).digest('hex')
  }

  /**
   * Return the vectors of all utterances of some dialogs, in their order; undefined if an utterance lacks the modality.
   * Vectors that are not in the cache are computed, in evaluation mode and without gradients.
   */
  async vectors(
    encoder: EmotionEncoder,
    dialogs: readonly EmotionDialog[],
    options: FeatureCacheOptions = {},
  ): Promise<(Float32Array | undefined)[][]> {
    const where = 'FeatureCache.vectors'
    requireOptions(where, options, ['batchSize', 'onProgress', 'signal'])
    const { batchSize = 16, onProgress, signal } = options
    requireWhole(where, 'batchSize', batchSize, 1)
    if (typeof encoder?.encode !== 'function') throw argumentError(where, 'encoder', 'an encoder', encoder)
    const file = await this.#fileOf(await FeatureCache.keyOf(encoder))
    const total = dialogs.reduce((sum, { utterances }) => sum + utterances.length, 0)
    const keys: (string | undefined)[][] = []
    const missing: MissingVector[] = []
    const requested = new Set<string>()
    const values = new Map<string, Float32Array>()
    let [done, hits] = [0, 0]
    for (const dialog of dialogs) {
      const own: (string | undefined)[] = []
      for (const place of dialog.utterances.keys()) {
        signal?.throwIfAborted()
        const source = await encoder.source(dialog, place)
        const key = source === undefined ? undefined : createHash('sha256').update(source).digest('hex')
        own.push(key)
        if (key !== undefined && !requested.has(key)) {
          requested.add(key)
          const kept = await file.get(key)
          if (kept) values.set(key, new Float32Array(kept.buffer, kept.byteOffset, encoder.size))
          else missing.push({ dialog, place, key, length: source?.length ?? 0 })
          if (!values.has(key)) continue
        }
        done += 1
        if (key !== undefined && values.has(key)) hits += 1
      }
      keys.push(own)
    }
    onProgress?.({ modality: encoder.modality, done, total, hits })
    // Sort by length, to limit padding. For audio and video files the length is constant, and the order stays.
    missing.sort((a, b) => b.length - a.length)
    const compute = async () => {
      // The loader reads the next clips while the encoder runs.
      const batches = new DataLoader<MissingVector, unknown[]>(missing, {
        ...{ batchSize, collateAhead: true },
        collate: async (some) => {
          const inputs: unknown[] = []
          for (const { dialog, place } of some) {
            signal?.throwIfAborted()
            inputs.push(await readUtterance(encoder, dialog, place))
          }
          return inputs
        },
      })
      let from = 0
      for await (const inputs of batches) {
        signal?.throwIfAborted()
        const some = missing.slice(from, from + batchSize)
        from += batchSize
        // An input that cannot be read gets no vector and no cache entry, so that a repaired file is read in the next run.
        const readable = some.flatMap((one, i) => (inputs[i] === undefined ? [] : [{ one, input: inputs[i] }]))
        if (readable.length === 0) {
          done += some.length
          continue
        }
        const encoded = await this.#encoded(
          encoder,
          readable.map(({ one }) => one),
          readable.map(({ input }) => input),
        )
        for (const { key, vector } of encoded) {
          values.set(key, vector)
          await file.append(key, new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength))
        }
        done += some.length
        onProgress?.({ modality: encoder.modality, done, total, hits })
      }
    }
    if (missing.length > 0) await noGrad(() => (encoder.network ? withEvalMode(encoder.network, compute) : compute()))
    return keys.map((own) => own.map((key) => (key === undefined ? undefined : values.get(key))))
  }

  async #encoded(encoder: EmotionEncoder, some: readonly MissingVector[], inputs: readonly unknown[]) {
    return scope(async () => {
      const rows: Tensor = (await encoder.encode(inputs)).to({ device: 'cpu', dtype: 'float32' }).contiguous()
      const values = Float32Array.from((await rows.data()) as Float32Array)
      return some.map(({ dialog, key, place }, i) => {
        const vector = values.subarray(i * encoder.size, (i + 1) * encoder.size)
        if (!vector.every(Number.isFinite)) {
          const { source, utterances } = dialog
          const where = `${source}, utterance ${utterances[place]?.id}`
          throw new DataError(
            `${where}: ${encoder.modality}: expected a finite vector from its encoder, got NaN or infinity. Check the input.`,
            { source },
          )
        }
        return { key, vector }
      })
    })
  }

  async #fileOf(key: string): Promise<FeatureFile> {
    const known = this.#files.get(key)
    if (known) return known
    const opened = await FeatureFile.open(join(this.#folder, `${key.slice(0, 32)}.vectors`))
    this.#files.set(key, opened)
    return opened
  }

  /** Close the files and release the folder. */
  async close(): Promise<void> {
    for (const file of this.#files.values()) await file.close()
    this.#files.clear()
    this.#lock.release()
  }
}

interface MissingVector {
  dialog: EmotionDialog
  place: number
  key: string
  length: number
}

const sorted = (recipe: Readonly<Record<string, unknown>>) =>
  Object.fromEntries(Object.entries(recipe).sort(([a], [b]) => (a < b ? -1 : 1)))

/** Return a lookup of the vectors of dialogs, through a cache; for {@link EmotionSample}. */
export async function emotionVectors(
  encoders: readonly EmotionEncoder[],
  dialogs: readonly EmotionDialog[],
  cache: FeatureCache,
  options: FeatureCacheOptions = {},
): Promise<(dialog: EmotionDialog) => EmotionSample['vectors']> {
  const found = new Map<EmotionDialog, Partial<Record<EmotionModality, readonly (Float32Array | undefined)[]>>>()
  for (const encoder of encoders) {
    const rows = await cache.vectors(encoder, dialogs, options)
    for (const [i, dialog] of dialogs.entries())
      found.set(dialog, { ...found.get(dialog), [encoder.modality]: rows[i] })
  }
  return (dialog) => found.get(dialog) ?? {}
}
