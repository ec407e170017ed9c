import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { writeJson } from '../../../lib/files/json/json.js'
import { AdamW, manualSeed, Salmonn, scope, setNumThreads, type Tensor, writeWav } from '../../../lib/index.js'
import {
  openSalmonnData,
  SALMONN_STAGES,
  salmonnConfiguration,
  salmonnOfConfiguration,
  salmonnParameterGroups,
  trainSalmonn,
  trainSalmonnParts,
} from '../../../lib/systems/salmonn/index.js'
import { tensor } from '../../../lib/tensor/index.js'
import { fixturePath } from '../../helpers.js'
import { tinySalmonn } from './network/tiny.js'

const tone = (hertz: number, seconds: number): Float32Array =>
  Float32Array.from({ length: seconds * 16000 }, (_, i) => 0.5 * Math.sin((2 * Math.PI * hertz * i) / 16000))

describe('the network learns', () => {
  let model: Salmonn
  beforeAll(async () => {
    setNumThreads(1)
    manualSeed(3)
    model = await tinySalmonn()
  })
  afterAll(() => model.dispose())

  it('four answers by heart, from sound alone', async () => {
    const text = 'USER: <Speech><SpeechHere></Speech> What?\nASSISTANT:'
    const clips = [tone(150, 0.6), tone(600, 0.9), tone(1800, 1.2), tone(4500, 1.5)]
    const prompts = clips.map((clip) => ({ text, clips: [clip] }))
    const targets = ['low', 'middle', 'high', 'a whistle']
    // A language model that has learnt nothing has to learn to write, too.
    trainSalmonnParts(model, ['qformer', 'projection', 'lora', 'llm'])
    const optimizer = new AdamW(
      model.parameters().filter(({ requiresGrad }) => requiresGrad),
      { lr: 1e-2 },
    )
    model.train()
    let value = Number.POSITIVE_INFINITY
    for (let step = 0; step < 300 && value > 0.03; step += 1) {
      await scope(async () => {
        optimizer.zeroGrad()
        const { loss } = await model.forward({ prompts, targets })
        value = Number((loss as Tensor).item())
        await (loss as Tensor).backward()
        await optimizer.step()
      })
    }
    optimizer.dispose()
    model.eval()
    const { loss, correct, total } = await model.forward({ prompts, targets })
    expect(Number((loss as Tensor).item())).toBeLessThan(0.05)
    expect(correct).toBe(total)
    const { texts } = await model.generate(prompts, { maxNewTokens: 20 })
    expect(texts).toEqual(targets)
  })
})

it('the optimiser decays matrices and queries of the network, and neither biases nor norms', async () => {
  const model = await tinySalmonn()
  trainSalmonnParts(model, SALMONN_STAGES[2])
  const names = new Map(model.namedParameters().map(([name, parameter]) => [parameter as Tensor, name]))
  const groups = salmonnParameterGroups(model).map(({ params }) => params.map((param) => names.get(param) as string))
  const qformer = (layer: number): [string[], string[]] => {
    const at = `speech_Qformer.bert.encoder.layer.${layer}`
    const linear = [
      ...['attention', 'crossattention'].flatMap((kind) => [
        ...['query', 'key', 'value'].map((name) => `${at}.${kind}.self.${name}`),
        `${at}.${kind}.output.dense`,
      ]),
      `${at}.intermediate_query.dense`,
      `${at}.output_query.dense`,
    ]
    const norms = ['attention.output', 'crossattention.output', 'output_query'].map((name) => `${at}.${name}.LayerNorm`)
    return [
      linear.map((name) => `${name}.weight`),
      [...linear.map((name) => `${name}.bias`), ...norms.flatMap((name) => [`${name}.weight`, `${name}.bias`])],
    ]
  }
  const lora = [0, 1].flatMap((layer) =>
    ['q_proj', 'v_proj'].flatMap((name) =>
      ['A', 'B'].map(
        (factor) =>
          `llama_model.base_model.model.model.layers.${layer}.self_attn.${name}.lora_${factor}.default.weight`,
      ),
    ),
  )
  const norms = ['ln_speech', 'ln_audio', 'speech_Qformer.bert.embeddings.LayerNorm']
  expect(groups.map((group) => [...group].sort())).toEqual([
    ['speech_query_tokens', 'speech_llama_proj.weight', ...qformer(0)[0], ...qformer(1)[0], ...lora].sort(),
    [
      ...norms.flatMap((name) => [`${name}.weight`, `${name}.bias`]),
      'speech_llama_proj.bias',
      ...qformer(0)[1],
      ...qformer(1)[1],
    ].sort(),
  ])
  model.dispose()
})

describe('from a configuration to a trained model', () => {
  const folder = mkdtempSync(join(tmpdir(), 'salmonn-train-'))
  afterAll(() => rmSync(folder, { recursive: true }))

  it('trains both stages, saves what trains, and the saved model loads', async () => {
    setNumThreads(1)
    const annotation = []
    for (let i = 0; i < 8; i += 1) {
      const path = join(folder, `${i}.wav`)
      await writeWav(path, tensor(tone(200 + 300 * (i % 4), 0.5)), { sampleRate: 16000 })
      annotation.push({ path, text: ['a', 'b', 'c', 'd'][i % 4], task: 'asr' })
    }
    await writeJson(join(folder, 'data.json'), { annotation })
    const published = fixturePath('models/salmonn-published')
    const configuration = await salmonnConfiguration({
      model: {
        llm: join(published, 'vicuna'),
        whisper: join(published, 'whisper'),
        beats: join(published, 'beats.pt'),
        adapter: join(published, 'salmonn_v1.pth'),
        maxTextLength: 20,
      },
      data: { train: join(folder, 'data.json'), validShare: 0.25 },
    } as never)
    const heads = { config: { qformer: { numAttentionHeads: 3 } }, dtype: 'float32' } as const
    const data = await openSalmonnData(configuration.data)
    const recipe = { epochs: 1, iterationsPerEpoch: null, batchSize: 2, evalBatchSize: 2, warmupSteps: 1, amp: false }
    const run = async (stage: 1 | 2, model: Salmonn) => {
      const outputDir = join(folder, `stage-${stage}`)
      const results = await trainSalmonn(model, { ...data, outputDir, recipe, stage })
      expect(results.valid.loss).toBeGreaterThan(0)
      await model.save(join(outputDir, 'model'))
      const prompt = { text: '<SpeechHere>', clips: [tone(300, 0.5)] }
      const { tokens } = await model.eval().generate([prompt], { maxNewTokens: 6 })
      model.dispose()
      const again = await Salmonn.fromPretrained(join(outputDir, 'model'), { dtype: 'float32' })
      expect((await again.generate([prompt], { maxNewTokens: 6 })).tokens).toEqual(tokens)
      return again
    }
    const first = await run(1, await salmonnOfConfiguration(configuration, heads))
    const second = await run(2, first)
    second.dispose()
  })
})
