import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { optionsOf } from '../../base/arguments.js'
import { shown } from '../../base/check.js'
import { CheckpointError, ConfigError } from '../../base/errors.js'
import { type KvCache, nativeCacheOf } from '../../generation/kv-cache.js'
import { opAsync } from '../../native/call.js'
import { withActiveAdapters } from '../../nn/native-module.js'
import { noGrad, scope, type Tensor, tensor } from '../../tensor/index.js'
import { readConfig } from '../pretrained.js'
import type { WhisperConfig } from './config.js'
import { isCTranslate2 } from './ctranslate2.js'
import { SECONDS_PER_STEP } from './options.js'
import type { Whisper } from './whisper.js'

const align = opAsync('voxtorch::whisper_align')

/** A layer of the decoder and a head of its cross-attention. */
export type WhisperHead = [layer: number, head: number]

export interface WhisperAlignmentInputs {
  /** The log-mel spectrogram [batch, numMelBins, steps]; or pass `encoderHiddenStates`. */
  inputFeatures?: Tensor | null
  /** The result of `encode`, [batch, frames, dModel]. */
  encoderHiddenStates?: Tensor | null
  /** Keys and values of the audio: an empty cache is filled, a filled one replaces the audio. */
  encoderCache?: KvCache | null
  /** Tokens before the generated ones, the same in every row. Default: the start of a transcript. */
  prompt?: number[]
  /** Generated tokens of each clip, with timestamps and the end-of-text token, if there are any. */
  tokens: number[][]
  /** Number of frames (20 ms) of audio in each clip; later frames are ignored. Default: all. */
  frames?: number[]
}

export interface TokenTimestamp {
  /** Approximate end of the token, in seconds from the start of the clip. The last token has the time of the one before it. */
  time: number
  /** Probability among all text tokens; 0 for timestamps and other special tokens. */
  probability: number
}

/** Return OpenAI's default heads for files without alignment heads: all of the upper half of the layers. */
export function usualHeads(config: WhisperConfig): WhisperHead[] {
  const { decoderLayers = 4, decoderAttentionHeads = 6 } = config
  const heads: WhisperHead[] = []
  for (let layer = Math.floor(decoderLayers / 2); layer < decoderLayers; layer++) {
    for (let head = 0; head < decoderAttentionHeads; head++) heads.push([layer, head])
  }
  return heads
}

/** Return the alignment_heads of a folder's generation_config.json (CTranslate2: config.json), or the default heads. */
export async function readHeads(directory: string, config: WhisperConfig): Promise<WhisperHead[]> {
  const name = isCTranslate2(directory) ? 'config.json' : 'generation_config.json'
  if (!existsSync(join(directory, name))) return usualHeads(config)
  const heads: unknown = (await readConfig(directory, name)).alignmentHeads
  if (heads === undefined || heads === null) return usualHeads(config)
  if (areHeads(heads, config)) return heads
  const file = join(directory, name)
  throw new CheckpointError(`${file}: alignment_heads: expected ${expected(config)}, got ${shown(heads)}`, { file })
}

function areHeads(
  heads: unknown,
  { decoderLayers = 4, decoderAttentionHeads = 6 }: WhisperConfig,
): heads is WhisperHead[] {
  const isHead = (one: unknown) =>
    Array.isArray(one) && one.length === 2 && isBelow(one[0], decoderLayers) && isBelow(one[1], decoderAttentionHeads)
  return Array.isArray(heads) && heads.length > 0 && heads.every(isHead)
}

const isBelow = (value: unknown, limit: number): boolean =>
  Number.isInteger(value) && Number(value) >= 0 && Number(value) < limit

const expected = ({ decoderLayers = 4, decoderAttentionHeads = 6 }: WhisperConfig): string =>
  `pairs [layer, head] of the decoder's ${decoderLayers} layers of ${decoderAttentionHeads} heads`

/** See `Whisper.tokenTimestamps`. */
export async function alignTokens(model: Whisper, inputs: WhisperAlignmentInputs): Promise<TokenTimestamp[][]> {
  const { tokens, prompt, frames, inputFeatures, encoderCache } = checked(model, inputs)
  return noGrad(() =>
    scope(async () => {
      const longest = Math.max(...tokens.map((row) => row.length))
      const padding = (row: number[]) => Array<number>(longest - row.length).fill(model.tokens.endOfText)
      const ids = tokens.map((row) => [...prompt, ...row, ...padding(row)].map(BigInt))
      const states = inputFeatures
        ? (await model.encode({ inputFeatures })).lastHiddenState
        : inputs.encoderHiddenStates
      const { device } = model.parameters()[0] as Tensor
      const { frame, probability } = (await align(withActiveAdapters(model), {
        decoderInputIds: tensor(ids).to(device),
        prompt: prompt.length,
        lengths: tokens.map((row) => row.length),
        frames,
        alignmentHeads: model.alignmentHeads.flat(),
        textTokens: model.tokens.endOfText,
        encoderHiddenStates: states,
        encoderCache: encoderCache && nativeCacheOf(encoderCache),
      })) as { frame: Tensor; probability: Tensor }
      const [places, sure] = [frame.toArray() as bigint[][], probability.toArray() as number[][]]
      return tokens.map((row, i) =>
        row.map((_, j) => ({
          time: Number(places[i]?.[j]) * 2 * SECONDS_PER_STEP,
          probability: sure[i]?.[j] as number,
        })),
      )
    }),
  )
}

function checked(
  model: Whisper,
  inputs: WhisperAlignmentInputs,
): WhisperAlignmentInputs & { prompt: number[]; frames: number[] } {
  const bad = (problem: string): never => {
    throw new ConfigError(`Whisper.tokenTimestamps: ${problem}`)
  }
  const { config } = model
  const { tokens, prompt = [model.tokens.startOfTranscript], frames } = optionsOf(inputs, 'Whisper.tokenTimestamps')
  const areIds = (ids: unknown) =>
    Array.isArray(ids) && ids.length > 0 && ids.every((id) => isBelow(id, config.vocabSize ?? 51865))
  if (!areIds(prompt)) bad(`prompt: expected a non-empty list of token ids, got ${shown(prompt)}`)
  if (!Array.isArray(tokens) || tokens.length === 0 || !tokens.every(areIds)) {
    bad(`tokens: expected a non-empty list of token ids for each clip, got ${shown(tokens)}`)
  }
  const limit = config.maxSourcePositions ?? 1500
  const areFrames =
    Array.isArray(frames) && frames.length === tokens.length && frames.every((one) => isBelow(one, limit + 1))
  if (frames !== undefined && !areFrames)
    bad(`frames: expected a number from 0 to ${limit} for each row of tokens, got ${shown(frames)}`)
  if (!areHeads(model.alignmentHeads, config))
    bad(`model.alignmentHeads: expected ${expected(config)}, got ${shown(model.alignmentHeads)}`)
  return { ...inputs, prompt, frames: frames ?? tokens.map(() => limit) }
}
