import { describe, expect, it } from 'vitest'
import { Module, noGrad, randn, type Tensor, tensor, zeros } from '../../lib/index.js'
import type { SpeechFeatures, SpeechStates } from '../../lib/models/audio-lm/encoder-inputs.js'
import { GlmAsrEncoder } from '../../lib/models/audio-lm/glmasr-encoder.js'
import {
  GraniteProjector,
  GraniteSpeechEncoder,
  graniteSpeechFeatures,
  graniteTokens,
} from '../../lib/models/audio-lm/granite-speech-encoder.js'
import { Qwen3AsrEncoder, qwen3AsrFeatures, qwen3AsrFrames } from '../../lib/models/audio-lm/qwen3-asr-encoder.js'
import type { NativeModule } from '../../lib/nn/native-module.js'
import { expectClose, fixture, tensorsOf } from '../helpers.js'
import { camelKeys, expectGradients, loadParameters } from './networks.js'

interface Case {
  name: string
  config: Record<string, unknown>
  projector?: Record<string, unknown>
  windows?: Record<string, number>
  training: boolean
}
type Encoder = NativeModule & {
  encode(inputs: SpeechFeatures & { outputAttentions?: boolean }): Promise<SpeechStates & { attentions?: Tensor[] }>
  forward(features: Tensor, lengths?: readonly number[] | null): Promise<Tensor>
}
type Projector = NativeModule & { forward(states: Tensor): Promise<Tensor> }

/** Both parts under the names of the fixtures. */
class Parts extends Module {
  constructor(
    readonly encoder: Encoder,
    readonly projector: Projector,
  ) {
    super()
  }
}

const features = await fixture<{ name: string; size: number }>('models/speech-lm-features')

/** Rows of a batch, without those beyond the counts, as one list. */
const packed = (rows: Tensor, counts: readonly number[]) =>
  counts.flatMap((count, i) => (rows.select(0, i).narrow(0, 0, count).toArray() as number[][]))

