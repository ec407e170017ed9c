import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import {
  ClipTextModel,
  ClipVisionModel,
  getPeftModel,
  noGrad,
  ones,
  randint,
  randn,
  saveSafetensors,
  scope,
} from 'voxtorch'
import { rates } from './rates.mjs'
import { serve, timedBlocks } from './serve.mjs'

const large = { hiddenSize: 1024, intermediateSize: 4096, numHiddenLayers: 24, numAttentionHeads: 16, patchSize: 14, hiddenAct: 'gelu' } // biome-ignore format: one line
const text = { hiddenSize: 768, intermediateSize: 3072, numAttentionHeads: 12, hiddenAct: 'gelu', eosTokenId: 2 }
const clip = () => ({ pixelValues: randn([1, 3, 8, 224, 224]) })
const TARGETS = ['q_proj', 'k_proj', 'v_proj', 'out_proj'].map((name) => `temporal_attn.${name}`)

const makers = {
  text: () => [
    new ClipTextModel(text),
    { inputIds: randint(1, 49_408, [8, 77]), attentionMask: ones([8, 77], { dtype: 'int64' }) },
  ],
  audio: () => [new ClipVisionModel({ ...large, imageSize: [112, 1036] }), { pixelValues: randn([1, 3, 112, 1036]) }],
  video: () => [new ClipVisionModel({ ...large, addTimeAttn: true, numFrames: 8 }), clip()],
  videoHalf: () => [new ClipVisionModel({ ...large, addTimeAttn: true, numFrames: 8 }), clip()],
  lora: () => [new ClipVisionModel({ ...large, addTimeAttn: true, numFrames: 8 }), clip()],
}
const networks = {}
const pooled = async (name) => {
  const [network, inputs] = networks[name]
  return (await network.forward(inputs)).poolerOutput
}

const runs = (name) => async (n) => {
  for (let i = 0; i < n; i++) {
    if (name === 'lora') {
      await scope(async () => (await pooled(name)).square().sum().backward())
      networks[name][0].zeroGrad()
    } else await noGrad(() => scope(async () => void (await pooled(name))))
  }
}

/** Networks, inputs and what they give, for the other side. */
async function write(folder, names) {
  const tensors = {}
  for (const name of names) {
    const [network, inputs] = makers[name]()
    network.eval().freeze()
    mkdirSync(join(folder, name))
    await network.save(join(folder, name))
    for (const [key, value] of Object.entries(inputs)) tensors[`${name}.${key}`] = value
    networks[name] = [network, inputs]
    tensors[name] = await noGrad(() => pooled(name))
    if (name === 'videoHalf') {
      network.to({ dtype: 'bfloat16' })
      networks[name] = [network, { pixelValues: inputs.pixelValues.to('bfloat16') }]
    }
    if (name === 'lora') getPeftModel(network, { r: 16, loraAlpha: 16, targetModules: TARGETS })
  }
  await saveSafetensors(join(folder, 'values.safetensors'), tensors)
}

const blocks = timedBlocks({ ...Object.fromEntries(Object.keys(makers).map((name) => [name, runs(name)])), ...rates })

await serve(async (request) => {
  if (!request.make) return blocks(request)
  await write(request.make, request.names)
  return {}
})
