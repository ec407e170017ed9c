import { writeEmptyDecoder } from '../test/models/empty-decoder.js'
import { closePair, measureRates, startPair } from './duel.js'
import type { Options } from './options.js'
import type { Report, Row } from './report.js'
import { removeScratch, scratchFolder } from './scratch.js'
import { summarise } from './statistics.js'

/** LLaMA's 7B (https://arxiv.org/abs/2302.13971): 13.5 GB in two bytes a weight, here a file of zeros. */
const llama7b = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  vocab_size: 32000,
  hidden_size: 4096,
  intermediate_size: 11008,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  num_key_value_heads: 32,
  rms_norm_eps: 1e-6,
}

/** `torch`: whether transformers does the same on the CPU. */
const cases = [
  { label: 'bfloat16', options: { dtype: 'bfloat16' }, torch: true },
  { label: 'bfloat16, mapped', options: { dtype: 'bfloat16', mmap: true }, torch: false },
  { label: 'bfloat16 to float16', options: { dtype: 'float16' }, torch: true },
  { label: 'int8', options: { dtype: 'bfloat16', quantize: 'int8' }, torch: false },
  { label: 'NF4', options: { dtype: 'bfloat16', quantize: 'nf4' }, torch: false },
]
const target = 1.1
const sides = ['voxtorch', 'torch'] as const

/** Fresh processes load a 7B language model; their peaks are above what they held after import, the ratio to the weights. */
export async function run({ rounds = 1, only = '' }: Options): Promise<Report> {
  const { rates, versions } = await measureRates()
  const folder = scratchFolder()
  const rows: Row[] = []
  try {
    writeEmptyDecoder(folder, llama7b, { dtype: 'BF16', shards: 3 })
    for (const { label, options, torch } of cases.filter(({ label }) => label.includes(only))) {
      const found = { voxtorch: { peak: [], size: [], time: [] }, torch: { peak: [], size: [], time: [] } } as Record<
        (typeof sides)[number],
        Record<'peak' | 'size' | 'time', number[]>
      >
      for (let round = 0; round < rounds; round += 1) {
        for (const side of torch ? sides : (['voxtorch'] as const)) {
          // One at a time: two such models may not fit.
          const pair = await startPair('footprint')
          try {
            const reply = await pair[side].ask({ folder, options })
            found[side].peak.push(Number(reply.peak) / 2 ** 20)
            found[side].size.push(Number(reply.bytes) / 2 ** 20)
            found[side].time.push(Number(reply.milliseconds) / 1000)
          } finally {
            closePair(pair)
          }
        }
      }
      const of = (what: 'peak' | 'size' | 'time') => ({
        voxtorch: summarise(found.voxtorch[what]),
        ...(torch && { torch: summarise(found.torch[what]) }),
      })
      const [peak, size] = [of('peak'), of('size')]
      rows.push(
        { label: `${label}: weights`, unit: 'MiB', ...size },
        {
          label: `${label}: peak RSS above import, at most ${target} times the weights`,
          unit: 'MiB',
          ...peak,
          target,
          met: peak.voxtorch.median <= target * size.voxtorch.median,
        },
        { label: `${label}: time`, unit: 's', ...of('time') },
      )
    }
  } finally {
    removeScratch(folder)
  }
  return { question: 'footprint', rounds, rows, rates, versions }
}
