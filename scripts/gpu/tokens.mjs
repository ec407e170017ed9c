// A language model's tokens on the device: those of the CPU, and how many a second, by the dtype of the weights.
// scripts/gpu-check.sh sets VOXTORCH_ADDON and LIBTORCH.
const vt = await import(new URL('../../dist/index.js', import.meta.url).href)

const device = process.env.VOXTORCH_GPU_CHECK_DEVICE ?? 'cuda'
const SMALL = { hiddenSize: 128, intermediateSize: 256, numHiddenLayers: 2, numAttentionHeads: 4, vocabSize: 101 }
// Of a 7B's layers, as many as take a second or two to fill with random numbers.
const LARGE = { hiddenSize: 4096, intermediateSize: 11008, numHiddenLayers: 8, numAttentionHeads: 32, vocabSize: 32000 }

const build = (shape, where) =>
  vt.DecoderLM.fromConfig({ modelType: 'llama', initializerRange: 0.2, ...shape }, { device: where, seed: 3 }).eval()
const ids = (where) => vt.tensor([[3, 14, 15, 92, 65]], { dtype: 'int64' }).to(where)
const write = (model, count) =>
  model.generate({ inputIds: ids(device) }, { maxNewTokens: count, eosTokenId: [], padTokenId: 1 })

for (const scheme of ['float32', 'int8', 'nf4']) {
  const answers = []
  for (const where of ['cpu', device]) {
    const model = build(SMALL, where)
    if (scheme !== 'float32') await vt.quantize(model, { scheme })
    const { tokens } = await model.generate(
      { inputIds: ids(where) },
      { maxNewTokens: 24, eosTokenId: [], padTokenId: 1 },
    )
    answers.push(`${tokens}`)
  }
  const same = answers[0] === answers[1]
  console.log(`${scheme}: 24 tokens ${same ? 'are' : 'are NOT'} those of the CPU`)
  if (!same) process.exitCode = 1
}

for (const scheme of ['bfloat16', 'int8', 'nf4']) {
  const model = build(device === 'cpu' ? SMALL : LARGE, device)
  model.to({ dtype: 'bfloat16' })
  if (scheme !== 'bfloat16') await vt.quantize(model, { scheme })
  await write(model, 8)
  const times = []
  for (const count of [20, 120]) {
    const began = performance.now()
    await write(model, count)
    times.push(performance.now() - began)
  }
  console.log(`${scheme}: ${(100_000 / (times[1] - times[0])).toFixed(1)} tokens a second`)
}
