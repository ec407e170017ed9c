import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { DataError } from '../../../base/errors.js'
import type { EmotionClip } from '../../../kit/emotion/clips.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import type { Module } from '../../../nn/index.js'
import { noGrad, scope, type Tensor } from '../../../tensor/index.js'
import type { EmotionModality } from './config.js'

/**
 * What makes a vector of an utterance of what is said, seen or heard: a network, or features without one. Frozen ones run
 * once for each utterance (see `FeatureCache`); as part of an `EmotionClassifier` they train with it.
 */
export interface EmotionTower<Input = unknown> {
  readonly modality: EmotionModality
  /** Of its vectors. */
  readonly size: number
  /** How many states its vectors are, side by side, where they are more than one; for fusion 'frames'. */
  readonly steps?: number | undefined
  /** Null for features that have no weights. */
  readonly network: Module | null
  /** All that its vectors depend on beside its weights and what it reads: whatever is written here. */
  readonly recipe: Readonly<Record<string, unknown>>
  /** What it reads of an utterance, told by its bytes; undefined where the utterance has nothing for it. */
  source(dialog: EmotionDialog, place: number): Promise<string | undefined>
  /** The same, read. Tensors belong to the caller's scope. */
  read(dialog: EmotionDialog, place: number): Promise<Input | undefined>
  /** Vectors of some of what was read: float [inputs, size], on the network's device, with gradients where they are on. */
  encode(inputs: readonly Input[]): Promise<Tensor>
  /** What `openTower` finds it again by, where it came from a file: `{ tower, from, … }`. */
  readonly reference?: Readonly<Record<string, unknown>> | undefined
  /**
   * Writes it to a folder, from which `openTower` reads it. Left out where it cannot be saved.
   * @param saved what towers of the same classifier have in common and have written already
   */
  save?(folder: string, saved: Set<object>): Promise<void>
}

/** Hashes of clips that were read already, by path, size and time of change. */
const hashes = new Map<string, string>()
const MOST_HASHES = 200_000

/**
 * The SHA-256 of a clip's bytes with its times.
 * @throws DataError naming a file that is not there
 */
export async function clipSource(
  path: string,
  { start, end }: Pick<EmotionClip, 'start' | 'end'> = {},
): Promise<string> {
  const facts = await stat(path).catch((cause) => {
    throw new DataError(`${path} cannot be read: ${cause.message}`, { file: path, cause })
  })
  const key = `${path} ${facts.size} ${facts.mtimeMs}`
  let hash = hashes.get(key)
  if (hash === undefined) {
    hash = facts.isDirectory() ? await folderHash(path) : await fileHash(path)
    if (hashes.size >= MOST_HASHES) hashes.clear()
    hashes.set(key, hash)
  }
  return `${hash} ${start ?? ''} ${end ?? ''}`
}

async function fileHash(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer)
  return hash.digest('hex')
}

async function folderHash(folder: string): Promise<string> {
  const { readdir } = await import('node:fs/promises')
  const { join } = await import('node:path')
  const hash = createHash('sha256')
  for (const name of (await readdir(folder)).sort()) hash.update(`${name}\0${await fileHash(join(folder, name))}\0`)
  return hash.digest('hex')
}

/** The SHA-256 of a network's weights: names, dtypes, shapes and bytes. */
export async function weightsHash(network: Module): Promise<string> {
  const hash = createHash('sha256')
  for (const [name, tensor] of Object.entries(network.stateDict())) {
    hash.update(`${name} ${tensor.dtype} ${tensor.shape} `)
    await noGrad(() =>
      scope(async () => {
        const flat = tensor.detach().to({ device: 'cpu' }).contiguous().reshape([-1])
        // Types that JavaScript has no array for are looked at as numbers that it has.
        const plain = /^(bfloat16|float16)$/.test(flat.dtype) ? flat.to({ dtype: 'float32' }) : flat
        const data = await plain.data()
        hash.update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
      }),
    )
  }
  return hash.digest('hex')
}

/** Where sound of an utterance is: a sound file, or a film's. */
export function soundOf({
  clip,
}: EmotionDialog['utterances'][number]): { path: string; clip: EmotionClip } | undefined {
  const path = clip?.audio ?? clip?.video
  return path === undefined ? undefined : { path, clip: clip as EmotionClip }
}
