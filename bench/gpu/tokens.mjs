// A language model's tokens on the device; scripts/gpu-check.sh sets VOXTORCH_ADDON and LIBTORCH.
//   tokens.mjs same            those of the CPU, of the graph, of single launches and of the general path are the same
//   tokens.mjs speed [cudnn]   how many a second; with cudnn, cudnn-on.c must have been preloaded
const vt = await import(new URL('../../dist/index.js', import.meta.url).href)

const device = process.env.VOXTORCH_GPU_CHECK_DEVICE ?? 'cuda'
const [mode, cudnn] = process.argv.slice(2)
const SMALL = { hiddenSize: 128, intermediateSize: 256, numHiddenLayers: 2, numAttentionHeads: 4, vocabSize: 101 }
// Of a 7B's layers, as many as take a second or two to fill with random numbers.
const LARGE = { hiddenSize: 4096, intermediateSize: 11008, numHiddenLayers: 8, numAttentionHeads: 32, vocabSize: 32000 }
// Angles that may depend on the length have no graph, nor the joined kernels. Up to 4096 tokens they are the plain ones,
// but are asked for with two waits a token.
const GENERAL = { ropeScaling: { type: 'dynamic', factor: 2 }, maxPositionEmbeddings: 4096 }

const PROMPT = [3, 14, 15, 92, 65]
const COUNT = 24
const ids = (where, values) => vt.tensor([values], { dtype: 'int64' }).to(where)
const endless = { eosTokenId: [], padTokenId: 1 }

let failed = false
function report(passed, line) {
  console.log(`${line}${passed ? '' : ': FAILED'}`)
  if (!passed) failed = true
}
// The library says so once where a token could not be captured.
process.on('warning', ({ message }) => {
  if (message.includes('not captured as a graph')) report(false, message)
})

async function build(shape, where, scheme) {
  const config = { modelType: 'llama', initializerRange: 0.2, ...shape }
  const model = vt.DecoderLM.fromConfig(config, { device: where, seed: 3 }).eval()
  if (mode === 'speed') model.to({ dtype: 'bfloat16' })
  if (scheme === 'int8' || scheme === 'nf4') await vt.quantize(model, { scheme })
  return model
}

/** COUNT tokens and their logits, [COUNT, vocabulary] in float64, in one go: on CUDA a graph from the third on. */
async function written(model, where) {
  const asked = { maxNewTokens: COUNT, ...endless, outputLogits: true }
  const { tokens, logits } = await model.generate({ inputIds: ids(where, PROMPT) }, asked)
  return { tokens: tokens[0].map(Number), logits: await numbers(logits) }
}

/** The same two at a time over one cache: of each two the first is a prompt's, the second the kernels without a graph. */
async function launched(model, where) {
  const cache = new vt.KvCache()
  const [tokens, logits] = [[], []]
  let next = PROMPT
  while (tokens.length < COUNT) {
    const asked = { maxNewTokens: 2, ...endless, outputLogits: true }
    const output = await model.generate({ inputIds: ids(where, next), cache }, asked)
    tokens.push(...output.tokens[0].map(Number))
    logits.push(...(await numbers(output.logits)))
    next = tokens.slice(-1)
  }
  cache.dispose()
  return { tokens, logits }
}

const numbers = async (tensor) => [...(await tensor.detach().to('cpu').double().data())]

function difference(actual, expected) {
  let [most, scale] = [actual.length === expected.length ? 0 : Number.POSITIVE_INFINITY, 0]
  for (const [i, value] of expected.entries()) {
    // NaN is never within the bound.
    if (!(Math.abs(actual[i] - value) <= most)) most = Math.abs(actual[i] - value)
    scale = Math.max(scale, Math.abs(value))
  }
  return most / scale
}

async function same() {
  for (const scheme of ['float32', 'int8', 'nf4']) {
    const model = await build(SMALL, device, scheme)
    const graph = await written(model, device)
    const others = {
      'the CPU': await written(await build(SMALL, 'cpu', scheme), 'cpu'),
      'the kernels without a graph': await launched(model, device),
      'the general path': await written(await build({ ...SMALL, ...GENERAL }, device, scheme), device),
      'a second run': await written(model, device),
    }
    for (const [name, other] of Object.entries(others)) {
      const error = difference(graph.logits, other.logits)
      const tokens = `${graph.tokens}` === `${other.tokens}`
      const what = tokens ? `${COUNT} tokens are those of` : `tokens are ${graph.tokens}, ${other.tokens} by`
      // Float32 through two layers, summed in another order; the parity phase holds each kernel to its own bound.
      report(tokens && error <= 1e-4, `${scheme}: ${what} ${name}, logits apart by ${error.toExponential(1)}`)
    }
  }
}

async function speed() {
  if (device !== 'cpu') {
    vt.ones([1], { device }).dispose() // the first tensor there turns cuDNN's attention off
    const kept = process.env.VOXTORCH_GPU_CHECK_CUDNN === 'on'
    report(kept === Boolean(cudnn), `cuDNN attention was ${kept ? 'left as ATen has it' : 'turned off'}`)
  }
  const attention = cudnn ? 'with cuDNN attention' : 'without cuDNN attention'
  const shape = device === 'cpu' || process.env.VOXTORCH_GPU_CHECK_SIZE ? SMALL : LARGE
  for (const scheme of ['bfloat16', 'int8', 'nf4']) {
    for (const [path, change] of Object.entries({ 'captured path': {}, 'general path': GENERAL })) {
      const model = await build({ ...shape, ...change }, device, scheme)
      const inputIds = ids(device, PROMPT)
      const write = (maxNewTokens) => model.generate({ inputIds }, { maxNewTokens, ...endless })
      await write(8)
      const seconds = []
      // A plan of cuDNN's for a length is made once: the first of the long runs pays for it, the second does not.
      for (const count of [20, 120, 120]) {
        const began = performance.now()
        await write(count)
        seconds.push((performance.now() - began) / 1000)
      }
      const rates = seconds.slice(1).map((long) => (100 / (long - seconds[0])).toFixed(1))
      console.log(`${scheme}, ${path}, ${attention}: ${rates[0]} tokens a second, the lengths known ${rates[1]}`)
      model.dispose()
      vt.emptyCache()
    }
  }
}

await (mode === 'speed' ? speed() : same())
process.exitCode = failed ? 1 : 0
