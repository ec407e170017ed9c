import type { EmotionClip } from '../../../kit/emotion/clips.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import { contentHash } from '../../../kit/fingerprint.js'
import type { Module } from '../../../nn/index.js'
import type { Tensor } from '../../../tensor/index.js'
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

/**
 * The SHA-256 of a clip's bytes with its times.
 * @throws DataError naming a file that is not there
 */
export async function clipSource(
  path: string,
  { start, end }: Pick<EmotionClip, 'start' | 'end'> = {},
): Promise<string> {
  return `${await contentHash(path)} ${start ?? ''} ${end ?? ''}`
}

/** Where sound of an utterance is: a sound file, or a film's. */
export function soundOf({
  clip,
}: EmotionDialog['utterances'][number]): { path: string; clip: EmotionClip } | undefined {
  const path = clip?.audio ?? clip?.video
  return path === undefined ? undefined : { path, clip: clip as EmotionClip }
}
