import { Salmonn, type Tensor, Tokenizer, zerosLike } from '../../../../lib/index.js'
import type { SalmonnConfig } from '../../../../lib/systems/salmonn/index.js'
import { fixture, fixturePath, tensorsOf } from '../../../helpers.js'
import { camelKeys } from '../../../models/networks.js'

export interface SalmonnCase {
  name: string
  texts: string[]
  targets: string[]
  /** Seconds of each clip of each prompt. */
  clips: number[][]
  correct: number
  total: number
  greedy: number[][]
  /** By beam search with four. */
  beams: number[][]
}

const file = await fixture<SalmonnCase & Record<string, Record<string, unknown>>>('models/salmonn')
export const salmonnFile = file
const weights = file.cases[0] as unknown as Record<string, Record<string, unknown>>

export const tinyConfig = (): SalmonnConfig => ({
  whisper: camelKeys(weights.whisper ?? {}),
  beats: camelKeys(weights.beats ?? {}),
  llm: camelKeys(weights.llm ?? {}),
  qformer: camelKeys(weights.qformer ?? {}),
  lora: { loraDropout: 0 },
})

/** The tiny SALMONN of the fixture; with `seconds` its Whisper hears that much at once and adds no positions. */
export async function tinySalmonn(seconds?: number): Promise<Salmonn> {
  const config = tinyConfig()
  if (seconds !== undefined) config.whisper = { ...(config.whisper as object), maxSourcePositions: 50 * seconds }
  const model = Salmonn.fromConfig(config)
  loadTiny(model)
  model.tokenizer = await tinyTokenizer()
  return model.eval() as Salmonn
}

export const tinyTokenizer = (): Promise<Tokenizer> => Tokenizer.fromPretrained(fixturePath('models/salmonn-tokenizer'))

/** Every name of the published code must be there, and no other. */
export function loadTiny(model: Salmonn): void {
  const given = tensorsOf(file, 'weights', 'param')
  const positions = 'speech_encoder.embed_positions.weight'
  const own = model.stateDict()[positions] as Tensor
  if (given[positions]?.size(0) !== own.size(0)) given[positions] = zerosLike(own)
  const state = Object.keys(model.stateDict())
  const plain = Object.fromEntries(Object.entries(given).filter(([name]) => !name.includes('lora_')))
  const absent = Object.fromEntries(
    state.filter((name) => name.startsWith('beats.predictor')).map((name) => [name, model.stateDict()[name]]),
  )
  model.loadStateDict({ ...absent, ...plain } as Parameters<Salmonn['loadStateDict']>[0])
  for (const [name, parameter] of model.namedParameters()) {
    const value = given[name]
    if (name.includes('lora_') && value) parameter.detach().copy_(value)
  }
}

/** As test/reference/salmonn.py makes it. */
export function clip(seed: number, seconds: number): Float32Array {
  return Float32Array.from({ length: Math.floor(seconds * 16000) }, (_, i) => {
    const whole = (i * i * 31 + i * (7 + 2 * seed) + seed * 101) % 65521
    return (whole / 65521 - 0.5) * 0.3
  })
}

export const promptsOf = ({ texts, clips }: SalmonnCase) =>
  texts.map((text, row) => ({
    text,
    clips: (clips[row] as number[]).map((seconds, i) => clip(10 * row + i, seconds)),
  }))
