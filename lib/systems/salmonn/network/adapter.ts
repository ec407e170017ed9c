import { misuse, requireString } from '../../../base/check.js'
import { CheckpointError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { shortened } from '../../../base/words.js'

/** What SALMONN is made of, as far as training is concerned. */
export type SalmonnPart = 'whisper' | 'beats' | 'qformer' | 'projection' | 'lora' | 'llm'

const PARTS: readonly [RegExp, SalmonnPart][] = [
  [/(^|\.)lora_/, 'lora'],
  [/^(speech_encoder|whisper)\./, 'whisper'],
  [/^beats\./, 'beats'],
  [/^(ln_speech|ln_audio|speech_Qformer)\.|^speech_query_tokens$/, 'qformer'],
  [/^speech_llama_proj\./, 'projection'],
  [/^(llama_model|llm)\./, 'llm'],
]

export const SALMONN_PARTS: readonly SalmonnPart[] = PARTS.map(([, part]) => part)

/** The part that a parameter belongs to, by its published name; undefined for a name of no part. */
export const salmonnPart = (name: string): SalmonnPart | undefined => PARTS.find(([pattern]) => pattern.test(name))?.[1]

/** Buffers, further names of BEATs' one table of positions, and what the first code wrote of a whole BERT. */
const IGNORED: readonly RegExp[] = [
  /^speech_Qformer\.bert\.embeddings\.(position_ids|word_embeddings\.|position_embeddings\.)/,
  /^speech_Qformer\.bert\.encoder\.layer\.\d+\.(intermediate|output)\./,
  /^speech_Qformer\.cls\./,
  /rotary_emb\.inv_freq$/,
  /^beats\.encoder\.layers\.\d+\.self_attn\.relative_attention_bias\.weight$/,
]

/**
 * Compares a file's tensors with those that are needed.
 * @returns the names that are not needed: `ignored`, which are known to occur, and `unexpected`
 * @throws CheckpointError naming tensors that are missing or have another shape; ConfigError for what are no maps of shapes
 */
export function checkSalmonnAdapter(
  found: ReadonlyMap<string, readonly number[]>,
  needed: ReadonlyMap<string, readonly number[]>,
  file = 'the adapter file',
): { ignored: string[]; unexpected: string[] } {
  const where = 'checkSalmonnAdapter'
  requireString(where, 'file', file)
  for (const [argument, shapes] of Object.entries({ found, needed })) {
    if (!(shapes instanceof Map)) throw misuse(where, argument, 'a Map of names and shapes', shapes)
    for (const [name, shape] of shapes) {
      requireString(where, `a name of ${argument}`, name)
      requireForm(where, `${argument}.get('${shortened(name)}')`, shape, ['number'])
    }
  }
  const missing = [...needed.keys()].filter((name) => !found.has(name))
  if (missing.length > 0) {
    const some = missing.slice(0, 5).join(', ')
    throw new CheckpointError(
      `${file} lacks ${missing.length} of ${needed.size} tensors: ${some}${missing.length > 5 ? ', …' : ''}`,
      { file, missing },
    )
  }
  for (const [name, shape] of needed) {
    const other = found.get(name) as readonly number[]
    if (String(other) === String(shape)) continue
    throw new CheckpointError(`${file}: ${name} has shape [${other}], the model's [${shape}]`, { file, tensor: name })
  }
  const others = [...found.keys()].filter((name) => !needed.has(name))
  const known = (name: string) => IGNORED.some((pattern) => pattern.test(name))
  return { ignored: others.filter(known), unexpected: others.filter((name) => !known(name)) }
}
