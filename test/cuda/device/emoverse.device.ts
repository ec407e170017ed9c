import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { autograd, type InternVL, loadSafetensors, noGrad, scope, type Tensor, tensor } from '../../../lib/index.js'
import {
  type EmoVerse,
  type EmoVerseQuestion,
  emoverseCollate,
  emoverseLoss,
  type SwiftRecord,
  trainEmoVerse,
} from '../../../lib/systems/emoverse/index.js'
import { expectClose, settledTensors } from '../../helpers.js'
import { hearingEmoVerse, ppm, voice } from '../../systems/emoverse/tiny.js'
import { counted } from './counts.js'

// EmoVerse with eyes and ears on the device: what the CPU gives, and the host does not ask the device what it knows.

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emoverse-device-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const file = (name: string, width: number, height: number, shade: number): string => {
  writeFileSync(
    join(folder, name),
    ppm(width, height, (x, y) => [(5 * x) % 256, (9 * y) % 256, shade]),
  )
  return join(folder, name)
}
const [wide, square] = [file('wide.ppm', 56, 28, 10), file('square.ppm', 28, 28, 200)]
const records: EmoVerseQuestion[] = [
  { query: 'a <sentiment>', response: 'Joy.', images: [wide] },
  { query: 'bc', response: 'No.', videos: [[square, wide]], audios: [voice(200, 0.4)] },
  { query: 'words alone', response: 'Fear.' },
]

let there: EmoVerse
let here: EmoVerse
beforeAll(async () => {
  there = await hearingEmoVerse({ seed: 2 })
  here = await hearingEmoVerse({ seed: 2 })
  here.whole.to({ device: 'cpu' })
  copied()
})
afterAll(() => {
  there.dispose()
  here.dispose()
})
/** The device's weights on the CPU. */
function copied() {
  here.whole.loadStateDict(Object.fromEntries(Object.entries(there.whole.stateDict()).map(([name, one]) => [name, one.to('cpu')])))
} // biome-ignore format: one line

const batchOf = async (model: EmoVerse) => {
  const batch = emoverseCollate(await Promise.all(records.map((record) => model.encode(record))))
  return { ...batch, inputIds: batch.inputIds.to({ device: model.llm.parameters()[0]?.device as 'cpu' }) }
}

describe('EmoVerse on the device', () => {
  it('learns what the CPU learns: loss, and gradients of language model, projection and ears', async () => {
    await scope(async () => {
      const found = async (model: EmoVerse) => {
        const batch = await batchOf(model)
        const { loss } = await emoverseLoss(model, batch)
        const trained = model.whole.namedParameters().filter(([name]) => !/vision_model|speech_encoder/.test(name))
        const grads = await autograd.grad(loss, trained.map(([, one]) => one), { allowUnused: true })
        return { device: loss.device, loss: loss.item() as number, names: trained.map(([name]) => name), grads: grads.map((one) => one?.to('cpu')) }
      }
      const [ours, wanted] = [await found(there), await found(here)]
      expect([ours.device, wanted.device]).toEqual(['cuda:0', 'cpu'])
      expect(Math.abs(ours.loss - wanted.loss)).toBeLessThan(1e-5)
      const most = Math.max(...wanted.grads.map((one) => (one ? Number(one.abs().max().item()) : 0)))
      expect(most).toBeGreaterThan(0)
      for (const part of ['mlp1', 'q_proj', 'speech_proj', 'qformer']) {
        expect(wanted.names.some((name, i) => name.includes(part) && wanted.grads[i]), part).toBe(true)
      }
      for (const [i, one] of ours.grads.entries()) {
        const other = wanted.grads[i]
        expect(one === undefined || one === null, ours.names[i]).toBe(other === undefined || other === null)
        if (one && other) expect(Number(one.sub(other).abs().max().item()) / most, ours.names[i]).toBeLessThan(1e-5)
      }
    })
  }) // biome-ignore format: long lines

  it('answers and scores as the CPU does, and leaves nothing there', async () => {
    const options = { maxNewTokens: 5 }
    const wanted = await here.generate(records, options)
    here.prefixCaches.dispose()
    const before = await settledTensors()
    expect(await there.generate(records, options)).toEqual(wanted)
    const question = records[0] as EmoVerseQuestion
    let streamed = ''
    for await (const { text } of there.stream(question, options)) streamed += text
    expect(streamed).toBe(wanted[0]?.text)
    const shares = await there.scoreLabels(question, ['Joy.', 'Fear.', 'No.'])
    there.prefixCaches.dispose()
    expect(await settledTensors()).toBe(before)
    const other = Object.entries(await here.scoreLabels(question, ['Joy.', 'Fear.', 'No.']))
    for (const [label, share] of other) expect(shares[label]).toBeCloseTo(share, 5)
  })

  it('sees a picture once, as the CPU does', async () => {
    await scope(() =>
      noGrad(async () => {
        const question = { query: '<image>q', images: [file('new.ppm', 40, 28, 77)] }
        const read = (model: EmoVerse) => model.vision?.read(question) as ReturnType<NonNullable<EmoVerse['vision']>['read']>
        const first = await there.vision?.features(await read(there))
        expectClose((first as Tensor).to('cpu'), (await here.vision?.features(await read(here))) as Tensor, 1e-5)
        const known = await read(there)
        expect(known[0]).toMatchObject({ pixels: null, features: expect.any(Uint8Array) })
        const spent = await counted(async () => void (await there.vision?.features(known)))
        expect(Object.keys(spent.launchesBy).filter((name) => /conv|attention|linear|mm/.test(name))).toEqual([])
      }),
    )
  }) // biome-ignore format: long lines

  it('asks the device for nothing that the host knows: where pictures and sounds stand', async () => {
    await scope(() =>
      noGrad(async () => {
        const batch = await batchOf(there)
        const run = () => scope(async () => void (await there.embed(batch.inputIds, { ...batch, audioInputs: [], audioPlaces: [] })))
        await run()
        const { waitsBy, bytesToHost } = await counted(run)
        expect([Object.keys(waitsBy).filter((name) => !/copy to the device|H2D|host to device/i.test(name)), bytesToHost]).toEqual([[], 0])
        // Ids that are on the CPU yet are counted there.
        const network = there.model as InternVL
        const inputIds = tensor([[5, network.config.imgContextTokenId as number, network.config.imgContextTokenId as number, 7]], { dtype: 'int64', device: 'cpu' })
        const imageEmbeds = there.llm.embed(tensor([[3, 4]], { dtype: 'int64' })).detach()
        const forward = (ids: Tensor) => network.forward({ inputIds: ids, imageEmbeds })
        const logits = (await forward(inputIds)).logits as Tensor
        expect(logits.device).toBe('cuda:0')
        expectClose(logits.to('cpu'), ((await forward(inputIds.to('cuda'))).logits as Tensor).to('cpu'), 1e-6)
        const counting = async (ids: Tensor) => (await counted(() => scope(async () => void (await network.embed(ids, { imageEmbeds }))))).bytesToHost
        expect(await counting(inputIds)).toBe(0)
        expect(await counting(inputIds.to('cuda'))).toBeGreaterThan(0)
        await expect(forward(tensor([[5, 7]], { dtype: 'int64', device: 'cpu' }))).rejects.toThrow(/expected 2 times <IMG_CONTEXT> .* got 0 in inputIds/)
      }),
    )
  }) // biome-ignore format: long lines

  it('trains an adapter beside ears, with features kept on the disk: the first loss is that of the CPU', async () => {
    const data: SwiftRecord[] = ['Joy.', 'Fear.', 'No.', 'Joy.'].map((response, i) => ({ query: `${i}`, response, images: [[wide, square][i % 2] as string] }))
    const recipe = { batchSize: 4, accumulation: 1, epochs: 2, validationShare: 0, logSteps: 1, gradientCheckpointing: true }
    const losses: number[] = []
    for (const [name, model] of Object.entries({ here, there })) {
      const outputDir = join(folder, name)
      const { stages } = await trainEmoVerse(model, {
        ...{ stages: [{ data, recipe, lora: { loraDropout: 0 }, speech: 'whole' }], outputDir, saveModel: false, visionCache: join(folder, `${name}-features`) },
        args: { progress: false, reportTo: 'none' },
      })
      expect(stages[0]?.globalStep).toBe(2)
      expect(readdirSync(join(folder, `${name}-features`)).some((one) => one.endsWith('.features'))).toBe(true)
      const [first] = readFileSync(join(outputDir, 'stage-1/tasks.jsonl'), 'utf8').split('\n')
      losses.push(JSON.parse(first as string).tasks.other.loss)
      const { tensors } = await loadSafetensors(join(outputDir, 'stage-1/adapter/adapter_model.safetensors'))
      const moved = Object.entries(tensors).filter(([key, one]) => key.includes('lora_B') && Number(one.to('cpu').abs().max().item()) > 0)
      expect(moved.length).toBeGreaterThan(10)
      for (const one of Object.values(tensors)) one.dispose()
    }
    expect(losses[0]).toBeGreaterThan(1)
    expect(Math.abs((losses[0] as number) - (losses[1] as number))).toBeLessThan(1e-4)
  }) // biome-ignore format: long lines
})
