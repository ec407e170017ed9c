import { argumentError, requireString } from '../../../base/check.js'
import { CheckpointError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { shortened } from '../../../base/words.js'

/** Parts of SALMONN that can be trained or frozen. */
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

/** Return the part that a parameter belongs to, by its published name, or undefined. */
export const salmonnPart = (name: string): SalmonnPart | undefined => PARTS.find(([pattern]) => pattern.test(name))?.[1]

/** Tensors without use: buffers, duplicate names of BEATs' position table, and unused layers of BERT in the first published files. */
const IGNORED: readonly RegExp[] = [
  /^speech_Qformer\.bert\.embeddings\.(position_ids|word_embeddings\.|position_embeddings\.)/,
  /^speech_Qformer\.bert\.encoder\.layer\.\d+\.(intermediate|output)\./,
  /^speech_Qformer\.cls\./,
  /rotary_emb\.inv_freq$/,
  /^beats\.encoder\.layers\.\d+\.self_attn\.relative_attention_bias\.weight$/,
]

/**
 * Compare the tensors of a file with those that are needed.
 * @returns names that are not needed: `ignored` are expected in published files, `unexpected` are not
 * @throws CheckpointError naming missing tensors or one of another shape; ConfigError for arguments that are not maps of shapes
 */
export function checkSalmonnAdapter(
  found: ReadonlyMap<string, readonly number[]>,
  needed: ReadonlyMap<string, readonly number[]>,
  file = 'the adapter file',
): { ignored: string[]; unexpected: string[] } {
  const where = 'checkSalmonnAdapter'
  requireString(where, 'file', file)
  for (const [argument, shapes] of Object.entries({ found, needed })) {
    if (!(shapes instanceof Map)) throw argumentError(where, argument, 'a Map of names and shapes', shapes)
    for (const [name, shape] of shapes) {
      requireString(where, `a name of ${argument}`, name)
      requireForm(where, `${argument}.get('${shortened(name)}')`, shape, ['number'])
    }
  }
  const missing = [...needed.keys()].filter((name) => !found.has(name))
  if (missing.length > 0) {
    const some = missing.slice(0, 5).join(', ')
    throw new CheckpointError(
      `${file}: expected ${needed.size} tensors, got all except ${missing.length}: ${some}${missing.length > 5 ? ', …' : ''}.`,
      { file, missing },
    )
  }
  for (const [name, shape] of needed) {
    const other = found.get(name) as readonly number[]
    if (String(other) === String(shape)) continue
    throw new CheckpointError(`${file}: ${name}: expected the shape [${shape}], got [${other}].`, {
      file,
      tensor: name,
    })
  }
  const others = [...found.keys()].filter((name) => !needed.has(name))
  const known = (name: string) => IGNORED.some((pattern) => pattern.test(name))
  return { ignored: others.filter(known), unexpected: others.filter((name) => !known(name)) }
}
