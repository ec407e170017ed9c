import type { EmotionClip } from '../../../kit/emotion/clips.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import { contentHash } from '../../../kit/fingerprint.js'
import type { Module } from '../../../nn/index.js'
import type { Tensor } from '../../../tensor/index.js'
import type { EmotionModality } from './config.js'

/**
 * Encoder of one modality of an utterance: a network, or features without weights. A frozen encoder runs once per utterance (see
 * `FeatureCache`); as part of an `EmotionClassifier` it trains.
 */
export interface EmotionEncoder<Input = unknown> {
  readonly modality: EmotionModality
  /** Size of its vectors. */
  readonly size: number
  /** Number of states concatenated in a vector, if more than one; for fusion 'frames'. */
  readonly steps?: number | undefined
  /** Null for features without weights. */
  readonly network: Module | null
  /** Options that change its vectors, apart from weights and inputs; part of the cache key. */
  readonly recipe: Readonly<Record<string, unknown>>
  /** Return a string that identifies the input of an utterance; undefined if the utterance lacks the modality. */
  source(dialog: EmotionDialog, place: number): Promise<string | undefined>
  /** Read the input of an utterance. Tensors belong to the caller's scope. */
  read(dialog: EmotionDialog, place: number): Promise<Input | undefined>
  /** Encode inputs: float [inputs, size], on the network's device. Records gradients if they are enabled. */
  encode(inputs: readonly Input[]): Promise<Tensor>
  /** Object from which `openEncoder` loads the encoder again, if it came from a file: `{ encoder, from, … }`. */
  readonly reference?: Readonly<Record<string, unknown>> | undefined
  /**
   * Save the encoder to a folder that `openEncoder` can load. Undefined if it cannot be saved.
   * @param saved objects that other encoders of the same classifier have saved already, such as a shared model
   */
  save?(folder: string, saved: Set<object>): Promise<void>
}

/**
 * Return the SHA-256 of a clip's bytes, with its times.
 * @throws DataError if the file does not exist
 */
export async function clipSource(
  path: string,
  { start, end }: Pick<EmotionClip, 'start' | 'end'> = {},
): Promise<string> {
  return `${await contentHash(path)} ${start ?? ''} ${end ?? ''}`
}

/** Return the path of an utterance's audio: an audio file, or a video. */
export function audioOf({
  clip,
}: EmotionDialog['utterances'][number]): { path: string; clip: EmotionClip } | undefined {
  const path = clip?.audio ?? clip?.video
  return path === undefined ? undefined : { path, clip: clip as EmotionClip }
}
