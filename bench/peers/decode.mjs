import { DecoderLM, noGrad, ones, ops, quantize, randint, scope, zeros } from 'voxtorch'
import { rates } from './rates.mjs'
import { serve, timedBlocks } from './serve.mjs'
import { LLAMA } from './weights.mjs'

const made = (options) => DecoderLM.fromConfig(LLAMA, options).eval().freeze()
const networks = { plain: made({}), half: made({ dtype: 'bfloat16' }), int8: made({}), nf4: made({}) }
quantize(networks.int8, { scheme: 'int8' })
quantize(networks.nf4, { scheme: 'nf4' })

const inputIds = randint(0, 32000, [1, 32])
const rows = randint(0, 32000, [8, 32])
const mask = ops.cat([zeros([8, 8]), ones([8, 24])], 1).to('int64')
const greedy = { maxNewTokens: 32, eosTokenId: null }

const generate = (network, inputs, more) => async (n) => {
  for (let i = 0; i < n; i++) {
    await noGrad(() => scope(async () => void (await networks[network].generate(inputs, { ...greedy, ...more }))))
  }
}

await serve(
  timedBlocks({
    single: generate('plain', { inputIds }),
    half: generate('half', { inputIds }),
    int8: generate('int8', { inputIds }),
    nf4: generate('nf4', { inputIds }),
    batch: generate('plain', { inputIds: rows, attentionMask: mask }),
    beams: generate('plain', { inputIds }, { numBeams: 4 }),
    banned: generate('plain', { inputIds }, { suppressTokens: Array.from({ length: 10_000 }, (_, i) => i) }),
    sampled: generate('plain', { inputIds }, { doSample: true, topK: 50, topP: 0.9, repetitionPenalty: 1.1 }),
    ...rates,
  }),
)
