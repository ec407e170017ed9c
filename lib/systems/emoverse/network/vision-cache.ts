import { join } from 'node:path'
import { requireString } from '../../../base/check.js'
import type { Lock } from '../../../base/lock.js'
import { getRank } from '../../../distributed/index.js'
import { FeatureFile, lockFeatures } from '../../../kit/feature-file.js'
import { weightsHash } from '../../../kit/fingerprint.js'
import { keyOf } from '../data/media.js'
import type { EmoVerse } from './network.js'
import type { EmoVerseVision, VisionStore } from './vision.js'

/**
 * Disk cache of the vision encoder's outputs, shared by all runs. A key is the SHA-256 of a file's bytes, of the tiling settings, and of the
 * network's weights and dtype, so any change leads to a new computation. A record that a killed process left incomplete is cut off.
 *
 * One process uses a folder at a time; others get BusyError. The processes of one training use a subfolder each.
 */
export class VisionCache implements VisionStore {
  private constructor(
    readonly file: FeatureFile,
    readonly lock: Lock,
  ) {}

  /** @throws BusyError if another process uses the folder; DataError if it cannot be created */
  static async open(folder: string, { network }: EmoVerseVision): Promise<VisionCache> {
    requireString('VisionCache', 'folder', folder)
    const own = getRank() === 0 ? folder : join(folder, `rank-${getRank()}`)
    const lock = lockFeatures(own, 'a vision cache')
    try {
      const { selectLayer = -1, psVersion = 'v2', downsampleRatio = 0.5, visionConfig } = network.config
      const facts = JSON.stringify({ selectLayer, psVersion, downsampleRatio, visionConfig })
      const key = keyOf(facts, await weightsHash(network.vision_model))
      return new VisionCache(await FeatureFile.open(join(own, `${key.slice(0, 32)}.features`)), lock)
    } catch (error) {
      lock.release()
      throw error
    }
  }

  sizeOf(key: string): number | undefined {
    return this.file.sizeOf(key)
  }

  get(key: string): Promise<Uint8Array | undefined> {
    return this.file.get(key)
  }

  put(key: string, features: Uint8Array): Promise<void> {
    return this.file.append(key, features)
  }

  async close(): Promise<void> {
    await this.file.close()
    this.lock.release()
  }
}

/** Run `work` with the model's vision features cached in a folder; without a folder or vision encoder, run it as it is. */
export async function withVisionCache<T>(
  { vision }: EmoVerse,
  folder: string | undefined,
  work: () => Promise<T>,
): Promise<T> {
  if (folder === undefined || vision === null) return work()
  const before = vision.store
  const cache = await VisionCache.open(folder, vision)
  vision.store = cache
  try {
    return await work()
  } finally {
    vision.store = before
    await cache.close()
  }
}
