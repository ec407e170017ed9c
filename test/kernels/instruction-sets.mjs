// What the kernels compute where libtorch and oneDNN are held to an instruction set by the environment of this process. Prints
// a JSON object: digests of the bits of each kernel, and how far off products and attention are that libraries compute.
// node instruction-sets.mjs THREADS (0: as many as there are)
import { createHash } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import {
  autograd,
  functional,
  loadSafetensors,
  manualSeed,
  noGrad,
  ops,
  quantizeDynamic,
  Roberta,
  randint,
  randn,
  scope,
  setNumThreads,
  tensor,
} from 'voxtorch'

const { op } = await import(new URL('../../dist/native/call.js', import.meta.url).href)

const fixture = (name) =>
  loadSafetensors(fileURLToPath(new URL(`../fixtures/kernels/${name}.safetensors`, import.meta.url)))

/** ATen's own random numbers depend on the instruction set. */
const waves = (shape, change = (x) => x) =>
  tensor(Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => change(Math.sin(i * i + 0.3)))).view(
    shape,
  )

function digest(tensors) {
  const hash = createHash('sha256')
  for (const one of tensors) hash.update(one.detach().float().dataSync())
  return hash.digest('hex')
}

/** Bits that no instruction set and no number of threads changes. */
const exact = {
  rowsInIntegers() {
    const kinds = [
      ...[
        ['q8_0', 32, 34, []],
        ['q4_0', 32, 18, []],
        ['q4_1', 32, 20, [0, 2]],
      ],
      ...[
        ['q4_k', 256, 144, [0, 2]],
        ['q6_k', 256, 210, [208]],
      ],
    ]
    return kinds.flatMap(([scheme, block, bytes, halves]) => {
      const from = block === 32 ? 544 : 512
      const blocks = 301 * (from / block)
      const raw = Uint8Array.from({ length: blocks * bytes }, (_, i) => (i * 2654435761) >>> 13)
      // Scales of usual size.
      for (let b = 0; b < blocks; b++) {
        for (const at of halves.length > 0 ? halves : [0]) raw[b * bytes + at + 1] = 0x20 + (b % 8)
      }
      const codes = tensor(raw, { dtype: 'uint8' }).view([301, (from / block) * bytes])
      // Few rows, and as many as are taken with a panel of weights; from 12 on, processors with AMX use its tiles.
      const linear = op('voxtorch::quantized_linear')
      return [3, 6, 11].map((rows) => linear(waves([rows, from]), codes, null, [301, from], null, { scheme }))
    })
  },

  fewRows() {
    const weight = waves([801, 320])
    const packed = { nf4: op('voxtorch::quantize_nf4')(weight), int8: op('voxtorch::quantize_int8')(weight) }
    return ['float32', 'bfloat16'].flatMap((dtype) => {
      const input = waves([3, 320]).to(dtype)
      const outputs = Object.entries(packed).map(([scheme, { codes, absmax }]) =>
        op('voxtorch::quantized_linear')(input, codes, absmax, [801, 320], null, { scheme }),
      )
      const { codes, absmax } = packed.int8
      const many = waves([11, 320]).to(dtype)
      outputs.push(op('voxtorch::quantized_linear')(many, codes, absmax, [801, 320], null, { scheme: 'int8' }))
      return outputs
    })
  },

  /** In float32, bfloat16 and float16; 16 lanes are a sum, of fused multiply-adds but on the oldest processors. */
  denseRows() {
    const weight = waves([801, 330])
    return ['float32', 'bfloat16', 'float16'].flatMap((dtype) =>
      [1, 2, 3, 4, 7, 16].map((rows) => functional.linear(waves([rows, 330]).to(dtype), weight.to(dtype))),
    )
  },

  async rmsNormResidual() {
    const { tensors } = await fixture('rms-norm-residual')
    return ['float32', 'bfloat16'].flatMap((dtype) =>
      ['full', 'odd_dim', 'many_rows'].flatMap((name) => {
        const leaves = ['input', 'residual', 'weight'].map((key) => tensors[`${name}/in/${key}`].to({ dtype }))
        const [input, residual, weight] = leaves
        const { output, residualOutput } = op('voxtorch::rms_norm_residual')(...leaves)
        const back = op('voxtorch::rms_norm_residual_backward')(residual, input, residualOutput, weight, 1e-6)
        return [output, residualOutput, back.gradInput, back.gradWeight]
      }),
    )
  },

  async gatedPositionAttention() {
    const { tensors } = await fixture('gated-position-attention')
    const all = []
    for (const name of ['dim_64', 'two_blocks', 'holes', 'dropout']) {
      const leaves = ['query', 'key', 'value', 'gate', 'relative'].map((key) => tensors[`${name}/in/${key}`])
      for (const leaf of leaves) leaf.requiresGrad = true
      const mask = tensors[`${name}/in/keyMask`] ?? null
      const output = op('voxtorch::gated_position_attention')(...leaves, mask, 0.2, 77)
      const gradOutputs = [tensors[`${name}/cotangent/output`]]
      all.push(output, ...(await autograd.grad([output], leaves, { gradOutputs })))
    }
    return all
  },

  async antiAliasedSnake() {
    const leaves = [waves([2, 5, 1301], (x) => 2 * x), waves([5], Math.exp), waves([5], (x) => Math.exp(-x))]
    for (const leaf of leaves) leaf.requiresGrad = true
    const taps = waves([12], (x) => 2 * x)
    const snake = op('voxtorch::anti_aliased_snake')
    const output = snake(...leaves, taps, taps)
    const gradients = await autograd.grad([output.pow(2).sum()], leaves)
    const [x, f, m] = leaves.map((one) => one.detach())
    return [output, snake(x.to('bfloat16'), f, m, taps, taps), snake(x.mul(1e5), f, m, taps, taps), ...gradients]
  },
}

const off = (a, b) => a.double().sub(b).abs().max().item() / b.abs().max().item()

/** Errors of what libraries compute, which choose their kernels by the instruction set. */
const near = {
  /** Many rows with GGUF's blocks: outputs that fill no panel, rows that fill no tile, every kind of block. */

  /** int8 weights in tiles: rows of inputs are rounded by their own scale. */
  async tilesOfInt8() {
    const config = { vocabSize: 50, hiddenSize: 128, numHiddenLayers: 2, numAttentionHeads: 4, intermediateSize: 384 }
    const errors = {}
    for (const [hiddenAct, words, dtype] of [
      ['gelu', 43, 'float32'],
      ['gelu_new', 45, 'float32'],
      ['relu', 64, 'bfloat16'],
    ]) {
      manualSeed(2)
      const network = new Roberta({ ...config, hiddenAct }).eval().to({ dtype })
      quantizeDynamic(network)
      const at = 'encoder.layer.0.intermediate'
      let seen
      network.get(at).registerForwardHook((_, [x], y) => {
        seen = [x, y].map((each) => each.float().toArray())
      })
      await network.forward({ inputIds: randint(5, 50, [4, words]) })
      const state = network.stateDict()
      const part = (name) => state[`${at}.dense.${name}`] ?? state.get(`${at}.dense.${name}`)
      const x = tensor(seen[0])
      const top = x.abs().amax([-1], true)
      const codes = x.mul(tensor(127).div(top)).round().double()
      const sums = codes.matmul(part('weight').double().t())
      const scales = top.double().div(127).mul(part('weight_absmax').double().div(127))
      const y = sums.mul(scales).add(part('bias').double())
      const approximate = hiddenAct === 'gelu' ? 'none' : 'tanh'
      errors[hiddenAct] = off(
        tensor(seen[1]),
        hiddenAct === 'relu' ? functional.relu(y) : functional.gelu(y, { approximate }),
      )
    }
    return errors
  },

  /** Rows long enough for attention to pack its matrices. */
  attention() {
    manualSeed(1)
    const values = [0, 1, 2].map(() => randn([2, 4, 128, 64]))
    const attend = ([q, k, v], dtype) =>
      ops.scaledDotProductAttention(q.to({ dtype }), k.to({ dtype }), v.to({ dtype }), null, 0, true).float()
    const wide = attend(values, 'float32')
    return Object.fromEntries(['bfloat16', 'float16'].map((dtype) => [dtype, off(attend(values, dtype), wide)]))
  },
}

const results = {}
const threads = Number(process.argv[2])
if (threads > 0) setNumThreads(threads)
for (const [name, compute] of Object.entries(exact)) {
  // Sums over rows are as many as threads.
  const isSummed = ['rmsNormResidual', 'gatedPositionAttention'].includes(name)
  if (isSummed) setNumThreads(2)
  const isDifferentiated = ['gatedPositionAttention', 'antiAliasedSnake'].includes(name)
  results[name] = digest(await (isDifferentiated ? compute() : noGrad(compute)))
  if (isSummed && threads > 0) setNumThreads(threads)
}
for (const [name, compute] of Object.entries(near)) results[name] = await noGrad(() => scope(compute))
// Loading libtorch sets it.
console.log(JSON.stringify({ ...results, isa: process.env.ONEDNN_MAX_CPU_ISA ?? null }))
