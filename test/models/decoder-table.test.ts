import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import {
  DecoderLM,
  dequantizeLayer,
  KvCache,
  loadSafetensors,
  noGrad,
  ops,
  PeftModel,
  quantize,
  scope,
  type Tensor,
} from '../../lib/index.js'
import { MODEL_TYPES, type ModelType } from '../../lib/models/decoder/families.js'
import { expectAsNear, type Fixture, fixture, numbers, ROUNDING, relativeError, tensorsOf } from '../helpers.js'
import { adapterFolder, temporary } from '../peft/adapter-folder.js'
import { get } from './decoder.js'
import { camelKeys, loadParameters } from './networks.js'

// The table of docs/dev/decoder-families.md: `VOXTORCH_WRITE_TABLE=1 npx vitest run test/models/decoder-table.test.ts` rewrites it.

const PAGE = fileURLToPath(new URL('../../docs/dev/decoder-families.md', import.meta.url))
const ROWS = [
  ...(['forward', 'loss', 'gradients', 'packed', 'left-padded', 'cached', 'window'] as const),
  ...(['LoRA', 'LoRA saved', 'DoRA', 'QLoRA', 'tokens', 'bfloat16', 'GGUF', 'GGUF saved'] as const),
]
type Row = (typeof ROWS)[number]

interface Case {
  name: ModelType
  config: Record<string, unknown>
  adapters: Record<'lora' | 'dora', Record<string, unknown>>
}

/** transformers has no class of it: test/models/decoder-fused.test.ts. */
const TYPES = MODEL_TYPES.filter((type) => type !== 'internlm2')
const measured = new Map<ModelType, Map<Row, number>>(TYPES.map((type) => [type, new Map()]))

/** In float64, where small errors are found, though angles have a rounding to float32; and in float32, whose errors are those of the table. */
const LIMITS = { float64: 32 * ROUNDING.float32, float32: 1e-5, bfloat16: 0.1 } as const
type Dtype = keyof typeof LIMITS

/** Keep the largest error of a row. */
function record(type: ModelType, row: Row, actual: Tensor, expected: Tensor, label: string): void {
  expect(actual.shape, label).toEqual(expected.shape)
  keep(type, row, relativeError(numbers(actual), numbers(expected)), label, actual.dtype as Dtype)
}

function keep(type: ModelType, row: Row, error: number, label: string, dtype: Dtype, factor = 1): void {
  expect(error, `${type}, ${row}: ${label} in ${dtype}`).toBeLessThanOrEqual(factor * LIMITS[dtype])
  if (dtype === 'float64') return
  const errors = get(measured.get(type))
  errors.set(row, Math.max(errors.get(row) ?? 0, error))
}

function recordGradients(
  type: ModelType,
  row: Row,
  found: readonly (readonly [string, Tensor])[],
  expected: Record<string, Tensor>,
): void {
  const largest = (tensor: Tensor) => tensor.abs().max().item() as number
  const most = Math.max(...Object.values(expected).map(largest))
  expect(found.map(([key]) => key).filter((key) => !(key in expected))).toEqual([])
  expect(found.length).toBe(Object.keys(expected).length)
  for (const [key, { grad, dtype }] of found) {
    const wanted = get(expected[key])
    // A bias of keys has no effect, and its gradient would be rounding errors.
    const scale = Math.max(largest(wanted), most / 100)
    // Of these networks, whose layers have eight dimensions, terms cancel: the comparison in float64 decides.
    keep(type, row, largest(get(grad).sub(wanted)) / scale, key, dtype as Dtype, dtype === 'float32' ? 3 : 1)
  }
}

const gradientsOf = (model: DecoderLM) => model.namedParameters().filter(([, { grad }]) => grad !== null)

describe.each(TYPES)('%s', async (type) => {
  const file: Fixture<Case> = await fixture<Case>(`models/families/${type}`)
  const { config, adapters } = get(file.cases[0])
  const role = (name: string) => tensorsOf(file, type, name)
  const out = role('out')
  const inputIds = get(role('in').input_ids)
  const [rows, time] = inputIds.shape as [number, number]
  const window = config.sliding_window as number | undefined
  const made = (dtype: 'float32' | 'float64' | 'bfloat16' = 'float32') => {
    const model = new DecoderLM(camelKeys(config), { dtype }).eval()
    loadParameters(model, file, type)
    return model
  }

  it.each(['float64', 'float32'] as const)('forward, loss and gradients in %s, packed too', async (dtype) => {
    const model = made(dtype)
    const labels = inputIds.clone()
    labels.narrow(1, 0, 1).fill_(-100)
    const sequenceLengths = Array<number>(rows).fill(time)
    for (const [row, inputs] of [
      ['forward', { inputIds, labels }],
      ['packed', { inputIds: inputIds.reshape([1, -1]), labels: labels.reshape([1, -1]), sequenceLengths }],
    ] as const) {
      const { logits, loss } = await model.forward({ ...inputs, logitsToKeep: 0 })
      record(type, row, get(logits).reshape([rows, time, -1]), get(out.logits), 'logits')
      record(type, row === 'packed' ? row : 'loss', get(loss), get(out.loss), 'loss')
      await get(loss).backward()
      recordGradients(type, row === 'packed' ? row : 'gradients', gradientsOf(model), role('plain_grad'))
      for (const parameter of model.parameters()) parameter.grad = null
    }
  })

  it('with a cache, in steps, beyond the window and with padding on the left', async () => {
    const model = made()
    for (const parts of [[9, ...Array<number>(7).fill(1)], [3, 8, 1, 4], Array<number>(16).fill(1)]) {
      using cache = new KvCache()
      let start = 0
      for (const length of parts) {
        const { logits } = await model.forward({ inputIds: inputIds.narrow(1, start, length), cache })
        const expected = get(out.logits).narrow(1, start, length)
        record(type, 'cached', get(logits), expected, `${start}`)
        start += length
        if (window !== undefined && start - length >= window) record(type, 'window', get(logits), expected, `${start}`)
      }
    }
    const attentionMask = get(role('in').attention_mask)
    const { logits } = await model.forward({ inputIds, attentionMask })
    record(type, 'left-padded', get(logits).mul(attentionMask.unsqueeze(2)), get(out.left), 'whole')
    using cache = new KvCache()
    const steps: Tensor[] = []
    for (const [start, length] of [
      [0, 10],
      [10, 1],
      [11, 1],
      [12, 4],
    ] as const) {
      const inputs = {
        inputIds: inputIds.narrow(1, start, length),
        attentionMask: attentionMask.narrow(1, 0, start + length),
      }
      steps.push(get((await model.forward({ ...inputs, cache })).logits))
    }
    record(type, 'left-padded', ops.cat(steps, 1).mul(attentionMask.unsqueeze(2)), get(out.left), 'in steps')
  })

  it.each([
    ...(['lora', 'dora', 'qlora'] as const).map((kind) => [kind, 'float64'] as const),
    ...(['lora', 'dora', 'qlora'] as const).map((kind) => [kind, 'float32'] as const),
  ])('%s of PEFT in %s, and as PEFT saves it', async (kind, dtype) => {
    const name = kind === 'qlora' ? 'lora' : kind
    const row = ({ lora: 'LoRA', dora: 'DoRA', qlora: 'QLoRA' } as const)[kind]
    const model = made(kind === 'qlora' ? 'float32' : dtype)
    if (kind === 'qlora') {
      quantize(model, { scheme: 'nf4', modules: 'model.layers', doubleQuant: false })
      // Weights in float64 are not quantized.
      if (dtype === 'float64') for (const layer of model.modules()) dequantizeLayer(layer)
      model.to({ dtype })
    }
    const given = role(`${name}_file`)
    const folder = await adapterFolder(adapters[name], given)
    const peft = await PeftModel.fromPretrained(model, folder, { isTrainable: true })
    const { logits, loss } = await model.eval().forward({ inputIds, labels: inputIds, logitsToKeep: 0 })
    record(type, row, get(logits), get(out[`${kind}_logits`]), 'logits')
    record(type, row, get(loss), get(out[`${kind}_loss`]), 'loss')
    await get(loss).backward()
    recordGradients(type, row, gradientsOf(model), role(`${kind}_grad`))
    const settings = { eosTokenId: null, padTokenId: 0, maxNewTokens: 4, outputLogits: true }
    const generated = await noGrad(() => model.generate({ inputIds: inputIds.narrow(1, 0, 9) }, settings))
    const read = await noGrad(() => model.forward({ inputIds: generated.sequences.narrow(1, 0, 12), logitsToKeep: 4 }))
    record(type, row, get(generated.logits).transpose(0, 1), get(read.logits), 'steps')
    if (kind === 'qlora' || dtype === 'float64') return

    const to = temporary()
    await peft.savePretrained(to)
    const { tensors } = await loadSafetensors(join(to, 'adapter_model.safetensors'))
    expect(Object.keys(tensors).sort()).toEqual(Object.keys(given).sort())
    for (const [key, value] of Object.entries(given)) {
      expect(get(tensors[key]).equal(value), key).toBe(true)
      record(type, 'LoRA saved', get(tensors[key]), value, key)
    }
    const saved = JSON.parse(readFileSync(join(to, 'adapter_config.json'), 'utf8')) as Record<string, unknown>
    const { target_modules: targets, ...written } = saved
    expect([...(targets as string[])].sort()).toEqual(adapters[name].target_modules)
    for (const key of ['peft_type', 'task_type', 'r', 'lora_alpha', 'lora_dropout', 'bias', 'use_dora', 'use_rslora']) {
      expect(written[key], key).toEqual(adapters[name][key])
    }
  })

  it('generates 64 greedy tokens of 20 prompts', async () => {
    const { prompts } = role('in')
    const settings = { eosTokenId: null, padTokenId: 0, maxNewTokens: 64 }
    const { tokens } = await made().generate({ inputIds: get(prompts) }, settings)
    const expected = get(out.tokens).toArray() as number[][]
    const differing = tokens.flatMap((row, i) => row.filter((token, j) => token !== get(expected[i])[j])).length
    expect(tokens.map(({ length }) => length)).toEqual(Array(20).fill(64))
    expect(differing, 'tokens that differ').toBe(0)
    get(measured.get(type)).set('tokens', differing)
  })

  it('is as near as transformers in bfloat16', async () => {
    const { logits } = await noGrad(() => made('bfloat16').forward({ inputIds }))
    const exact = get(out.bfloat16_exact)
    expectAsNear(get(logits), get(out.bfloat16), exact.double(), type)
    record(type, 'bfloat16', get(logits), exact, 'logits')
  })
})

const GGUF: Readonly<Record<string, ModelType>> = {
  mistral3: 'ministral3',
  gemma3: 'gemma3_text',
  qwen3moe: 'qwen3_moe',
  llama3: 'llama',
}

describe.each(['files/decoder-gguf', 'files/decoder-gguf-fused'])('%s', async (path) => {
  const file = await fixture<{ name: string }>(path)
  const cases = file.cases.filter(({ name }) => !name.startsWith('internlm2'))
  it.each(cases)('$name', async ({ name }) => {
    await scope(async () => {
      const first = get(name.split(' ')[0])
      const type = first === 'linear' ? 'llama' : (GGUF[first] ?? (first as ModelType))
      const folder = temporary()
      const [from, to] = [join(folder, 'from.gguf'), join(folder, 'to.gguf')]
      const { file: bytes, input_ids: inputIds } = tensorsOf(file, name, 'in')
      writeFileSync(from, (await get(bytes).data()) as Uint8Array)
      const { logits: expected } = tensorsOf(file, name, 'out')
      const model = await DecoderLM.fromPretrained(from)
      expect(TYPES).toContain(type)
      const { logits } = await noGrad(() => model.forward({ inputIds: get(inputIds) }))
      record(type, 'GGUF', get(logits), get(expected), 'read')
      if (type === 'phi3') return await expect(model.saveGguf(to)).rejects.toThrow(/phi3/i)
      await model.saveGguf(to, { type: 'F32' })
      const again = await DecoderLM.fromPretrained(to)
      const result = await noGrad(() => again.forward({ inputIds: get(inputIds) }))
      record(type, 'GGUF saved', get(result.logits), get(expected), 'saved')
    })
  })
})

describe('the page', () => {
  const shown = (error: number | undefined): string => {
    if (error === undefined) return '–'
    if (error === 0) return '0'
    const power = Math.floor(Math.log10(error))
    return `${Math.ceil(error / 10 ** power - 1e-9)}e${power}`.replace(/^10e(-?\d+)$/, (_, at) => `1e${Number(at) + 1}`)
  }
  const BEGIN = '<!-- table -->\n\n'
  const tableOf = (page: string) => page.split(BEGIN)[1]?.split('\n\n')[0] ?? ''

  it('has each family and its errors', () => {
    const page = readFileSync(PAGE, 'utf8')
    if (process.env.VOXTORCH_WRITE_TABLE === '1') {
      const lines = [
        `| family | ${ROWS.join(' | ')} |`,
        `| --- | ${ROWS.map(() => '---').join(' | ')} |`,
        ...TYPES.map((type) => `| ${type} | ${ROWS.map((row) => shown(measured.get(type)?.get(row))).join(' | ')} |`),
      ]
      writeFileSync(
        PAGE,
        page.replace(tableOf(page), () => lines.join('\n')),
      )
      return
    }
    const [header = [], , ...lines] = tableOf(page)
      .split('\n')
      .map((line) =>
        line
          .split('|')
          .map((cell) => cell.trim())
          .slice(1, -1),
      )
    expect(header).toEqual(['family', ...ROWS])
    expect(lines.map(([type]) => type)).toEqual(TYPES)
    for (const [type, ...cells] of lines) {
      for (const [i, row] of ROWS.entries()) {
        const error = measured.get(type as ModelType)?.get(row)
        const cell = get(cells[i])
        // Other processors round otherwise.
        if (error === undefined) expect(cell, `${type}, ${row}`).toBe('–')
        else expect(error, `${type}, ${row}: the page says ${cell}`).toBeLessThanOrEqual(10 * Number(cell) + 1e-7)
      }
    }
  })
})
