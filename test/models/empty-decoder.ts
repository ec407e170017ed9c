import { closeSync, ftruncateSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'

export interface DecoderSizes {
  vocab_size: number
  hidden_size: number
  intermediate_size: number
  num_hidden_layers: number
  num_attention_heads?: number
  num_key_value_heads?: number
}

/**
 * Writes a LLaMA of zeros in shards, each a header and a hole, which takes no disk. Returns the bytes of its weights.
 */
export function writeEmptyDecoder(
  folder: string,
  config: DecoderSizes,
  { dtype, shards }: { dtype: 'F32' | 'F16' | 'BF16'; shards: number },
): number {
  const { vocab_size: vocabulary, hidden_size: hidden, intermediate_size: inner, num_hidden_layers: layers } = config
  const { num_attention_heads: heads = 1, num_key_value_heads: groups = heads } = config
  const rows = { q: hidden, k: (hidden / heads) * groups, v: (hidden / heads) * groups, o: hidden }
  const shapes: [string, number[]][] = [['model.embed_tokens.weight', [vocabulary, hidden]]]
  for (let layer = 0; layer < layers; layer += 1) {
    const at = `model.layers.${layer}.`
    for (const [name, count] of Object.entries(rows))
      shapes.push([`${at}self_attn.${name}_proj.weight`, [count, hidden]])
    for (const name of ['gate', 'up']) shapes.push([`${at}mlp.${name}_proj.weight`, [inner, hidden]])
    shapes.push([`${at}mlp.down_proj.weight`, [hidden, inner]])
    for (const name of ['input', 'post_attention']) shapes.push([`${at}${name}_layernorm.weight`, [hidden]])
  }
  shapes.push(['model.norm.weight', [hidden]], ['lm_head.weight', [vocabulary, hidden]])
  const weightMap: Record<string, string> = {}
  const each = Math.ceil(shapes.length / shards)
  let total = 0
  for (let shard = 0; shard < shards; shard += 1) {
    const name = `model-${shard + 1}-of-${shards}.safetensors`
    const header: Record<string, object> = { __metadata__: { format: 'pt' } }
    let offset = 0
    for (const [tensor, shape] of shapes.slice(shard * each, (shard + 1) * each)) {
      const bytes = (dtype === 'F32' ? 4 : 2) * shape.reduce((product, size) => product * size, 1)
      header[tensor] = { dtype, shape, data_offsets: [offset, offset + bytes] }
      offset += bytes
      weightMap[tensor] = name
    }
    const text = JSON.stringify(header)
    // Readers map only what is aligned.
    const json = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8))
    const length = Buffer.alloc(8)
    length.writeBigUInt64LE(BigInt(json.length))
    const file = openSync(join(folder, name), 'w')
    writeSync(file, Buffer.concat([length, json]))
    ftruncateSync(file, 8 + json.length + offset)
    closeSync(file)
    total += offset
  }
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config))
  writeFileSync(join(folder, 'model.safetensors.index.json'), JSON.stringify({ metadata: {}, weight_map: weightMap }))
  return total
}
