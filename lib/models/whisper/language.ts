import type { KvCache } from '../../generation/kv-cache.js'
import { noGrad, scope, type Tensor, tensor } from '../../tensor/index.js'
import type { Whisper } from './whisper.js'

/**
 * Return the language of each clip: its code, and its probability among all languages of the network.
 * @param encoderHiddenStates what `encode` returns, [batch, frames, dModel]
 */
export function detectLanguages(
  model: Whisper,
  encoderHiddenStates: Tensor,
  inputs: { encoderAttentionMask?: Tensor | null; encoderCache?: KvCache | null } = {},
): Promise<[code: string, probability: number][]> {
  const { languages, startOfTranscript } = model.tokens
  return noGrad(() =>
    scope(async () => {
      const { device } = model.parameters()[0] as Tensor
      const starts = Array.from({ length: encoderHiddenStates.size(0) }, () => [BigInt(startOfTranscript)])
      const decoderInputIds = tensor(starts).to(device)
      const { logits } = await model.forward({ decoderInputIds, encoderHiddenStates, ...inputs })
      const rows = (logits as Tensor).select(1, 0).to('float32').toArray() as number[][]
      return rows.map((scores): [string, number] => {
        const score = (code: string): number => scores[languages[code] as number] as number
        const best = Object.keys(languages).reduce((best, code) => (score(code) > score(best) ? code : best))
        const sum = Object.keys(languages).reduce((sum, code) => sum + Math.exp(score(code) - score(best)), 0)
        return [best, 1 / sum]
      })
    }),
  )
}
