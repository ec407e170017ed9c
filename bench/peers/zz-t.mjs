// node t.mjs CASES(comma) REPS ; prints ms per token (generate of 33 vs 1 tokens difference)
import { DecoderLM, noGrad, ones, ops, quantize, randint, scope, zeros, manualSeed, setNumThreads } from 'voxtorch'
if (process.env.THREADS) setNumThreads(Number(process.env.THREADS))
manualSeed(0)
const config = { vocabSize: 32000, hiddenSize: 768, intermediateSize: 2048, numHiddenLayers: 12, numAttentionHeads: 12, maxPositionEmbeddings: 1024, tieWordEmbeddings: true }
const names = process.argv[2].split(','), reps = Number(process.argv[3] ?? 3)
const inputIds = randint(0, 32000, [1, 32]), rows = randint(0, 32000, [8, 32])
const mask = ops.cat([zeros([8, 8]), ones([8, 24])], 1).to('int64')
const make = (n) => { const m = DecoderLM.fromConfig(config, n === 'half' ? { dtype: 'bfloat16' } : {}).eval().freeze(); if (n === 'int8' || n === 'nf4') quantize(m, { scheme: n }); return m }
const med = (a) => a.sort((x, y) => x - y)[a.length >> 1]
for (const name of names) {
  const model = make(name)
  const args = name === 'batch' ? [{ inputIds: rows, attentionMask: mask }, {}] : name === 'beams' ? [{ inputIds }, { numBeams: 4 }] : [{ inputIds }, {}]
  const run = async (n) => { const t = process.hrtime.bigint(); await noGrad(() => scope(async () => void (await model.generate(args[0], { ...args[1], maxNewTokens: n, eosTokenId: null })))); return Number(process.hrtime.bigint() - t) / 1e6 }
  await run(8); await run(33)
  const out = []
  for (let i = 0; i < reps; i++) { const a = await run(1), b = await run(33); out.push((b - a) / 32) }
  console.log(name, med(out).toFixed(2), 'min', Math.min(...out).toFixed(2), 'max', Math.max(...out).toFixed(2))
  model.dispose?.()
}
