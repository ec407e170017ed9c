import {
  DecoderLM,
  type GenerateInputs,
  type GenerateOptions,
  type GenerationConfig,
  type Tensor,
} from '../../lib/index.js'
import { fixture, tensorsOf } from '../helpers.js'
import { get } from '../models/decoder.js'
import { camelKeys, loadParameters } from '../models/networks.js'

export const PAD = 1
export const ENDS = [5, 17, 29]

export interface Case {
  name: string
  config?: Record<string, unknown>
  model?: string
  count?: number
  case?: { config: Record<string, unknown>; allowed?: boolean; sequences?: number[][]; stops?: number[][] }
}

export const file = await fixture<Case>('models/generation')
export const cases = file.cases.filter((one) => one.case)
export const prompts = tensorsOf(file, 'prompts', 'in') as Record<'ids' | 'mask' | 'uniforms' | 'many', Tensor>

const networks = new Map<string, DecoderLM>()

export function network(name: string): DecoderLM {
  let model = networks.get(name)
  if (!model) {
    const { config } = get(file.cases.find((one) => one.name === name))
    model = new DecoderLM(camelKeys(config ?? {})).eval()
    loadParameters(model, file, name)
    networks.set(name, model)
  }
  return model
}

/** The same function as in the script that made the fixture. */
const allowedAfter = (text: number[]): number[] =>
  Array.from({ length: 40 }, (_, id) => id).filter((id) => (id * 7 + (text.at(-1) as number)) % 3 === 0 || id === 5)

export function configOf(one: Case): GenerationConfig {
  const { config, allowed, sequences, stops } = get(one.case)
  return {
    maxNewTokens: 10,
    eosTokenId: ENDS,
    padTokenId: PAD,
    ...camelKeys(config),
    ...(allowed ? { prefixAllowedTokensFn: (_: number, text: number[]) => allowedAfter(text) } : {}),
    ...(sequences ? { allowedSequences: sequences } : {}),
    ...(stops ? { stopSequences: stops } : {}),
  } as GenerationConfig
}

/** Rows `from` to `to` as transformers had them: one without padding, several with padding on the left. */
export function inputsOf(from: number, to: number): GenerateInputs {
  const inputIds = prompts.ids.narrow(0, from, to - from).to('int64')
  const attentionMask = prompts.mask.narrow(0, from, to - from).to('int64')
  if (to - from > 1) return { inputIds, attentionMask }
  const real = attentionMask.sum().item() as number
  return { inputIds: inputIds.narrow(1, inputIds.shape[1]! - real, real) }
}

export function drawsOf(one: Case, from: number, to: number): GenerateOptions {
  const { doSample, numBeams = 1, numReturnSequences = 1 } = configOf(one)
  if (!doSample) return {}
  if (numBeams > 1) return { uniforms: prompts.many.narrow(1, from, to - from).to('float64') }
  const uniforms = prompts.uniforms.narrow(1, from, to - from).narrow(2, 0, numReturnSequences)
  return { uniforms: uniforms.reshape([10, -1]).to('float64') }
}
