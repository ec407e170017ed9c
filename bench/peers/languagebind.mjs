import { mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import {
  AdamW,
  ClipTextModel,
  ClipVisionModel,
  cat,
  DataLoader,
  getPeftModel,
  noGrad,
  ones,
  openVideo,
  preprocessVideo,
  randint,
  randn,
  readImage,
  resizeImage,
  sampleFrames,
  saveSafetensors,
  scope,
  stack,
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

let films = ''
const videoOf = (i) => join(films, `${i % 10}.mp4`)
const readClip = (path) =>
  scope(async () => {
    const film = await openVideo(path, { threads: 1 })
    try {
      return await preprocessVideo(await film.frames(sampleFrames(film.frameCount)))
    } finally {
      await film.close()
    }
  })

/** Photographs of scikit-image, decoded; each side resizes the same bytes. */
let photographs = []
async function readPhotographs() {
  const folder = process.env.VOXTORCH_SKIMAGE
  const names = readdirSync(folder)
    .filter((name) => /\.(png|jpe?g)$/.test(name))
    .sort()
  const read = []
  for (const name of names) {
    const picture = await readImage(join(folder, name))
    if (Math.min(picture.size(0), picture.size(1)) >= 300) read.push(picture)
  }
  return read
}
const resized = (picture) => resizeImage(picture, 224, { pillow: 13 })

/** Preprocessing of a network's input. */
const media = {
  async resize(n) {
    for (let i = 0; i < 100 * n; i++) (await resized(photographs[i % photographs.length])).dispose()
  },
  /** Two at a time, as the other side has two processes. */
  async clips(n) {
    const paths = Array.from({ length: 100 * n }, (_, i) => videoOf(i))
    const lane = async () => {
      for (let path = paths.pop(); path !== undefined; path = paths.pop()) (await readClip(path)).dispose()
    }
    await Promise.all([lane(), lane()])
  },
}

let encoder

/** Batches of two clips through the video encoder: nanoseconds of each and of waiting, without the first, which is not prefetched. */
async function step() {
  encoder ??= new ClipVisionModel({ ...large, addTimeAttn: true, numFrames: 8 }).eval()
  const paths = Array.from({ length: 8 }, (_, i) => videoOf(i))
  const collate = (some) => scope(async () => stack(await Promise.all(some.map(readClip))))
  const batches = new DataLoader(paths, { batchSize: 2, collate, collateAhead: true })
  let [began, asked, waited, count] = [0n, 0n, 0n, -1]
  for await (const pixelValues of batches) {
    const now = process.hrtime.bigint()
    if (count >= 0) waited += now - asked
    else began = now
    await noGrad(() => scope(async () => void (await encoder.forward({ pixelValues }))))
    asked = process.hrtime.bigint()
    count += 1
  }
  return { nanoseconds: Number(asked - began) / (count + 1), waited: Number(waited) / count }
}

/** Parameters of the adapters. */
let optimizer
const runs = (name) => async (n) => {
  for (let i = 0; i < n; i++) {
    if (name === 'lora') {
      await scope(async () => (await pooled(name)).square().sum().backward())
      await optimizer.step()
      optimizer.zeroGrad()
    } else await noGrad(() => scope(async () => void (await pooled(name))))
  }
}

/** Networks, inputs and what they give, for the other side. */
async function write(folder, names) {
  const tensors = {}
  films = join(folder, 'clips')
  for (const name of names) {
    if (name === 'step') continue
    if (name === 'clips') tensors.clips = await readClip(videoOf(0))
    if (name === 'resize') {
      photographs = await readPhotographs()
      for (const [i, picture] of photographs.entries()) tensors[`resize.${i}`] = picture
      tensors.resize = cat(
        (await Promise.all(photographs.map(resized))).map((one) => one.reshape([-1])),
        0,
      )
    }
    if (!Object.hasOwn(makers, name)) continue
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
    if (name === 'lora') {
      getPeftModel(network, { r: 16, loraAlpha: 16, targetModules: TARGETS })
      optimizer = new AdamW(
        network.parameters().filter(({ requiresGrad }) => requiresGrad),
        { lr: 1e-4 },
      )
    }
  }
  await saveSafetensors(join(folder, 'values.safetensors'), tensors)
}

const networkRuns = Object.fromEntries(Object.keys(makers).map((name) => [name, runs(name)]))
const blocks = timedBlocks({ ...networkRuns, ...media, ...rates })

await serve(async (request) => {
  if (!request.make) return request.case === 'step' ? step() : blocks(request)
  await write(request.make, request.names)
  return {}
})
